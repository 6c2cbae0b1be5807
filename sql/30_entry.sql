-- The trail: one row for each event, written by the library only. The order of the columns is the order in which
-- src/journal/entry_table.rs fills them; the widths are sorted so that no byte is lost to alignment.
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
-- Rows of more than 2 kB are compressed, which takes longer than all else about them; LZ4 takes a fraction of that. A server may be built
-- without it.
DO $$
BEGIN
  ALTER TABLE lead_audit.entry ALTER COLUMN row_values SET COMPRESSION lz4, ALTER COLUMN changed_values SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
  NULL;
END
$$;
-- history(): by the row's key, and for the rare UPDATE that changed the key also by the one before it.
CREATE INDEX entry_key_hash_idx ON lead_audit.entry (key_hash);
CREATE INDEX entry_previous_key_hash_idx ON lead_audit.entry (previous_key_hash) WHERE previous_key_hash IS NOT NULL;
REVOKE ALL ON lead_audit.entry, lead_audit.entry_id_seq FROM PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('lead_audit.entry', '');
SELECT pg_catalog.pg_extension_config_dump('lead_audit.entry_id_seq', '');

COMMENT ON SEQUENCE lead_audit.entry_id_seq IS 'Ids of entries. A rolled-back transaction leaves a gap.';
COMMENT ON TABLE lead_audit.entry IS 'The audit trail as it is stored and checksummed (docs/FORMAT.md). Read it through the view lead_audit.log.';
COMMENT ON COLUMN lead_audit.entry.id IS 'Order of the events: within a row''s history a later event has a higher id.';
COMMENT ON COLUMN lead_audit.entry.txid IS 'The top-level transaction, as pg_current_xact_id() gives it. Information only: not comparable across a restore.';
COMMENT ON COLUMN lead_audit.entry.occurred_at IS 'Wall-clock time of the event, in microseconds (not the transaction''s start).';
COMMENT ON COLUMN lead_audit.entry.key_hash IS 'First 8 bytes of SHA-256(watch_id, row_key), by which history() finds a row.';
COMMENT ON COLUMN lead_audit.entry.previous_key_hash IS 'The same of the key before an UPDATE that changed it; else NULL.';
COMMENT ON COLUMN lead_audit.entry.watch_id IS 'Identity of the watched table (lead_audit.watch).';
COMMENT ON COLUMN lead_audit.entry.relation IS 'Oid of the table at the time. Information only.';
COMMENT ON COLUMN lead_audit.entry.backend_pid IS 'Process id of the server process that did it.';
COMMENT ON COLUMN lead_audit.entry.format IS 'Version of the format that the checksum follows.';
COMMENT ON COLUMN lead_audit.entry.checksum IS 'SHA-256 over the canonical JSON of every other column that is not NULL.';
COMMENT ON COLUMN lead_audit.entry.operation IS 'INSERT, UPDATE, DELETE, TRUNCATE, SNAPSHOT (a row that was there when watching began), DDL or KEY (the log has another key or origin from now on); of failures also MERGE, COPY, COMMIT (a deferred check of several operations) and ROLLBACK.';
COMMENT ON COLUMN lead_audit.entry.outcome IS 'ok, failed, rolled_back (what a transaction had written that was rolled back) or gap (it took place, but its entry could not be written).';
COMMENT ON COLUMN lead_audit.entry.table_schema IS 'Schema of the table at the time.';
COMMENT ON COLUMN lead_audit.entry.table_name IS 'Name of the table at the time.';
COMMENT ON COLUMN lead_audit.entry.soft_delete IS 'deleted: the soft-delete column turned true; restored: it turned from true; else NULL.';
COMMENT ON COLUMN lead_audit.entry.row_key IS 'Primary key columns and their values, after the event; NULL without a primary key.';
COMMENT ON COLUMN lead_audit.entry.row_values IS 'The complete row: the new one of an INSERT or SNAPSHOT, the old one of an UPDATE or DELETE. Canonical JSON, kept byte for byte.';
COMMENT ON COLUMN lead_audit.entry.changed_values IS 'UPDATE: the new values of the columns that changed.';
COMMENT ON COLUMN lead_audit.entry.details IS 'What only some events have: {"row_count": n} of a TRUNCATE; {"moved_from": {"table_name": ..., "table_schema": ...}} of an UPDATE that moved the row to another partition; {"executed": ...} of a DDL whose command is not the client''s text; {"command": ..., "statement_length": n} of one whose text was cut; {"old_origin": ..., "old_key": ..., "new_origin": ..., "new_key": ...} of a KEY; constraint, column, parameters and omitted_columns of a failure; {"written": [...], "written_omitted": n} of a transaction that was rolled back.';
COMMENT ON COLUMN lead_audit.entry.user_id IS 'The setting lead_audit.user_id: what the application says.';
COMMENT ON COLUMN lead_audit.entry.user_ip IS 'The setting lead_audit.user_ip: what the application says.';
COMMENT ON COLUMN lead_audit.entry.user_agent IS 'The setting lead_audit.user_agent: what the application says.';
COMMENT ON COLUMN lead_audit.entry.request_id IS 'The setting lead_audit.request_id: what the application says.';
COMMENT ON COLUMN lead_audit.entry.db_session_user IS 'session_user: who logged in to the database.';
COMMENT ON COLUMN lead_audit.entry.db_current_user IS 'current_user of the statement.';
COMMENT ON COLUMN lead_audit.entry.client_addr IS 'Network address of the client as the server sees it; NULL for a Unix socket.';
COMMENT ON COLUMN lead_audit.entry.application_name IS 'The setting application_name.';
COMMENT ON COLUMN lead_audit.entry.error_code IS 'SQLSTATE of what failed.';
COMMENT ON COLUMN lead_audit.entry.error_message IS 'Message of what failed.';
COMMENT ON COLUMN lead_audit.entry.error_detail IS 'DETAIL of what failed.';
COMMENT ON COLUMN lead_audit.entry.statement IS 'Text of the statement, for DDL and failures.';

CREATE FUNCTION lead_audit_internal.refuse_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE EXCEPTION '% of % is not allowed: the audit trail is append-only', TG_OP, TG_RELID::regclass
    USING ERRCODE = 'insufficient_privilege',
          HINT = 'Entries are written by lead_audit itself and never changed.';
END
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.refuse_change() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.refuse_change() IS 'Keeps entries from being changed through any ordinary path, by their owner too. Error 42501.';

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON lead_audit.entry
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.refuse_change();
-- ALWAYS: also where session_replication_role is replica.
ALTER TABLE lead_audit.entry ENABLE ALWAYS TRIGGER append_only;
COMMENT ON TRIGGER append_only ON lead_audit.entry IS 'Refuses UPDATE, DELETE and TRUNCATE.';

-- A sequence counts without a transaction, so it keeps what a rolled-back write would take back.
CREATE SEQUENCE lead_audit.unwritten_seq;
REVOKE ALL ON lead_audit.unwritten_seq FROM PUBLIC;
COMMENT ON SEQUENCE lead_audit.unwritten_seq IS 'How many entries could not be written (on_error = warn) and could not be counted in lead_audit.unwritten either.';
-- One row for each transaction that committed without some of its entries. No index: the row is written below SQL.
CREATE TABLE lead_audit.unwritten (entries bigint NOT NULL);
REVOKE ALL ON lead_audit.unwritten FROM PUBLIC;
COMMENT ON TABLE lead_audit.unwritten IS 'How many entries of each transaction could not be written (on_error = warn). Summed up by lead_audit.stats.';
COMMENT ON COLUMN lead_audit.unwritten.entries IS 'Entries that one committed transaction lacks.';
