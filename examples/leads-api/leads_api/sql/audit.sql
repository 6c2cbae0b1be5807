-- The audit trail. Run as a superuser, once, in the application's database. This and the lines in leads_api/app.py are all there is.
CREATE EXTENSION lead_audit; -- finds the table leads and watches it

-- The rows that are there already are written down once, so that every history has a beginning.
SELECT lead_audit.enable('public.leads', baseline => true);

-- leads_app, which writes, needs no rights, and gets none. leads_auditor, which shows the trail, may read and verify it, no more.
GRANT USAGE ON SCHEMA lead_audit TO leads_auditor;
GRANT SELECT ON lead_audit.log, lead_audit.checkpoint TO leads_auditor;
GRANT EXECUTE ON FUNCTION lead_audit.history(regclass, text), lead_audit.verify_entry(bigint),
  lead_audit.verify(bigint, bigint, timestamptz, timestamptz), lead_audit.inclusion_proof(bigint, bigint) TO leads_auditor;
