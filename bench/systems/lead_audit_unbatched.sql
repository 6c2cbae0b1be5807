-- label: lead_audit, batch_memory = 0
-- full
CREATE EXTENSION lead_audit;
ALTER DATABASE :"DBNAME" SET lead_audit.batch_memory = 0;
