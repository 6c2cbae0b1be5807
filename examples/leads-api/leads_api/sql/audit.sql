-- The audit trail. Run as a superuser, once, in the application's database. Together with the
-- lines in leads_api/app.py, this is the whole installation of lead_audit.
CREATE EXTENSION lead_audit; -- finds the table leads and watches it

-- The baseline records the existing rows once, so that every history has a beginning.
SELECT lead_audit.enable('public.leads', baseline => true);

-- leads_app writes, and needs no rights. leads_auditor shows the trail. It can only read and
-- verify it.
GRANT USAGE ON SCHEMA lead_audit TO leads_auditor;
GRANT SELECT ON lead_audit.log, lead_audit.checkpoint TO leads_auditor;
GRANT EXECUTE ON FUNCTION lead_audit.history(regclass, text), lead_audit.verify_entry(bigint),
  lead_audit.verify(bigint, bigint, timestamptz, timestamptz),
  lead_audit.inclusion_proof(bigint, bigint) TO leads_auditor;
