-- Creates the two schemas of the extension. CREATE EXTENSION uses an existing schema lead_audit,
-- no matter which role owns the schema. If the owner of the schema is not a superuser, this block
-- raises an error, because the owner could change the audit trail.
DO $$
BEGIN
  IF pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.<>) 'UTF8' THEN
    RAISE EXCEPTION 'lead_audit needs a database with the encoding UTF8'
      USING ERRCODE = 'feature_not_supported',
            DETAIL = pg_catalog.format('The encoding of this database is %s.',
                                       pg_catalog.getdatabaseencoding()),
            HINT = 'Checksums cover UTF-8 text. Create the database with ENCODING ''UTF8''.';
  END IF;
  IF EXISTS (SELECT FROM pg_catalog.pg_namespace n, pg_catalog.pg_roles r
             WHERE n.nspname OPERATOR(pg_catalog.=) 'lead_audit'
               AND r.oid OPERATOR(pg_catalog.=) n.nspowner AND NOT r.rolsuper) THEN
    RAISE EXCEPTION 'schema "lead_audit" already exists and does not belong to a superuser'
      USING ERRCODE = 'insufficient_privilege',
            DETAIL = 'Its owner could change the audit trail.',
            HINT = 'Drop or rename the schema, then run CREATE EXTENSION again.';
  END IF;
END
$$;

REVOKE ALL ON SCHEMA lead_audit FROM PUBLIC;
COMMENT ON SCHEMA lead_audit IS
  'Audit trail of the watched tables. PUBLIC has no rights here. Writes to watched tables are '
  'recorded all the same.';

-- The schema lead_audit_internal contains the functions that only lead_audit calls. Some of these
-- functions run with the rights of a superuser, so a role that owns the schema could gain these
-- rights. The statement has no IF NOT EXISTS, so CREATE EXTENSION fails if the schema already
-- exists.
CREATE SCHEMA lead_audit_internal;
REVOKE ALL ON SCHEMA lead_audit_internal FROM PUBLIC;
COMMENT ON SCHEMA lead_audit_internal IS
  'Functions that only lead_audit calls. They can change with any version. PUBLIC has no rights '
  'here.';
