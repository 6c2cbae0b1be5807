-- What must be true of any tree, worked out from entries and checkpoints alone: nothing here is the extension's own.
CREATE OR REPLACE FUNCTION pg_temp.root_of(size bigint) RETURNS bytea LANGUAGE plpgsql AS $$
-- MTH of RFC 6962: pairs of each level are hashed, a last one without a partner goes up as it is.
DECLARE nodes bigint := size;
BEGIN
  IF size = 0 THEN RETURN sha256(''); END IF;
  DROP TABLE IF EXISTS pg_temp.level;
  CREATE TEMP TABLE level AS SELECT i, h FROM pg_temp.leaf WHERE i < size;
  ANALYZE pg_temp.level;
  WHILE nodes > 1 LOOP
    CREATE INDEX ON pg_temp.level (i);
    CREATE TEMP TABLE above AS
      SELECT l.i / 2 AS i, CASE WHEN r.h IS NULL THEN l.h ELSE sha256('\x01'::bytea || l.h || r.h) END AS h
      FROM pg_temp.level l LEFT JOIN pg_temp.level r ON r.i = l.i + 1 WHERE l.i % 2 = 0;
    DROP TABLE pg_temp.level;
    ALTER TABLE pg_temp.above RENAME TO level;
    nodes := (nodes + 1) / 2;
  END LOOP;
  RETURN (SELECT h FROM pg_temp.level);
END
$$;

CREATE OR REPLACE FUNCTION pg_temp.tree_faults() RETURNS SETOF text LANGUAGE plpgsql SET client_min_messages = error AS $$
BEGIN
  DROP TABLE IF EXISTS pg_temp.leaf;
  CREATE TEMP TABLE leaf AS
    SELECT row_number() OVER (ORDER BY c.tree_size, x.id) - 1 AS i, x.id, sha256('\x00'::bytea || e.checksum) AS h, c.tree_size
    FROM lead_audit.checkpoint c
    CROSS JOIN LATERAL (SELECT generate_series(lower(r[1]::int8range), upper(r[1]::int8range) - 1) AS id
                        FROM regexp_matches(c.entry_ids::text, '\[[^)]*\)', 'g') r) x
    LEFT JOIN lead_audit.entry e USING (id);
  RETURN QUERY SELECT 'id ' || id || ' is sealed and has no entry' FROM pg_temp.leaf WHERE h IS NULL;
  RETURN QUERY SELECT 'id ' || id || ' is sealed more than once' FROM pg_temp.leaf GROUP BY id HAVING count(*) > 1;
  RETURN QUERY SELECT 'the checkpoint of size ' || tree_size || ' has other ids' FROM
    (SELECT tree_size, max(i) + 1 AS leaves FROM pg_temp.leaf GROUP BY tree_size) c WHERE tree_size <> leaves;
  CREATE INDEX ON pg_temp.leaf (i);
  ANALYZE pg_temp.leaf;
  RETURN QUERY SELECT 'leaf_range leads elsewhere for id ' || id FROM
    (SELECT id, first_leaf + id - first_id AS i, first_id FROM lead_audit.leaf_range, generate_series(first_id, last_id) id) r
    FULL JOIN pg_temp.leaf l USING (id, i) WHERE l.tree_size IS NULL OR r.first_id IS NULL;
  RETURN QUERY SELECT 'leaf ' || l.i || ' is not in its tile' FROM pg_temp.leaf l LEFT JOIN
    (SELECT index, hashes FROM lead_audit.tree_tile WHERE level = 0 UNION ALL
     SELECT index, hashes FROM lead_audit.tree_edge WHERE level = 0) t ON t.index = l.i / 256
    WHERE substr(t.hashes, (l.i % 256)::int * 32 + 1, 32) IS DISTINCT FROM l.h;
  -- The newest checkpoint and a sample of the others.
  RETURN QUERY SELECT 'the checkpoint of size ' || c.tree_size || ' has another root'
    FROM (SELECT tree_size, root, row_number() OVER (ORDER BY tree_size DESC) AS n FROM lead_audit.checkpoint) c
    WHERE (n = 1 OR n % 197 = 0) AND root <> pg_temp.root_of(c.tree_size);
  RETURN QUERY SELECT 'the note of size ' || c.tree_size || ' says something else' FROM lead_audit.checkpoint c
    WHERE split_part(note, E'\n', 2) <> tree_size::text OR split_part(note, E'\n', 3) <> encode(root, 'base64');
  RETURN QUERY SELECT 'lead_audit.tree has another size' WHERE (SELECT count(*) FROM pg_temp.leaf) <>
    (SELECT tree_size FROM lead_audit.tree);
END
$$;
