-- The functions that the view lead_audit.log calls. PUBLIC keeps EXECUTE on these functions,
-- because PostgreSQL checks whether the role that reads the view has EXECUTE. The functions are
-- harmless: they only compute a result from their arguments, and accept any JSON.
CREATE FUNCTION lead_audit_internal.as_jsonb(value json) RETURNS jsonb
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'lead_audit_as_jsonb';
CREATE FUNCTION lead_audit_internal.new_values_of(row_values json, changed_values json)
  RETURNS jsonb
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'lead_audit_new_values_of';
CREATE FUNCTION lead_audit_internal.diff_of(row_values json, changed_values json) RETURNS jsonb
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'lead_audit_diff_of';
COMMENT ON FUNCTION lead_audit_internal.as_jsonb(json) IS
  'Returns the value as jsonb. NULL if it is too large or nested too deeply for that.';
COMMENT ON FUNCTION lead_audit_internal.new_values_of(json, json) IS
  'Returns the row after an UPDATE, or NULL if it is too large or nested too deeply.';
COMMENT ON FUNCTION lead_audit_internal.diff_of(json, json) IS
  'Returns {"column": {"old": ..., "new": ...}} for each changed value, or NULL if that is too '
  'large or nested too deeply.';

-- The view of the audit trail for readers. An entry stores the old row and the changed values.
-- From these columns the view computes the complete new row and the diff. For a JSON text of less
-- than 1,000 bytes, the view uses a plain cast, which is faster than as_jsonb(). A text of less
-- than 1,000 bytes is neither too large nor too deeply nested for jsonb.
CREATE VIEW lead_audit.log AS
SELECT e.id, e.occurred_at, e.txid, e.table_schema, e.table_name, e.relation, e.operation,
       e.outcome,
       CASE WHEN pg_catalog.octet_length(e.row_key::text) < 1000 THEN e.row_key::jsonb
            ELSE lead_audit_internal.as_jsonb(e.row_key) END AS row_key,
       CASE WHEN e.operation NOT IN ('UPDATE', 'DELETE') THEN NULL
            WHEN pg_catalog.octet_length(e.row_values::text) < 1000 THEN e.row_values::jsonb
            ELSE lead_audit_internal.as_jsonb(e.row_values) END AS old_values,
       CASE WHEN e.operation = 'DELETE' THEN NULL
            WHEN e.operation = 'UPDATE' THEN
              CASE WHEN pg_catalog.octet_length(e.row_values::text)
                        + pg_catalog.octet_length(e.changed_values::text) < 1000
                THEN e.row_values::jsonb || e.changed_values::jsonb
                ELSE lead_audit_internal.new_values_of(e.row_values, e.changed_values) END
            WHEN pg_catalog.octet_length(e.row_values::text) < 1000 THEN e.row_values::jsonb
            ELSE lead_audit_internal.as_jsonb(e.row_values) END AS new_values,
       CASE WHEN e.operation = 'UPDATE' THEN
         lead_audit_internal.diff_of(e.row_values, e.changed_values) END AS diff,
       e.soft_delete, e.user_id, e.user_ip, e.user_agent, e.request_id, e.db_session_user,
       e.db_current_user, e.client_addr, e.application_name, e.backend_pid, e.error_code,
       e.error_message, e.error_detail, e.statement, e.checksum, e.details
FROM lead_audit.entry e;
REVOKE ALL ON lead_audit.log FROM PUBLIC;
COMMENT ON VIEW lead_audit.log IS
  'The audit trail: one row for each event, with complete old and new values and their diff.';
COMMENT ON COLUMN lead_audit.log.id IS
  'Order of the events: within the history of a row, a later event has a higher id.';
COMMENT ON COLUMN lead_audit.log.occurred_at IS
  'Wall-clock time of the event, in microseconds. Not the start of the transaction.';
COMMENT ON COLUMN lead_audit.log.txid IS
  'Top-level transaction, as returned by pg_current_xact_id(). For information only: ids of '
  'transactions do not survive dump and restore.';
COMMENT ON COLUMN lead_audit.log.table_schema IS 'Schema of the table at the time of the event.';
COMMENT ON COLUMN lead_audit.log.table_name IS 'Name of the table at the time of the event.';
COMMENT ON COLUMN lead_audit.log.relation IS
  'Oid of the table at the time of the event. For information only.';
COMMENT ON COLUMN lead_audit.log.operation IS
  'INSERT, UPDATE, DELETE, TRUNCATE, SNAPSHOT (a row that existed when watching began), DDL or '
  'KEY (the log has a new key or origin). Failures can also have MERGE, COPY, COMMIT (a deferred '
  'check that covers several operations) and ROLLBACK.';
COMMENT ON COLUMN lead_audit.log.outcome IS
  'ok, failed, rolled_back (what a rolled-back transaction had written) or gap (the event took '
  'place, but its entry could not be written).';
COMMENT ON COLUMN lead_audit.log.row_key IS
  'Primary key columns and their values after the event. NULL without a primary key.';
COMMENT ON COLUMN lead_audit.log.old_values IS
  'Complete row before an UPDATE or DELETE. NULL if jsonb cannot hold it.';
COMMENT ON COLUMN lead_audit.log.new_values IS
  'Complete row after an INSERT or UPDATE, or as a SNAPSHOT found it. NULL if jsonb '
  'cannot hold it.';
COMMENT ON COLUMN lead_audit.log.diff IS
  'For an UPDATE: {"column": {"old": ..., "new": ...}} for each column that changed. NULL if '
  'jsonb cannot hold it.';
COMMENT ON COLUMN lead_audit.log.soft_delete IS
  'deleted: the soft-delete column turned true. restored: it no longer is true. Otherwise NULL.';
COMMENT ON COLUMN lead_audit.log.user_id IS
  'Setting lead_audit.user_id: the user, according to the application.';
COMMENT ON COLUMN lead_audit.log.user_ip IS
  'Setting lead_audit.user_ip: the user''s address, according to the application.';
COMMENT ON COLUMN lead_audit.log.user_agent IS
  'Setting lead_audit.user_agent: the user''s browser or program, according to the application.';
COMMENT ON COLUMN lead_audit.log.request_id IS
  'Setting lead_audit.request_id: the request, according to the application.';
COMMENT ON COLUMN lead_audit.log.db_session_user IS
  'session_user: the role that logged in to the database.';
COMMENT ON COLUMN lead_audit.log.db_current_user IS 'current_user of the statement.';
COMMENT ON COLUMN lead_audit.log.client_addr IS
  'Network address of the client, according to the server. NULL for a Unix socket.';
COMMENT ON COLUMN lead_audit.log.application_name IS 'Setting application_name.';
COMMENT ON COLUMN lead_audit.log.backend_pid IS 'Process id of the server process.';
COMMENT ON COLUMN lead_audit.log.error_code IS 'SQLSTATE of the failure.';
COMMENT ON COLUMN lead_audit.log.error_message IS 'Message of the failure.';
COMMENT ON COLUMN lead_audit.log.error_detail IS 'DETAIL of the failure.';
COMMENT ON COLUMN lead_audit.log.statement IS 'Text of the statement, for DDL and failures.';
COMMENT ON COLUMN lead_audit.log.checksum IS
  'SHA-256 over the canonical JSON of all other columns of lead_audit.entry that are not NULL.';
COMMENT ON COLUMN lead_audit.log.details IS
  'Further facts, depending on the event. TRUNCATE: {"row_count": n}. UPDATE that moved the row '
  'to another partition: {"moved_from": {"table_name": ..., "table_schema": ...}}. DDL whose '
  'command is not the client''s text: {"executed": ...}. DDL whose text was cut: {"command": ..., '
  '"statement_length": n}. KEY: {"old_origin": ..., "old_key": ..., "new_origin": ..., "new_key": '
  '...}. Failure: constraint, column, parameters and omitted_columns. Rolled-back transaction: '
  '{"written": [...], "written_omitted": n}.';
