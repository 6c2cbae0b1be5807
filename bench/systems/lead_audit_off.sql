-- label: lead_audit, enabled = off
-- full
CREATE EXTENSION lead_audit;
ALTER DATABASE :"DBNAME" SET lead_audit.enabled = off;
