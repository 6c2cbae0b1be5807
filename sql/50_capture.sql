-- The functions of the audit triggers. The functions run as the role that writes to the watched
-- table. The writing role needs no rights on the schema lead_audit. Dumps contain the names of the
-- functions, so their names and their schema must not change.
CREATE FUNCTION lead_audit.capture() RETURNS trigger
  LANGUAGE c AS 'MODULE_PATHNAME', 'lead_audit_capture';
-- PUBLIC keeps EXECUTE on capture(), because PostgreSQL checks this right when the owner of a
-- watched partitioned table creates a partition. A role without USAGE on the schema lead_audit
-- cannot use the function in its own commands. The DDL guard refuses triggers with capture() that
-- somebody creates by hand.
COMMENT ON FUNCTION lead_audit.capture() IS
  'Row trigger of a watched table. Arguments: the watch id, the name of the soft-delete column or '
  'an empty string, and origin_only unless the table was enabled with replica.';

CREATE FUNCTION lead_audit.capture_truncate() RETURNS trigger
  LANGUAGE c AS 'MODULE_PATHNAME', 'lead_audit_capture_truncate';
REVOKE ALL ON FUNCTION lead_audit.capture_truncate() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.capture_truncate() IS
  'BEFORE TRUNCATE trigger of a watched table: counts the rows, and writes the entry when the '
  'table is truncated, before any AFTER TRUNCATE trigger. Arguments: the watch id, and '
  'origin_only unless the table was enabled with replica.';

CREATE FUNCTION lead_audit_internal.write_baseline(
  relation regclass, watch_id uuid, soft_delete_column text) RETURNS bigint
  LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'write_baseline_wrapper';
REVOKE ALL ON FUNCTION lead_audit_internal.write_baseline(regclass, uuid, text) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.write_baseline(regclass, uuid, text) IS
  'Writes one SNAPSHOT entry for each row of a table. Returns the number of rows.';

CREATE FUNCTION lead_audit_internal.write_ddl(
  watch_id uuid, relation oid, table_schema text, table_name text, statement text) RETURNS void
  LANGUAGE c AS 'MODULE_PATHNAME', 'write_ddl_wrapper';
REVOKE ALL ON FUNCTION lead_audit_internal.write_ddl(uuid, oid, text, text, text) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.write_ddl(uuid, oid, text, text, text) IS
  'Writes one DDL entry.';

CREATE FUNCTION lead_audit_internal.record_command(
  watch_id uuid, relation oid, table_schema text, table_name text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT lead_audit_internal.write_ddl($1, $2, $3, $4, current_query())
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.record_command(uuid, oid, text, text) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.record_command(uuid, oid, text, text) IS
  'Writes one DDL entry with the text of the current command.';
