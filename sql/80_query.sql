-- What users ask of the trail. These run with the rights of the extension's owner, so EXECUTE is all that a reader needs.
CREATE FUNCTION lead_audit.key_hash(watch_id uuid, row_key text) RETURNS bigint
  LANGUAGE c IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'key_hash_wrapper';
REVOKE ALL ON FUNCTION lead_audit.key_hash(uuid, text) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.key_hash(uuid, text) IS 'The hash by which entries of a row are found (docs/FORMAT.md).';

CREATE FUNCTION lead_audit.canonical_json(value jsonb) RETURNS text
  LANGUAGE c IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'lead_audit_canonical_json';
REVOKE ALL ON FUNCTION lead_audit.canonical_json(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.canonical_json(jsonb) IS 'The text under which entries store this value (docs/FORMAT.md).';

CREATE FUNCTION lead_audit.key_of(relation regclass, column_names text[], column_values text[]) RETURNS text
  LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'key_of_wrapper';
REVOKE ALL ON FUNCTION lead_audit.key_of(regclass, text[], text[]) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.key_of(regclass, text[], text[]) IS 'Internal: the row_key text of the row with these values in its primary key columns. NULL if these are not the columns of the primary key.';

CREATE FUNCTION lead_audit.key_of(relation regclass, key text) RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT lead_audit.key_of($1, NULL, ARRAY[$2])
$$;
CREATE FUNCTION lead_audit.key_of(relation regclass, key jsonb) RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce((SELECT lead_audit.key_of($1, array_agg(k.key), array_agg(k.value)) FROM jsonb_each_text($2) k), lead_audit.canonical_json($2))
$$;
REVOKE ALL ON FUNCTION lead_audit.key_of(regclass, text), lead_audit.key_of(regclass, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.key_of(regclass, text) IS 'Internal: the row_key text of the row whose one primary key column has this value. Errors: 42P10 if there is no or more than one such column, and those of the column''s type for a value that is none.';
COMMENT ON FUNCTION lead_audit.key_of(regclass, jsonb) IS 'Internal: the same with the columns by name. Other columns than those of the primary key are taken as those of an earlier one.';

CREATE FUNCTION lead_audit.entries_of(relation regclass, row_key text) RETURNS SETOF bigint
LANGUAGE sql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp AS $$
  WITH wanted AS MATERIALIZED (SELECT w AS watch_id, lead_audit.key_hash(w, $2) AS hash FROM lead_audit.watch_of($1) w)
  SELECT e.id FROM lead_audit.entry e
  WHERE e.key_hash = (SELECT hash FROM wanted) AND e.watch_id = (SELECT watch_id FROM wanted) AND e.row_key::text = $2
  UNION
  SELECT e.id FROM lead_audit.entry e
  WHERE e.previous_key_hash = (SELECT hash FROM wanted) AND e.watch_id = (SELECT watch_id FROM wanted)
$$;
REVOKE ALL ON FUNCTION lead_audit.entries_of(regclass, text) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.entries_of(regclass, text) IS 'Internal: ids of the entries of one row, those in which it got or lost this key included.';

CREATE FUNCTION lead_audit.history(relation regclass, key text) RETURNS SETOF lead_audit.log
LANGUAGE sql STABLE SECURITY DEFINER ROWS 20 SET search_path = pg_catalog, pg_temp AS $$
  SELECT l.* FROM lead_audit.log l WHERE l.id IN (SELECT lead_audit.entries_of($1, lead_audit.key_of($1, $2))) ORDER BY l.id
$$;
CREATE FUNCTION lead_audit.history(relation regclass, key jsonb) RETURNS SETOF lead_audit.log
LANGUAGE sql STABLE SECURITY DEFINER ROWS 20 SET search_path = pg_catalog, pg_temp AS $$
  SELECT l.* FROM lead_audit.log l WHERE l.id IN (SELECT lead_audit.entries_of($1, lead_audit.key_of($1, $2))) ORDER BY l.id
$$;
REVOKE ALL ON FUNCTION lead_audit.history(regclass, text), lead_audit.history(regclass, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.history(regclass, text) IS 'The entries of one row in order, by its primary key, whatever the table was called at the time.';
COMMENT ON FUNCTION lead_audit.history(regclass, jsonb) IS 'The entries of one row in order, by its primary key as {"column": value, …}.';

CREATE FUNCTION lead_audit.summary_of(relation regclass, row_key text, OUT total bigint, OUT created bigint, OUT updated bigint, OUT deleted bigint,
  OUT failed bigint, OUT first_event timestamptz, OUT last_event timestamptz, OUT distinct_users bigint, OUT verified boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT count(*), count(*) FILTER (WHERE e.operation = 'INSERT' AND e.outcome = 'ok'),
         count(*) FILTER (WHERE e.operation = 'UPDATE' AND e.outcome = 'ok'),
         count(*) FILTER (WHERE e.operation = 'DELETE' AND e.outcome = 'ok'),
         count(*) FILTER (WHERE e.outcome = 'failed'),
         min(e.occurred_at), max(e.occurred_at), count(DISTINCT e.user_id), bool_and(lead_audit.verify_entry(e.id))
  FROM lead_audit.entry e WHERE e.id IN (SELECT lead_audit.entries_of($1, $2))
$$;
REVOKE ALL ON FUNCTION lead_audit.summary_of(regclass, text) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.summary_of(regclass, text) IS 'Internal to summary().';

CREATE FUNCTION lead_audit.summary(relation regclass, key text, OUT total bigint, OUT created bigint, OUT updated bigint, OUT deleted bigint,
  OUT failed bigint, OUT first_event timestamptz, OUT last_event timestamptz, OUT distinct_users bigint, OUT verified boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT * FROM lead_audit.summary_of($1, lead_audit.key_of($1, $2))
$$;
CREATE FUNCTION lead_audit.summary(relation regclass, key jsonb, OUT total bigint, OUT created bigint, OUT updated bigint, OUT deleted bigint,
  OUT failed bigint, OUT first_event timestamptz, OUT last_event timestamptz, OUT distinct_users bigint, OUT verified boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT * FROM lead_audit.summary_of($1, lead_audit.key_of($1, $2))
$$;
REVOKE ALL ON FUNCTION lead_audit.summary(regclass, text), lead_audit.summary(regclass, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.summary(regclass, text) IS 'Counts of one row''s entries (total; created, updated, deleted that succeeded; failed), its first and last event, distinct user_ids, and whether all of its entries verify (NULL if there is none).';
COMMENT ON FUNCTION lead_audit.summary(regclass, jsonb) IS 'The same, for a key given as {"column": value, …}.';

CREATE VIEW lead_audit.stats AS
SELECT (SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END FROM lead_audit.unwritten_seq s) AS entries_not_written,
       (SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END FROM lead_audit.entry_id_seq s) AS last_id,
       (SELECT count(*) FROM lead_audit.watched w WHERE w.row_trigger_on) AS tables_watched,
       pg_catalog.pg_total_relation_size('lead_audit.entry') AS bytes,
       q.queued, q.written, q.dropped,
       -- Entries above looked_to, and those whose transaction has ended since a gap was looked at. Few, where sealing runs; where it
       -- does not, counting ends at 100,000.
       CASE WHEN n.new <= 100000 THEN n.new + l.late
            ELSE (SELECT s.last_value FROM lead_audit.entry_id_seq s) - t.looked_to END AS unsealed_entries,
       least(n.oldest, l.oldest) AS oldest_unsealed,
       pg_catalog.clock_timestamp() - least(n.oldest, l.oldest) AS seal_lag,
       (SELECT coalesce(sum(upper(r) - lower(r)), 0)::bigint FROM lead_audit.open_gap g, unnest(g.ids) r) AS open_ids,
       (SELECT min(g.seen_at) FROM lead_audit.open_gap g) AS open_since,
       t.tree_size,
       c.sealed_at AS last_checkpoint_at,
       c.note LIKE E'%\n\n%' AS last_checkpoint_signed,
       t.publishing_errors, t.last_publishing_error_at, t.last_publishing_error
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
REVOKE ALL ON lead_audit.stats FROM PUBLIC;
COMMENT ON VIEW lead_audit.stats IS 'Counters of this database, in one row.';
COMMENT ON COLUMN lead_audit.stats.entries_not_written IS 'Entries that could not be written while lead_audit.on_error was warn. After a crash of the server it may be up to 32 too high.';
COMMENT ON COLUMN lead_audit.stats.last_id IS 'The highest id given out; gaps are rolled-back transactions.';
COMMENT ON COLUMN lead_audit.stats.tables_watched IS 'Tables whose row trigger is on.';
COMMENT ON COLUMN lead_audit.stats.bytes IS 'Size of the trail with its indexes, in bytes.';
COMMENT ON COLUMN lead_audit.stats.queued IS 'Failed operations of this database that were taken into the queue since the server was started; 0 where the library is not preloaded.';
COMMENT ON COLUMN lead_audit.stats.written IS 'Of these, how many are entries now.';
COMMENT ON COLUMN lead_audit.stats.dropped IS 'Failed operations that have no entry, because the queue was full or no worker ran: the server''s log has each of them whole.';
COMMENT ON COLUMN lead_audit.stats.unsealed_entries IS 'Entries that no checkpoint has yet. Above 100,000 it counts ids, those of rolled-back transactions too. Entries of open transactions are seen by nobody: see open_ids.';
COMMENT ON COLUMN lead_audit.stats.oldest_unsealed IS 'When the oldest of them happened.';
COMMENT ON COLUMN lead_audit.stats.seal_lag IS 'How long ago that is.';
COMMENT ON COLUMN lead_audit.stats.open_ids IS 'Ids whose entries may still come, because transactions were open when sealing looked: an upper bound.';
COMMENT ON COLUMN lead_audit.stats.open_since IS 'When sealing met the oldest of them.';
COMMENT ON COLUMN lead_audit.stats.tree_size IS 'Leaves in the tree.';
COMMENT ON COLUMN lead_audit.stats.last_checkpoint_at IS 'When the newest checkpoint was made.';
COMMENT ON COLUMN lead_audit.stats.last_checkpoint_signed IS 'Whether the newest checkpoint is signed.';
COMMENT ON COLUMN lead_audit.stats.publishing_errors IS 'How often checkpoints could not be published.';
COMMENT ON COLUMN lead_audit.stats.last_publishing_error_at IS 'When that was noted last.';
COMMENT ON COLUMN lead_audit.stats.last_publishing_error IS 'Why.';
