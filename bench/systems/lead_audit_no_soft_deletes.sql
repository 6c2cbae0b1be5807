-- label: lead_audit, log_soft_deletes = off
-- full
CREATE EXTENSION lead_audit;
ALTER DATABASE :"DBNAME" SET lead_audit.log_soft_deletes = off;
