-- From 1.0 to 1.1. Written by scripts/upgrade_script.py from sql/upgrade/ and sql/*.sql: do not edit.
\echo Run "ALTER EXTENSION lead_audit UPDATE" instead of this file. \quit

-- The hand-written part of the update from 1.0 to 1.1: what scripts/upgrade_script.py cannot derive from sql/*.sql.

-- Refuses the update where this session has loaded an earlier library: PostgreSQL has set the new version already.
SELECT lead_audit.require_library();

COMMENT ON COLUMN lead_audit.entry.details IS 'What only some events have: {"row_count": n} of a TRUNCATE; {"moved_from": {"table_name": ..., "table_schema": ...}} of an UPDATE that moved the row to another partition; {"command": ..., "statement_length": n} of a DDL whose text was cut; constraint, column, parameters and omitted_columns of a failure; {"written": [...], "written_omitted": n} of a transaction that was rolled back.';

COMMENT ON SEQUENCE lead_audit.unwritten_seq IS 'How many entries could not be written (on_error = warn) and could not be counted in lead_audit.unwritten either.';

CREATE TABLE lead_audit.unwritten (entries bigint NOT NULL);

REVOKE ALL ON lead_audit.unwritten FROM PUBLIC;

COMMENT ON TABLE lead_audit.unwritten IS 'How many entries of each transaction could not be written (on_error = warn). Summed up by lead_audit.stats.';

COMMENT ON COLUMN lead_audit.unwritten.entries IS 'Entries that one committed transaction lacks.';

CREATE FUNCTION lead_audit.quarantined() RETURNS bigint LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'quarantined_wrapper';

COMMENT ON FUNCTION lead_audit.quarantined() IS 'Internal to lead_audit.stats: how many records of this database a worker died of.';

CREATE OR REPLACE VIEW lead_audit.stats AS
SELECT (SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END FROM lead_audit.unwritten_seq s)
         + (SELECT coalesce(sum(u.entries), 0)::bigint FROM lead_audit.unwritten u) AS entries_not_written,
       (SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END FROM lead_audit.entry_id_seq s) AS last_id,
       (SELECT count(*) FROM lead_audit.watched w WHERE w.row_trigger_on) AS tables_watched,
       pg_catalog.pg_total_relation_size('lead_audit.entry') AS bytes,
       q.queued, q.written, q.dropped,
       
       
       CASE WHEN n.new <= 100000 THEN n.new + l.late
            ELSE (SELECT s.last_value FROM lead_audit.entry_id_seq s) - t.looked_to END AS unsealed_entries,
       least(n.oldest, l.oldest) AS oldest_unsealed,
       pg_catalog.clock_timestamp() - least(n.oldest, l.oldest) AS seal_lag,
       (SELECT coalesce(sum(upper(r) - lower(r)), 0)::bigint FROM lead_audit.open_gap g, unnest(g.ids) r) AS open_ids,
       (SELECT min(g.seen_at) FROM lead_audit.open_gap g) AS open_since,
       t.tree_size,
       c.sealed_at AS last_checkpoint_at,
       c.note LIKE E'%\n\n%' AS last_checkpoint_signed,
       t.publishing_errors, t.last_publishing_error_at, t.last_publishing_error,
       lead_audit.quarantined() AS quarantined
FROM lead_audit.own_queue() q
LEFT JOIN (SELECT * FROM lead_audit.tree ORDER BY tree_size DESC, created_at, log_id LIMIT 1) t ON true
LEFT JOIN LATERAL (SELECT c.sealed_at, c.note FROM lead_audit.checkpoint c ORDER BY c.tree_size DESC LIMIT 1) c ON true
LEFT JOIN LATERAL (
  SELECT (SELECT count(*) FROM (SELECT FROM lead_audit.entry e WHERE e.id > t.looked_to LIMIT 100001) e) AS new,
         (SELECT e.occurred_at FROM lead_audit.entry e WHERE e.id > t.looked_to ORDER BY e.id LIMIT 1) AS oldest
) n ON true
LEFT JOIN LATERAL (
  SELECT count(*) AS late, min(e.occurred_at) AS oldest
  FROM lead_audit.open_gap g, unnest(g.ids) r, LATERAL (
    SELECT e.occurred_at FROM lead_audit.entry e WHERE e.id >= lower(r) AND e.id < upper(r) LIMIT 100001) e
  WHERE EXISTS (SELECT FROM unnest(g.in_progress) x WHERE pg_visible_in_snapshot(x::text::xid8, pg_current_snapshot()))
) l ON true;

COMMENT ON COLUMN lead_audit.stats.entries_not_written IS 'Entries that committed transactions lack, because they could not be written while lead_audit.on_error was warn.';

COMMENT ON COLUMN lead_audit.stats.quarantined IS 'Of the dropped ones, how many a worker died of. They are not tried again.';
