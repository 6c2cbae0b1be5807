-- Functions and views that read the audit trail. history() and summary() run with the rights of
-- the extension's owner, so a reader needs only USAGE on the schema and EXECUTE on the functions.
CREATE FUNCTION lead_audit.key_hash(watch_id uuid, row_key text) RETURNS bigint
  LANGUAGE c IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'key_hash_wrapper';
REVOKE ALL ON FUNCTION lead_audit.key_hash(uuid, text) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.key_hash(uuid, text) IS
  'Returns the hash by which the entries of a row are found (docs/FORMAT.md).';

CREATE FUNCTION lead_audit.canonical_json(value jsonb) RETURNS text
  LANGUAGE c IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'lead_audit_canonical_json';
REVOKE ALL ON FUNCTION lead_audit.canonical_json(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.canonical_json(jsonb) IS
  'Returns the text under which entries store a value (docs/FORMAT.md).';

CREATE FUNCTION lead_audit_internal.key_columns(relation regclass) RETURNS smallint[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE WHEN p.attnums <> '{}' THEN p.attnums ELSE coalesce(
    (SELECT CASE WHEN count(*) = max(cardinality(f.column_names))
              THEN array_agg(a.attnum ORDER BY a.attnum) END
     FROM (SELECT k.column_names FROM lead_audit.former_key k
           WHERE k.watch_id = lead_audit_internal.watch_of($1) AND k.column_names <> '{}'
           ORDER BY k.until_entry DESC LIMIT 1) f
     JOIN pg_attribute a
       ON a.attrelid = $1 AND a.attnum > 0 AND a.attname = ANY (f.column_names)), '{}') END
  FROM lead_audit_internal.primary_key_of($1) p
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.key_columns(regclass) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.key_columns(regclass) IS
  'Returns the numbers of the primary key''s columns. Without a primary key, those of the last '
  'one while the table was watched.';

CREATE FUNCTION lead_audit_internal.key_of(
  relation regclass, key_columns smallint[], column_names text[], column_values text[])
  RETURNS text LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'key_of_columns_wrapper';
REVOKE ALL ON FUNCTION
  lead_audit_internal.key_of(regclass, smallint[], text[], text[]) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.key_of(regclass, smallint[], text[], text[]) IS
  'Returns the row_key text of the row with these values in the key columns. NULL if column_names '
  'differs from the names of key_columns.';

CREATE FUNCTION lead_audit_internal.key_of(relation regclass, key text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT lead_audit_internal.key_of(
    $1, lead_audit_internal.key_columns($1), NULL, ARRAY[$2])
$$;
CREATE FUNCTION lead_audit_internal.key_of(relation regclass, key jsonb) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(
    (SELECT lead_audit_internal.key_of($1, lead_audit_internal.key_columns($1),
                                       array_agg(k.key), array_agg(k.value))
     FROM jsonb_each_text($2) k),
    lead_audit.canonical_json($2))
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.key_of(regclass, text),
  lead_audit_internal.key_of(regclass, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.key_of(regclass, text) IS
  'Returns the row_key text of the row whose only key column has this value. Errors: 42P10 if '
  'there is no key column or more than one, and those of the column''s type for an invalid value.';
COMMENT ON FUNCTION lead_audit_internal.key_of(regclass, jsonb) IS
  'Returns the row_key text of a key that is written as {"column": value, ...}. If the columns '
  'are not those of the primary key, they count as an earlier primary key.';

CREATE FUNCTION lead_audit_internal.value_as(relation regclass, type_name text, value text)
  RETURNS text LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'value_as_wrapper';
REVOKE ALL ON FUNCTION lead_audit_internal.value_as(regclass, text, text) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.value_as(regclass, text, text) IS
  'Returns the JSON that entries of the relation have for a value of this type. NULL if the type '
  'has no such value.';

CREATE FUNCTION lead_audit_internal.identities_of(relation regclass)
RETURNS TABLE (watch_id uuid, until_entry bigint)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  WITH RECURSIVE known(watch_id, until_entry) AS (
    SELECT w, 9223372036854775807 FROM lead_audit_internal.watch_of($1) w WHERE w IS NOT NULL
    UNION
    SELECT e.earlier_id, e.until_entry FROM known k
    JOIN lead_audit.earlier_identity e
      ON e.watch_id = k.watch_id AND e.until_entry <= k.until_entry
  )
  SELECT k.watch_id, max(k.until_entry) FROM known k GROUP BY k.watch_id
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.identities_of(regclass) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.identities_of(regclass) IS
  'Returns the watch ids under which the rows of a table have entries, each with its last entry. '
  'A partition that was attached or detached has more than one.';

-- Returns the earlier forms of a row's key. An entry can be older than the current primary key of
-- its table. history() finds the older entry by the entry's values in the columns of the current
-- primary key.
CREATE FUNCTION lead_audit_internal.former_spellings(
  relation regclass, row_key text, identity uuid, until bigint)
RETURNS TABLE (spelling jsonb, is_key boolean, after_entry bigint, until_entry bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  key jsonb := row_key::jsonb;
  present record;
  later_names text[];
  former record;
BEGIN
  SELECT coalesce(array_agg(a.attname::text ORDER BY a.attnum), '{}') AS names,
         coalesce(array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum), '{}') AS types
  INTO present
  FROM pg_attribute a
  WHERE a.attrelid = relation
    AND a.attnum = ANY (lead_audit_internal.key_columns(relation));
  IF NOT (key ?& present.names AND present.names @> array(SELECT jsonb_object_keys(key))) THEN
    RETURN; -- A key of other columns than the present one has only one spelling.
  END IF;
  IF (SELECT p.attnums = '{}' FROM lead_audit_internal.primary_key_of(relation) p) THEN
    RETURN QUERY
      SELECT key, false, coalesce(max(f.until_entry), 0), until
      FROM lead_audit.former_key f WHERE f.watch_id = identity AND f.until_entry <= until;
  END IF;
  spelling := key;
  is_key := true;
  later_names := present.names;
  FOR former IN
    SELECT f.*, lag(f.until_entry, 1, 0::bigint) OVER (ORDER BY f.until_entry) AS after
    FROM lead_audit.former_key f
    WHERE f.watch_id = identity AND f.until_entry <= until ORDER BY f.until_entry DESC
  LOOP
    is_key := is_key AND former.same_columns OR former.column_names = later_names;
    IF is_key THEN
      later_names := former.column_names;
      SELECT jsonb_object_agg(c.former_name, c.value) INTO spelling
      FROM (SELECT u.former_name,
                   CASE WHEN u.former_type = u.type OR jsonb_typeof(key -> u.name) = 'null'
                     THEN key -> u.name
                     ELSE lead_audit_internal.value_as(
                       relation, u.former_type, key ->> u.name)::jsonb END AS value
            FROM unnest(former.column_names, former.column_types, present.names, present.types)
              u(former_name, former_type, name, type)) c
      HAVING count(c.value) = count(*);
      EXIT WHEN spelling IS NULL; -- No value of the former type can have become this one.
    END IF;
    after_entry := former.after;
    until_entry := former.until_entry;
    RETURN NEXT;
  END LOOP;
END
$$;
REVOKE ALL ON FUNCTION
  lead_audit_internal.former_spellings(regclass, text, uuid, bigint) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.former_spellings(regclass, text, uuid, bigint) IS
  'Returns the spellings of row_key while the key''s columns had other names or types, by ranges '
  'of entries, and whether these columns were the key at that time.';

CREATE FUNCTION lead_audit_internal.entries_of(relation regclass, row_key text)
RETURNS SETOF bigint
LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  wanted record;
BEGIN
  FOR wanted IN
    SELECT i.watch_id, row_key AS spelling, true AS is_key, 0::bigint AS after_entry,
           i.until_entry
    FROM lead_audit_internal.identities_of(relation) i
    UNION ALL
    SELECT i.watch_id, lead_audit.canonical_json(f.spelling), f.is_key, f.after_entry,
           f.until_entry
    FROM lead_audit_internal.identities_of(relation) i
    CROSS JOIN LATERAL
      lead_audit_internal.former_spellings(relation, row_key, i.watch_id, i.until_entry) f
  LOOP
    IF wanted.is_key THEN
      RETURN QUERY
        SELECT e.id FROM lead_audit.entry e
        WHERE e.key_hash = lead_audit.key_hash(wanted.watch_id, wanted.spelling)
          AND e.watch_id = wanted.watch_id AND e.row_key::text = wanted.spelling
          AND e.id <= wanted.until_entry
        UNION ALL
        SELECT e.id FROM lead_audit.entry e
        WHERE e.previous_key_hash = lead_audit.key_hash(wanted.watch_id, wanted.spelling)
          AND e.watch_id = wanted.watch_id AND e.id <= wanted.until_entry;
    ELSE
      RETURN QUERY
        SELECT e.id FROM lead_audit.entry e
        WHERE e.id > wanted.after_entry AND e.id <= wanted.until_entry
          AND e.watch_id = wanted.watch_id AND e.row_values IS NOT NULL
          AND (lead_audit_internal.has_values(
                 lead_audit_internal.as_jsonb(e.row_values), wanted.spelling::jsonb)
               OR lead_audit_internal.has_values(
                    lead_audit_internal.new_values_of(e.row_values, e.changed_values),
                    wanted.spelling::jsonb));
    END IF;
  END LOOP;
END
$$;
CREATE FUNCTION lead_audit_internal.has_values(row_values jsonb, wanted jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT bool_and($1 -> k.key = k.value) FROM jsonb_each($2) k
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.entries_of(regclass, text),
  lead_audit_internal.has_values(jsonb, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.entries_of(regclass, text) IS
  'Returns the ids of the entries of one row, those in which it got or lost this key included. An '
  'id can appear twice.';
COMMENT ON FUNCTION lead_audit_internal.has_values(jsonb, jsonb) IS
  'Whether a row has all of these values.';

CREATE FUNCTION lead_audit.history(relation regclass, key text) RETURNS SETOF lead_audit.log
LANGUAGE sql STABLE SECURITY DEFINER ROWS 20 SET search_path = pg_catalog, pg_temp AS $$
  SELECT l.* FROM lead_audit.log l
  WHERE l.id IN (SELECT lead_audit_internal.entries_of($1, lead_audit_internal.key_of($1, $2)))
  ORDER BY l.id
$$;
CREATE FUNCTION lead_audit.history(relation regclass, key jsonb) RETURNS SETOF lead_audit.log
LANGUAGE sql STABLE SECURITY DEFINER ROWS 20 SET search_path = pg_catalog, pg_temp AS $$
  SELECT l.* FROM lead_audit.log l
  WHERE l.id IN (SELECT lead_audit_internal.entries_of($1, lead_audit_internal.key_of($1, $2)))
  ORDER BY l.id
$$;
REVOKE ALL ON FUNCTION lead_audit.history(regclass, text), lead_audit.history(regclass, jsonb)
  FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.history(regclass, text) IS
  'Returns the entries of one row in order, by its primary key. Finds them also under former '
  'names of the table and of the key''s columns.';
COMMENT ON FUNCTION lead_audit.history(regclass, jsonb) IS
  'Returns the entries of one row in order, by a primary key that is written as {"column": value, '
  '...}. Otherwise like history(regclass, text).';

CREATE FUNCTION lead_audit_internal.summary_of(
  relation regclass, row_key text, OUT total bigint, OUT created bigint, OUT updated bigint,
  OUT deleted bigint, OUT failed bigint, OUT first_event timestamptz, OUT last_event timestamptz,
  OUT distinct_users bigint, OUT verified boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT count(*), count(*) FILTER (WHERE e.operation = 'INSERT' AND e.outcome = 'ok'),
         count(*) FILTER (WHERE e.operation = 'UPDATE' AND e.outcome = 'ok'),
         count(*) FILTER (WHERE e.operation = 'DELETE' AND e.outcome = 'ok'),
         count(*) FILTER (WHERE e.outcome = 'failed'),
         min(e.occurred_at), max(e.occurred_at), count(DISTINCT e.user_id),
         bool_and(lead_audit.verify_entry(e.id))
  FROM lead_audit.entry e WHERE e.id IN (SELECT lead_audit_internal.entries_of($1, $2))
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.summary_of(regclass, text) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.summary_of(regclass, text) IS
  'Does the work of summary().';

CREATE FUNCTION lead_audit.summary(
  relation regclass, key text, OUT total bigint, OUT created bigint, OUT updated bigint,
  OUT deleted bigint, OUT failed bigint, OUT first_event timestamptz, OUT last_event timestamptz,
  OUT distinct_users bigint, OUT verified boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT * FROM lead_audit_internal.summary_of($1, lead_audit_internal.key_of($1, $2))
$$;
CREATE FUNCTION lead_audit.summary(
  relation regclass, key jsonb, OUT total bigint, OUT created bigint, OUT updated bigint,
  OUT deleted bigint, OUT failed bigint, OUT first_event timestamptz, OUT last_event timestamptz,
  OUT distinct_users bigint, OUT verified boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT * FROM lead_audit_internal.summary_of($1, lead_audit_internal.key_of($1, $2))
$$;
REVOKE ALL ON FUNCTION lead_audit.summary(regclass, text), lead_audit.summary(regclass, jsonb)
  FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.summary(regclass, text) IS
  'Returns the counts of one row''s entries (total; created, updated and deleted that succeeded; '
  'failed), the times of its first and last event, the number of distinct user_ids, and whether '
  'all of its entries verify (NULL if it has none).';
COMMENT ON FUNCTION lead_audit.summary(regclass, jsonb) IS
  'Returns the same counts as summary(regclass, text), for a primary key that is written as '
  '{"column": value, ...}.';

-- An entry is unsealed if its id is above looked_to, which is the last id that sealing examined.
-- An entry is also unsealed if its transaction ended after sealing examined its id. If more than
-- 100,000 entries have ids above looked_to, the view does not count them. In this case, the view
-- shows the last id minus looked_to as the number of unsealed entries.
CREATE VIEW lead_audit.stats AS
SELECT (SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END FROM lead_audit.unwritten_seq s)
         + (SELECT coalesce(sum(u.entries), 0)::bigint FROM lead_audit.unwritten u)
         AS entries_not_written,
       (SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END FROM lead_audit.entry_id_seq s)
         AS last_id,
       (SELECT count(*) FROM lead_audit.watched w WHERE w.row_trigger_on) AS tables_watched,
       pg_catalog.pg_total_relation_size('lead_audit.entry') AS bytes,
       q.queued, q.written, q.dropped,
       CASE WHEN n.new <= 100000 THEN n.new + l.late
            ELSE (SELECT s.last_value FROM lead_audit.entry_id_seq s) - t.looked_to
            END AS unsealed_entries,
       least(n.oldest, l.oldest) AS oldest_unsealed,
       pg_catalog.clock_timestamp() - least(n.oldest, l.oldest) AS seal_lag,
       (SELECT coalesce(sum(upper(r) - lower(r)), 0)::bigint
        FROM lead_audit.open_gap g, unnest(g.ids) r) AS open_ids,
       (SELECT min(g.seen_at) FROM lead_audit.open_gap g) AS open_since,
       t.tree_size,
       c.sealed_at AS last_checkpoint_at,
       c.note LIKE E'%\n\n%' AS last_checkpoint_signed,
       t.publishing_errors, t.last_publishing_error_at, t.last_publishing_error,
       lead_audit_internal.quarantined() AS quarantined
FROM lead_audit_internal.own_queue() q
LEFT JOIN (SELECT * FROM lead_audit.tree ORDER BY tree_size DESC, created_at, log_id LIMIT 1) t
  ON true
LEFT JOIN LATERAL (
  SELECT c.sealed_at, c.note FROM lead_audit.checkpoint c ORDER BY c.tree_size DESC LIMIT 1
) c ON true
LEFT JOIN LATERAL (
  SELECT (SELECT count(*) FROM (
            SELECT FROM lead_audit.entry e WHERE e.id > t.looked_to LIMIT 100001) e) AS new,
         (SELECT e.occurred_at FROM lead_audit.entry e WHERE e.id > t.looked_to
          ORDER BY e.id LIMIT 1) AS oldest
) n ON true
LEFT JOIN LATERAL (
  SELECT count(*) AS late, min(e.occurred_at) AS oldest
  FROM lead_audit.open_gap g, unnest(g.ids) r, LATERAL (
    SELECT e.occurred_at FROM lead_audit.entry e
    WHERE e.id >= lower(r) AND e.id < upper(r) LIMIT 100001) e
  WHERE EXISTS (SELECT FROM unnest(g.in_progress) x
                WHERE pg_visible_in_snapshot(x::text::xid8, pg_current_snapshot()))
) l ON true;
REVOKE ALL ON lead_audit.stats FROM PUBLIC;
COMMENT ON VIEW lead_audit.stats IS 'Counters of this database, in one row.';
COMMENT ON COLUMN lead_audit.stats.entries_not_written IS
  'Number of entries that committed transactions lack, because writing failed while '
  'lead_audit.on_error was warn.';
COMMENT ON COLUMN lead_audit.stats.last_id IS
  'Highest id that was given out. Rolled-back transactions leave ids unused.';
COMMENT ON COLUMN lead_audit.stats.tables_watched IS 'Number of tables whose row trigger is on.';
COMMENT ON COLUMN lead_audit.stats.bytes IS 'Size of the audit trail with its indexes, in bytes.';
COMMENT ON COLUMN lead_audit.stats.queued IS
  'Number of failed statements of this database since the server started that went into the '
  'queue. 0 unless the library is preloaded.';
COMMENT ON COLUMN lead_audit.stats.written IS 'Number of these that are entries now.';
COMMENT ON COLUMN lead_audit.stats.dropped IS
  'Number of failed statements without an entry, because the queue was full or no worker ran. The '
  'server''s log has each of them in full.';
COMMENT ON COLUMN lead_audit.stats.unsealed_entries IS
  'Number of entries that no checkpoint covers yet. Above 100,000 it is the number of ids, those '
  'of rolled-back transactions included. Entries of open transactions are not visible: see '
  'open_ids.';
COMMENT ON COLUMN lead_audit.stats.oldest_unsealed IS 'Time of the oldest unsealed entry.';
COMMENT ON COLUMN lead_audit.stats.seal_lag IS 'Age of the oldest unsealed entry.';
COMMENT ON COLUMN lead_audit.stats.open_ids IS
  'Number of ids whose entries may still commit, because transactions were open when sealing '
  'looked. An upper bound.';
COMMENT ON COLUMN lead_audit.stats.open_since IS 'Time at which sealing saw the oldest open ids.';
COMMENT ON COLUMN lead_audit.stats.tree_size IS 'Number of leaves in the tree.';
COMMENT ON COLUMN lead_audit.stats.last_checkpoint_at IS 'Time of the newest checkpoint.';
COMMENT ON COLUMN lead_audit.stats.last_checkpoint_signed IS
  'Whether the newest checkpoint is signed.';
COMMENT ON COLUMN lead_audit.stats.publishing_errors IS
  'Number of failed attempts to publish a checkpoint.';
COMMENT ON COLUMN lead_audit.stats.last_publishing_error_at IS 'Time of the last failed attempt.';
COMMENT ON COLUMN lead_audit.stats.last_publishing_error IS 'Message of the last failed attempt.';
COMMENT ON COLUMN lead_audit.stats.quarantined IS
  'Number of dropped records during which a worker died. They are not tried again.';
