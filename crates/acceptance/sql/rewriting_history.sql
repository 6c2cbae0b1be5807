-- Creates the tools of a tamperer who has all rights in the database and knows docs/FORMAT.md.
-- After a change of entries, the functions of the schema `kit` recompute the stored checksums and
-- hashes that depend on the changed entries. The functions were written from docs/FORMAT.md alone,
-- and use no code of the extension.
CREATE SCHEMA kit;

-- Returns the preimage of an entry's checksum (docs/FORMAT.md, section 5). For a text, the output
-- of to_json() is canonical JSON (docs/FORMAT.md, section 3).
CREATE FUNCTION kit.preimage(e lead_audit.entry) RETURNS bytea LANGUAGE sql AS $$
  SELECT convert_to(
    '{' || string_agg('"' || name || '":' || value, ',' ORDER BY name COLLATE "C") || '}', 'UTF8')
  FROM (VALUES
    ('id', e.id::text), ('format', e.format::text), ('txid', e.txid::text),
    ('key_hash', e.key_hash::text), ('previous_key_hash', e.previous_key_hash::text),
    ('relation', e.relation::text), ('backend_pid', e.backend_pid::text),
    ('occurred_at', to_json(to_char(e.occurred_at AT TIME ZONE 'UTC',
    'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))::text), ('watch_id', to_json(e.watch_id)::text),
    ('operation', to_json(e.operation)::text), ('outcome', to_json(e.outcome)::text),
    ('table_schema', to_json(e.table_schema)::text), ('table_name', to_json(e.table_name)::text),
    ('soft_delete', to_json(e.soft_delete)::text), ('row_key', e.row_key::text),
    ('row_values', e.row_values::text), ('changed_values', e.changed_values::text),
    ('details', e.details::text), ('user_id', to_json(e.user_id)::text),
    ('user_ip', to_json(e.user_ip)::text), ('user_agent', to_json(e.user_agent)::text),
    ('request_id', to_json(e.request_id)::text), ('db_session_user',
    to_json(e.db_session_user)::text), ('db_current_user', to_json(e.db_current_user)::text),
    ('client_addr', to_json(e.client_addr)::text), ('application_name',
    to_json(e.application_name)::text), ('error_code', to_json(e.error_code)::text),
    ('error_message', to_json(e.error_message)::text), ('error_detail',
    to_json(e.error_detail)::text), ('statement', to_json(e.statement)::text)) c (name, value)
  WHERE value IS NOT NULL
$$;

CREATE FUNCTION kit.checksum(e lead_audit.entry) RETURNS bytea LANGUAGE sql AS
  'SELECT sha256(kit.preimage(e))';

-- Returns the value that the column key_hash of an entry must have (docs/FORMAT.md, section 6).
-- Does not compute previous_key_hash.
CREATE FUNCTION kit.key_hash(e lead_audit.entry) RETURNS bigint LANGUAGE sql AS $$
  SELECT ('x' || encode(
    substr(sha256(uuid_send(e.watch_id) || convert_to(e.row_key::text, 'UTF8')), 1, 8), 'hex')
  )::bit(64)::bigint
$$;

CREATE FUNCTION kit.reckon(VARIADIC which bigint[]) RETURNS void LANGUAGE sql AS $$
  UPDATE lead_audit.entry e SET checksum = kit.checksum(e) WHERE id = ANY (which)
$$;

-- Disables the triggers that protect the log.
CREATE FUNCTION kit.unguard() RETURNS void LANGUAGE plpgsql AS $$
DECLARE t regclass;
BEGIN
  FOR t IN SELECT DISTINCT tgrelid::regclass FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid
           WHERE relnamespace = 'lead_audit'::regnamespace AND NOT tgisinternal LOOP
    EXECUTE format('ALTER TABLE %s DISABLE TRIGGER ALL', t);
  END LOOP;
END
$$;

-- Returns the leaves of the tree (docs/FORMAT.md, section 11). The leaves are in the order of the
-- checkpoints, and within a checkpoint in the order of the ids.
CREATE FUNCTION kit.leaves() RETURNS TABLE (leaf bigint, id bigint, hash bytea) LANGUAGE sql AS $$
  SELECT row_number() OVER (ORDER BY c.tree_size, x.id) - 1, x.id,
    sha256('\x00'::bytea || e.checksum)
  FROM lead_audit.checkpoint c
  CROSS JOIN LATERAL (
    SELECT generate_series(lower(r), upper(r) - 1) AS id FROM unnest(c.entry_ids) r) x
  JOIN lead_audit.entry e USING (id)
$$;

-- Returns the root of a tree with the leaves `hashes` (docs/FORMAT.md, section 11).
CREATE FUNCTION kit.root(hashes bytea[]) RETURNS bytea LANGUAGE plpgsql AS $$
DECLARE above bytea[];
BEGIN
  IF hashes = '{}' THEN RETURN sha256(''); END IF;
  WHILE array_length(hashes, 1) > 1 LOOP
    above := '{}';
    FOR i IN 1..array_length(hashes, 1) BY 2 LOOP
      above := above || coalesce(sha256('\x01'::bytea || hashes[i] || hashes[i + 1]), hashes[i]);
    END LOOP;
    hashes := above;
  END LOOP;
  RETURN hashes[1];
END
$$;

CREATE FUNCTION kit.stored_leaves() RETURNS bytea[] LANGUAGE sql AS $$
  SELECT coalesce(array_agg(substr(hashes, i * 32 + 1, 32) ORDER BY index, i), '{}')
  FROM (
    SELECT DISTINCT ON (index) index, hashes
    FROM (SELECT * FROM lead_audit.tree_tile UNION ALL SELECT * FROM lead_audit.tree_edge) t
    WHERE level = 0 ORDER BY index, length(hashes) DESC
  ) t, generate_series(0, length(hashes) / 32 - 1) i
$$;

-- Replaces the tiles of the level `lowest` and of all higher levels. Computes the new tiles from
-- the leaves `hashes` (docs/FORMAT.md, section 12).
CREATE FUNCTION kit.store_tiles(hashes bytea[], lowest integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE tile bytea[]; above bytea[]; level integer := 0;
BEGIN
  DELETE FROM lead_audit.tree_tile t WHERE t.level >= lowest;
  DELETE FROM lead_audit.tree_edge t WHERE t.level >= lowest;
  WHILE hashes <> '{}' LOOP
    above := '{}';
    FOR i IN 0..(array_length(hashes, 1) - 1) / 256 LOOP
      tile := hashes[i * 256 + 1 : i * 256 + 256];
      IF array_length(tile, 1) = 256 THEN
        above := above || kit.root(tile);
        IF level >= lowest THEN
          INSERT INTO lead_audit.tree_tile (index, level, hashes) VALUES (i, level,
            (SELECT string_agg(h, '' ORDER BY n) FROM unnest(tile) WITH ORDINALITY t (h, n)));
        END IF;
      ELSIF level >= lowest THEN
        INSERT INTO lead_audit.tree_edge (index, level, hashes) VALUES (i, level,
          (SELECT string_agg(h, '' ORDER BY n) FROM unnest(tile) WITH ORDINALITY t (h, n)));
      END IF;
    END LOOP;
    hashes := above;
    level := level + 1;
  END LOOP;
END
$$;

-- Recomputes stored values of the tree from the entries. Depth 1 recomputes the leaves. Depth 2
-- also recomputes all inner nodes. Depth 3 also recomputes the column `root` of the checkpoints.
-- Depth 4 also recomputes the texts of the notes, which keep their old signatures.
CREATE FUNCTION kit.repair(depth integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE leaves bytea[] := (SELECT array_agg(hash ORDER BY leaf) FROM kit.leaves());
        inner_nodes record;
BEGIN
  IF depth = 1 THEN
    CREATE TEMP TABLE kept_tile ON COMMIT DROP AS
      SELECT * FROM lead_audit.tree_tile WHERE level > 0;
    CREATE TEMP TABLE kept_edge ON COMMIT DROP AS
      SELECT * FROM lead_audit.tree_edge WHERE level > 0;
  END IF;
  IF depth >= 1 THEN PERFORM kit.store_tiles(leaves, 0); END IF;
  IF depth = 1 THEN
    DELETE FROM lead_audit.tree_tile WHERE level > 0;
    INSERT INTO lead_audit.tree_tile SELECT * FROM kept_tile;
    DELETE FROM lead_audit.tree_edge WHERE level > 0;
    INSERT INTO lead_audit.tree_edge SELECT * FROM kept_edge;
  END IF;
  IF depth >= 3 THEN
    UPDATE lead_audit.checkpoint SET root = kit.root(leaves[1 : tree_size]);
  END IF;
  IF depth >= 4 THEN
    UPDATE lead_audit.checkpoint SET note = split_part(note, E'\n', 1) || E'\n'
      || tree_size || E'\n' || encode(root, 'base64') || E'\n' || E'\n'
      || split_part(note, E'\n\n', 2);
  END IF;
END
$$;

-- Removes the signatures of the checkpoints.
CREATE FUNCTION kit.unsign() RETURNS void LANGUAGE sql AS $$
  UPDATE lead_audit.checkpoint SET note = split_part(note, E'\n\n', 1) || E'\n'
$$;

-- Removes the ids that have no entry from the checkpoints. Recomputes the tree sizes of the
-- checkpoints and the table leaf_range. Does not recompute roots, tiles and notes, for which the
-- caller uses kit.repair().
CREATE FUNCTION kit.forget_missing() RETURNS void LANGUAGE plpgsql AS $$
DECLARE next record; size bigint := 0;
BEGIN
  CREATE TEMP TABLE renewed ON COMMIT DROP AS
    SELECT c.tree_size AS old_size, c.sealed_at, c.note,
           (SELECT range_agg(int8range(e.id, e.id, '[]'))
            FROM lead_audit.entry e WHERE c.entry_ids @> e.id) AS entry_ids,
           (SELECT count(*) FROM lead_audit.entry e WHERE c.entry_ids @> e.id) AS own
    FROM lead_audit.checkpoint c;
  DELETE FROM lead_audit.checkpoint;
  FOR next IN SELECT * FROM renewed WHERE own > 0 ORDER BY old_size LOOP
    size := size + next.own;
    INSERT INTO lead_audit.checkpoint (tree_size, sealed_at, root, entry_ids, note)
      VALUES (size, next.sealed_at, sha256(''), next.entry_ids, next.note);
  END LOOP;
  PERFORM kit.index_leaves();
END
$$;

-- Recomputes the table leaf_range and the stored size of the tree from the checkpoints.
CREATE FUNCTION kit.index_leaves() RETURNS void LANGUAGE sql AS $$
  DELETE FROM lead_audit.leaf_range;
  INSERT INTO lead_audit.leaf_range (first_id, last_id, first_leaf)
    SELECT lower(r), upper(r) - 1,
      sum(upper(r) - lower(r)) OVER (ORDER BY tree_size, lower(r)) - (upper(r) - lower(r))
    FROM lead_audit.checkpoint, unnest(entry_ids) r;
  UPDATE lead_audit.tree SET tree_size = (SELECT max(tree_size) FROM lead_audit.checkpoint);
$$;

-- Deletes all checkpoints, the whole tree and the state of sealing. Afterwards, the log looks as
-- if it was never sealed.
CREATE FUNCTION kit.unseal() RETURNS void LANGUAGE sql AS $$
  DELETE FROM lead_audit.checkpoint;
  DELETE FROM lead_audit.tree_tile; DELETE FROM lead_audit.tree_edge;
  DELETE FROM lead_audit.leaf_range; DELETE FROM lead_audit.open_gap;
  UPDATE lead_audit.tree SET tree_size = 0, looked_to = 0, open_gaps = 0, waits_for = '{}';
$$;

-- Shortens the tree to the size that it had at an earlier checkpoint.
CREATE FUNCTION kit.cut(size bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE leaves bytea[] := kit.stored_leaves();
BEGIN
  DELETE FROM lead_audit.checkpoint WHERE tree_size > size;
  PERFORM kit.store_tiles(leaves[1 : size], 0);
  PERFORM kit.index_leaves();
  UPDATE lead_audit.tree SET looked_to = (SELECT max(last_id) FROM lead_audit.leaf_range);
END
$$;

-- Copies an entry to the id `to_id`. The copy has the user "somebody else", and a checksum that
-- matches the copy.
CREATE FUNCTION kit.copy(from_id bigint, to_id bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE e lead_audit.entry := (SELECT e FROM lead_audit.entry e WHERE id = from_id);
BEGIN
  e.id := to_id;
  e.user_id := 'somebody else';
  e.checksum := kit.checksum(e);
  INSERT INTO lead_audit.entry SELECT e.*;
END
$$;

-- Exchanges the ids of two entries.
CREATE FUNCTION kit.swap(a bigint, b bigint) RETURNS void LANGUAGE sql AS $$
  UPDATE lead_audit.entry SET id = -a WHERE id = a;
  UPDATE lead_audit.entry SET id = a WHERE id = b;
  UPDATE lead_audit.entry SET id = b WHERE id = -a;
$$;
