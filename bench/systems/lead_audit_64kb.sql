-- label: lead_audit, batch_memory = 64kB
-- full
CREATE EXTENSION lead_audit;
ALTER DATABASE :"DBNAME" SET lead_audit.batch_memory = '64kB';
