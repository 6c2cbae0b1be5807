-- label: lead_audit, preloaded, log_rollbacks = off
-- preloaded
-- full
CREATE EXTENSION lead_audit;
ALTER DATABASE :"DBNAME" SET lead_audit.log_rollbacks = off;
