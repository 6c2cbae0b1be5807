-- label: lead_audit, on_error = abort
CREATE EXTENSION lead_audit;
ALTER DATABASE :"DBNAME" SET lead_audit.on_error = abort;
