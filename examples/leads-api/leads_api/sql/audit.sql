-- Sets up the audit trail. A superuser runs this file once, in the application's database. Besides
-- this file, lead_audit needs only the lines of leads_api/app.py that are marked "for lead_audit".
CREATE EXTENSION lead_audit; -- finds the table leads and watches it

-- The baseline is one entry for each existing row, so that every history has a beginning.
SELECT lead_audit.enable('public.leads', baseline => true);

-- The role `leads_app` writes leads, and needs no rights for the audit. The role `leads_auditor`
-- can read and verify the audit trail, and cannot change the audit trail.
GRANT USAGE ON SCHEMA lead_audit TO leads_auditor;
GRANT SELECT ON lead_audit.log, lead_audit.checkpoint TO leads_auditor;
GRANT EXECUTE ON FUNCTION lead_audit.history(regclass, text), lead_audit.verify_entry(bigint),
  lead_audit.verify(bigint, bigint, timestamptz, timestamptz),
  lead_audit.inclusion_proof(bigint, bigint) TO leads_auditor;
