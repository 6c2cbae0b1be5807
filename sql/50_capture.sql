-- The triggers' functions. They run as whoever writes to the table, who needs no rights in this schema.
CREATE FUNCTION lead_audit.capture() RETURNS trigger LANGUAGE c AS 'MODULE_PATHNAME', 'lead_audit_capture';
-- EXECUTE stays with PUBLIC: Postgres asks for it when the owner of a watched partitioned table makes a partition. Nobody else
-- gets anywhere with it: who has no right on the schema cannot name it, and the DDL guard refuses triggers made by hand.
COMMENT ON FUNCTION lead_audit.capture() IS 'Row trigger of a watched table. Arguments: watch_id, name of the soft-delete column or ''''.';

CREATE FUNCTION lead_audit.capture_truncate() RETURNS trigger LANGUAGE c AS 'MODULE_PATHNAME', 'lead_audit_capture_truncate';
REVOKE ALL ON FUNCTION lead_audit.capture_truncate() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.capture_truncate() IS 'BEFORE TRUNCATE trigger of a watched table: records how many rows went. Argument: watch_id.';

CREATE FUNCTION lead_audit_internal.write_baseline(relation regclass, watch_id uuid, soft_delete_column text) RETURNS bigint
  LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'write_baseline_wrapper';
REVOKE ALL ON FUNCTION lead_audit_internal.write_baseline(regclass, uuid, text) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.write_baseline(regclass, uuid, text) IS 'Internal to enable(): one SNAPSHOT entry for each row of the table; returns their number.';

CREATE FUNCTION lead_audit_internal.write_ddl(watch_id uuid, relation oid, table_schema text, table_name text, statement text)
  RETURNS void LANGUAGE c AS 'MODULE_PATHNAME', 'write_ddl_wrapper';
REVOKE ALL ON FUNCTION lead_audit_internal.write_ddl(uuid, oid, text, text, text) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.write_ddl(uuid, oid, text, text, text) IS 'Internal to disable() and the DDL guard: one DDL entry.';
