-- The audit trail: one row for each event. Only the library writes these rows. The table has the
-- columns of crates/ledger/src/columns.rs, in the same order. Columns of wide types come first, so
-- rows need no padding for alignment.
CREATE SEQUENCE lead_audit.entry_id_seq;
CREATE TABLE lead_audit.entry (
  id bigint NOT NULL PRIMARY KEY,
  txid xid8 NOT NULL,
  occurred_at timestamptz NOT NULL,
  key_hash bigint,
  previous_key_hash bigint,
  watch_id uuid,
  relation oid,
  backend_pid integer,
  format smallint NOT NULL,
  checksum bytea NOT NULL,
  operation text NOT NULL,
  outcome text NOT NULL,
  table_schema text,
  table_name text,
  soft_delete text,
  row_key json,
  row_values json,
  changed_values json,
  details json,
  user_id text,
  user_ip text,
  user_agent text,
  request_id text,
  db_session_user text,
  db_current_user text,
  client_addr text,
  application_name text,
  error_code text,
  error_message text,
  error_detail text,
  statement text
);
ALTER SEQUENCE lead_audit.entry_id_seq OWNED BY lead_audit.entry.id;
-- Compressing an entry of more than 2 kB costs more time than all other work on the entry. LZ4
-- takes a fraction of the time of pglz, which is PostgreSQL's default. If the server was built
-- without LZ4, the columns keep the default.
DO $$
BEGIN
  ALTER TABLE lead_audit.entry
    ALTER COLUMN row_values SET COMPRESSION lz4, ALTER COLUMN changed_values SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
  NULL;
END
$$;
CREATE INDEX entry_key_hash_idx ON lead_audit.entry (key_hash);
COMMENT ON INDEX lead_audit.entry_key_hash_idx IS 'Finds the entries of a row, for history().';
CREATE INDEX entry_previous_key_hash_idx ON lead_audit.entry (previous_key_hash)
  WHERE previous_key_hash IS NOT NULL;
COMMENT ON INDEX lead_audit.entry_previous_key_hash_idx IS
  'Finds the entries in which a row lost this key, for history().';
REVOKE ALL ON lead_audit.entry, lead_audit.entry_id_seq FROM PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('lead_audit.entry', '');
SELECT pg_catalog.pg_extension_config_dump('lead_audit.entry_id_seq', '');

COMMENT ON SEQUENCE lead_audit.entry_id_seq IS
  'Ids of entries. A transaction that rolls back leaves its ids unused.';
COMMENT ON TABLE lead_audit.entry IS
  'The audit trail as it is stored and checksummed (docs/FORMAT.md). Read it through the view '
  'lead_audit.log.';
COMMENT ON COLUMN lead_audit.entry.id IS
  'Order of the events: within the history of a row, a later event has a higher id.';
COMMENT ON COLUMN lead_audit.entry.txid IS
  'Top-level transaction, as returned by pg_current_xact_id(). For information only: ids of '
  'transactions do not survive dump and restore.';
COMMENT ON COLUMN lead_audit.entry.occurred_at IS
  'Wall-clock time of the event, in microseconds. Not the start of the transaction.';
COMMENT ON COLUMN lead_audit.entry.key_hash IS
  'First 8 bytes of SHA-256(watch_id, row_key). history() finds a row by it.';
COMMENT ON COLUMN lead_audit.entry.previous_key_hash IS
  'Key hash of the former key, for an UPDATE that changed the primary key. Otherwise NULL.';
COMMENT ON COLUMN lead_audit.entry.watch_id IS 'Identity of the watched table (lead_audit.watch).';
COMMENT ON COLUMN lead_audit.entry.relation IS
  'Oid of the table at the time of the event. For information only.';
COMMENT ON COLUMN lead_audit.entry.backend_pid IS 'Process id of the server process.';
COMMENT ON COLUMN lead_audit.entry.format IS 'Version of the format that the checksum follows.';
COMMENT ON COLUMN lead_audit.entry.checksum IS
  'SHA-256 over the canonical JSON of all other columns of lead_audit.entry that are not NULL.';
COMMENT ON COLUMN lead_audit.entry.operation IS
  'INSERT, UPDATE, DELETE, TRUNCATE, SNAPSHOT (a row that existed when watching began), DDL or '
  'KEY (the log has a new key or origin). Failures can also have MERGE, COPY, COMMIT (a deferred '
  'check that covers several operations) and ROLLBACK.';
COMMENT ON COLUMN lead_audit.entry.outcome IS
  'ok, failed, rolled_back (what a rolled-back transaction had written) or gap (the event took '
  'place, but its entry could not be written).';
COMMENT ON COLUMN lead_audit.entry.table_schema IS 'Schema of the table at the time of the event.';
COMMENT ON COLUMN lead_audit.entry.table_name IS 'Name of the table at the time of the event.';
COMMENT ON COLUMN lead_audit.entry.soft_delete IS
  'deleted: the soft-delete column turned true. restored: it no longer is true. Otherwise NULL.';
COMMENT ON COLUMN lead_audit.entry.row_key IS
  'Primary key columns and their values after the event. NULL without a primary key.';
COMMENT ON COLUMN lead_audit.entry.row_values IS
  'Complete row in canonical JSON, byte for byte as it was hashed: the new row of an INSERT or '
  'SNAPSHOT, the old row of an UPDATE or DELETE.';
COMMENT ON COLUMN lead_audit.entry.changed_values IS
  'New values of the columns that an UPDATE changed.';
COMMENT ON COLUMN lead_audit.entry.details IS
  'Further facts, depending on the event. TRUNCATE: {"row_count": n}. UPDATE that moved the row '
  'to another partition: {"moved_from": {"table_name": ..., "table_schema": ...}}. DDL whose '
  'command is not the client''s text: {"executed": ...}. DDL whose text was cut: {"command": ..., '
  '"statement_length": n}. KEY: {"old_origin": ..., "old_key": ..., "new_origin": ..., "new_key": '
  '...}. Failure: constraint, column, parameters and omitted_columns. Rolled-back transaction: '
  '{"written": [...], "written_omitted": n}.';
COMMENT ON COLUMN lead_audit.entry.user_id IS
  'Setting lead_audit.user_id: the user, according to the application.';
COMMENT ON COLUMN lead_audit.entry.user_ip IS
  'Setting lead_audit.user_ip: the user''s address, according to the application.';
COMMENT ON COLUMN lead_audit.entry.user_agent IS
  'Setting lead_audit.user_agent: the user''s browser or program, according to the application.';
COMMENT ON COLUMN lead_audit.entry.request_id IS
  'Setting lead_audit.request_id: the request, according to the application.';
COMMENT ON COLUMN lead_audit.entry.db_session_user IS
  'session_user: the role that logged in to the database.';
COMMENT ON COLUMN lead_audit.entry.db_current_user IS 'current_user of the statement.';
COMMENT ON COLUMN lead_audit.entry.client_addr IS
  'Network address of the client, according to the server. NULL for a Unix socket.';
COMMENT ON COLUMN lead_audit.entry.application_name IS 'Setting application_name.';
COMMENT ON COLUMN lead_audit.entry.error_code IS 'SQLSTATE of the failure.';
COMMENT ON COLUMN lead_audit.entry.error_message IS 'Message of the failure.';
COMMENT ON COLUMN lead_audit.entry.error_detail IS 'DETAIL of the failure.';
COMMENT ON COLUMN lead_audit.entry.statement IS 'Text of the statement, for DDL and failures.';

CREATE FUNCTION lead_audit_internal.refuse_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE EXCEPTION '% of % is not allowed: the audit trail is append-only',
    TG_OP, TG_RELID::regclass
    USING ERRCODE = 'insufficient_privilege',
          HINT = 'Only lead_audit writes entries, and nobody changes them.';
END
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.refuse_change() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.refuse_change() IS
  'Trigger: refuses changes of entries by any ordinary path, by their owner too. Error 42501.';

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON lead_audit.entry
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.refuse_change();
-- With ENABLE ALWAYS, the trigger also fires if session_replication_role is replica.
ALTER TABLE lead_audit.entry ENABLE ALWAYS TRIGGER append_only;
COMMENT ON TRIGGER append_only ON lead_audit.entry IS 'Refuses UPDATE, DELETE and TRUNCATE.';

-- The sequence unwritten_seq counts the unwritten entries that could not be counted in the table
-- lead_audit.unwritten. A rollback does not reset a sequence, so the count also survives a
-- rollback.
CREATE SEQUENCE lead_audit.unwritten_seq;
REVOKE ALL ON lead_audit.unwritten_seq FROM PUBLIC;
COMMENT ON SEQUENCE lead_audit.unwritten_seq IS
  'Number of entries that could neither be written nor be counted in lead_audit.unwritten.';
-- One row for each committed transaction with unwritten entries. The table has no index, because
-- the library inserts the rows without SQL and does not maintain indexes.
CREATE TABLE lead_audit.unwritten (entries bigint NOT NULL);
REVOKE ALL ON lead_audit.unwritten FROM PUBLIC;
COMMENT ON TABLE lead_audit.unwritten IS
  'Number of entries that each transaction could not write (lead_audit.on_error = warn). '
  'lead_audit.stats shows the sum.';
COMMENT ON COLUMN lead_audit.unwritten.entries IS
  'Number of entries that one committed transaction lacks.';

-- lead_audit.entry has no trigger own_writes_only. To create this trigger on lead_audit.entry, the
-- update from version 1.0 would have to lock the table. The lock on lead_audit.entry could cause
-- deadlocks with sessions that hold locks on watched tables. PostgreSQL would then end the
-- transactions of some sessions.
CREATE TRIGGER own_writes_only BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE
  ON lead_audit.unwritten
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.refuse_others();
ALTER TABLE lead_audit.unwritten ENABLE ALWAYS TRIGGER own_writes_only;
COMMENT ON TRIGGER own_writes_only ON lead_audit.unwritten IS
  'Refuses writes by others than lead_audit.';
