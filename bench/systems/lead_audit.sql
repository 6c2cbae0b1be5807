-- label: lead_audit
CREATE EXTENSION lead_audit;
