-- label: PL/pgSQL trigger
-- A PL/pgSQL trigger that does the same work as lead_audit. The trigger stores the complete
-- old and new row, the changed columns, the context, and a SHA-256 checksum.
CREATE SCHEMA audit;
CREATE TABLE audit.log (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, occurred_at timestamptz NOT NULL,
  txid xid8 NOT NULL, table_schema text NOT NULL, table_name text NOT NULL, relation oid NOT NULL,
  operation text NOT NULL, row_key text, old_values jsonb, new_values jsonb, changed_values jsonb,
  user_id text, user_ip text, user_agent text, request_id text, db_session_user text,
  db_current_user text, client_addr inet, application_name text, backend_pid integer,
  checksum bytea NOT NULL);
CREATE INDEX ON audit.log (row_key);
CREATE FUNCTION audit.record() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  entry audit.log;
BEGIN
  entry.occurred_at := clock_timestamp();
  entry.txid := pg_current_xact_id();
  entry.table_schema := TG_TABLE_SCHEMA;
  entry.table_name := TG_TABLE_NAME;
  entry.relation := TG_RELID;
  entry.operation := TG_OP;
  IF TG_OP <> 'INSERT' THEN entry.old_values := to_jsonb(OLD); END IF;
  IF TG_OP <> 'DELETE' THEN entry.new_values := to_jsonb(NEW); END IF;
  IF TG_OP = 'UPDATE' THEN
    SELECT jsonb_object_agg(n.key, n.value) INTO entry.changed_values
    FROM jsonb_each(entry.new_values) n WHERE n.value IS DISTINCT FROM entry.old_values -> n.key;
  END IF;
  entry.row_key := coalesce(entry.new_values, entry.old_values) ->> 'id';
  entry.user_id := nullif(current_setting('lead_audit.user_id', true), '');
  entry.user_ip := nullif(current_setting('lead_audit.user_ip', true), '');
  entry.user_agent := nullif(current_setting('lead_audit.user_agent', true), '');
  entry.request_id := nullif(current_setting('lead_audit.request_id', true), '');
  entry.db_session_user := session_user;
  entry.db_current_user := current_user;
  entry.client_addr := inet_client_addr();
  entry.application_name := current_setting('application_name');
  entry.backend_pid := pg_backend_pid();
  entry.checksum := sha256(convert_to(entry::text, 'UTF8'));
  INSERT INTO audit.log (occurred_at, txid, table_schema, table_name, relation, operation, row_key,
    old_values, new_values, changed_values, user_id, user_ip, user_agent, request_id,
    db_session_user, db_current_user, client_addr, application_name, backend_pid, checksum)
  VALUES (entry.occurred_at, entry.txid, entry.table_schema, entry.table_name, entry.relation,
    entry.operation, entry.row_key, entry.old_values, entry.new_values, entry.changed_values,
    entry.user_id, entry.user_ip, entry.user_agent, entry.request_id, entry.db_session_user,
    entry.db_current_user, entry.client_addr, entry.application_name, entry.backend_pid,
    entry.checksum);
  RETURN NULL;
END
$$;
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON leads
  FOR EACH ROW EXECUTE FUNCTION audit.record();
