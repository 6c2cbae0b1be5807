-- label: lead_audit, log_unchanged = on
-- full
CREATE EXTENSION lead_audit;
ALTER DATABASE :"DBNAME" SET lead_audit.log_unchanged = on;
