-- What users read. An entry stores the old row and what changed in it; the complete new row and the diff follow from these.
CREATE VIEW lead_audit.log AS
SELECT e.id, e.occurred_at, e.txid, e.table_schema, e.table_name, e.relation, e.operation, e.outcome,
       e.row_key::jsonb AS row_key,
       CASE WHEN e.operation IN ('UPDATE', 'DELETE') THEN e.row_values::jsonb END AS old_values,
       CASE e.operation
         WHEN 'UPDATE' THEN e.row_values::jsonb || e.changed_values::jsonb
         WHEN 'DELETE' THEN NULL
         ELSE e.row_values::jsonb
       END AS new_values,
       CASE WHEN e.operation = 'UPDATE' AND e.changed_values IS NOT NULL THEN
         (SELECT coalesce(jsonb_object_agg(c.key, jsonb_build_object('old', e.row_values::jsonb -> c.key, 'new', c.value)), '{}')
          FROM jsonb_each(e.changed_values::jsonb) c)
       END AS diff,
       e.soft_delete, e.user_id, e.user_ip, e.user_agent, e.request_id, e.db_session_user, e.db_current_user,
       e.client_addr, e.application_name, e.backend_pid, e.error_code, e.error_message, e.error_detail, e.statement,
       e.checksum, e.details
FROM lead_audit.entry e;
REVOKE ALL ON lead_audit.log FROM PUBLIC;
COMMENT ON VIEW lead_audit.log IS 'The audit trail: one row for each event, with complete old and new values and their difference.';
COMMENT ON COLUMN lead_audit.log.old_values IS 'The complete row before an UPDATE or DELETE.';
COMMENT ON COLUMN lead_audit.log.new_values IS 'The complete row after an INSERT or UPDATE, or as a SNAPSHOT found it.';
COMMENT ON COLUMN lead_audit.log.diff IS 'UPDATE: {"column": {"old": ..., "new": ...}} for each column that changed.';
