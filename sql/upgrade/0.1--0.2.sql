-- What leads from 0.1 to 0.2 and cannot be worked out from sql/*.sql: see scripts/upgrade_script.py.
ALTER TABLE lead_audit.watch DROP CONSTRAINT watch_state_check;
ALTER TABLE lead_audit.watch ADD CONSTRAINT watch_state_check CHECK (state IN ('changing', 'on', 'disabled', 'off', 'dropped', 'merged'));
ALTER TABLE lead_audit.watch ADD COLUMN replica boolean NOT NULL DEFAULT false;
ALTER TABLE lead_audit.watched_relation
  ADD COLUMN is_complete boolean NOT NULL DEFAULT false,
  ADD COLUMN shape bytea,
  ADD COLUMN key_attnums smallint[],
  ADD COLUMN key_names text[],
  ADD COLUMN key_types text[],
  ADD COLUMN is_restored boolean NOT NULL DEFAULT false;

-- As sql/30_entry.sql has it.
DO $$
BEGIN
  ALTER TABLE lead_audit.entry ALTER COLUMN row_values SET COMPRESSION lz4, ALTER COLUMN changed_values SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
  NULL;
END
$$;

DROP FUNCTION lead_audit.key_of(regclass, text[], text[]);

-- GENERATED

-- What the guard compares with from now on. Child tables of what was watched already are watched from the next enable() on.
SELECT lead_audit.note_relations(w.watch_id, NULL) FROM lead_audit.watch w WHERE w.state IN ('on', 'disabled');
