-- The Merkle tree over the entries, and its checkpoints. Only lead_audit.seal() and the worker
-- write to the tables of this file (src/seal/). The tree follows RFC 6962. The leaves of the tree
-- are hashes of committed entries, in the order of sealing.

CREATE TABLE lead_audit.checkpoint (
  tree_size bigint NOT NULL PRIMARY KEY CHECK (tree_size > 0),
  sealed_at timestamptz NOT NULL,
  root bytea NOT NULL CHECK (pg_catalog.octet_length(root) = 32),
  entry_ids int8multirange NOT NULL,
  note text NOT NULL,
  log_id uuid
);
REVOKE ALL ON lead_audit.checkpoint FROM PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('lead_audit.checkpoint', '');
COMMENT ON TABLE lead_audit.checkpoint IS
  'Size and root of the tree at each sealing, with the time. The entries that one checkpoint adds '
  'are in the tree in ascending order of their ids.';
COMMENT ON COLUMN lead_audit.checkpoint.tree_size IS 'Number of leaves in the tree.';
COMMENT ON COLUMN lead_audit.checkpoint.sealed_at IS
  'Wall-clock time of the sealing. For information only: neither root nor note contains it.';
COMMENT ON COLUMN lead_audit.checkpoint.root IS 'Root of the tree (RFC 6962, section 2.1).';
COMMENT ON COLUMN lead_audit.checkpoint.entry_ids IS
  'Ids of the entries that this checkpoint added to the tree.';
COMMENT ON COLUMN lead_audit.checkpoint.note IS
  'The published C2SP tlog-checkpoint: a signed note or, without lead_audit.signing_key_file, the '
  'unsigned text.';
COMMENT ON COLUMN lead_audit.checkpoint.log_id IS
  'Log id at the time, from lead_audit.tree. NULL if version 1.0 wrote the checkpoint.';

-- One look-up in this table finds the index of the leaf of an entry. The rows of this table can be
-- derived from the checkpoints.
CREATE TABLE lead_audit.leaf_range (
  first_id bigint NOT NULL PRIMARY KEY,
  last_id bigint NOT NULL CHECK (last_id >= first_id),
  first_leaf bigint NOT NULL
);
REVOKE ALL ON lead_audit.leaf_range FROM PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('lead_audit.leaf_range', '');
COMMENT ON TABLE lead_audit.leaf_range IS 'Internal: leaves of the tree by ranges of entry ids.';
COMMENT ON COLUMN lead_audit.leaf_range.first_id IS 'First id of the range.';
COMMENT ON COLUMN lead_audit.leaf_range.last_id IS 'Last id of the range. The range has no holes.';
COMMENT ON COLUMN lead_audit.leaf_range.first_leaf IS
  'Index of the leaf of first_id, from 0. The leaves of the other ids follow.';

-- The full tiles of the tree, as C2SP tlog-tiles defines them: each has 256 hashes of one level. A
-- full tile never changes, so seal() only adds rows to this table. The table lead_audit.tree_edge
-- contains the partial tile at the end of each level.
CREATE TABLE lead_audit.tree_tile (
  index bigint NOT NULL,
  level smallint NOT NULL,
  hashes bytea NOT NULL,
  PRIMARY KEY (level, index)
);
-- With STORAGE EXTERNAL, PostgreSQL does not try to compress the hashes. Compression cannot
-- shorten hashes.
ALTER TABLE lead_audit.tree_tile ALTER COLUMN hashes SET STORAGE EXTERNAL;
REVOKE ALL ON lead_audit.tree_tile FROM PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('lead_audit.tree_tile', '');
COMMENT ON TABLE lead_audit.tree_tile IS
  'Full tiles of the tree (C2SP tlog-tiles, height 8), with 256 hashes of 32 bytes each.';
COMMENT ON COLUMN lead_audit.tree_tile.index IS 'Position of the tile in its level, from 0.';
COMMENT ON COLUMN lead_audit.tree_tile.level IS
  '0: leaf hashes. n + 1: roots of the full tiles of level n.';
COMMENT ON COLUMN lead_audit.tree_tile.hashes IS 'Concatenated hashes.';

CREATE TABLE lead_audit.tree_edge (
  index bigint NOT NULL,
  level smallint NOT NULL PRIMARY KEY,
  hashes bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200,
        toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 1000);
ALTER TABLE lead_audit.tree_edge ALTER COLUMN hashes SET STORAGE EXTERNAL;
REVOKE ALL ON lead_audit.tree_edge FROM PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('lead_audit.tree_edge', '');
COMMENT ON TABLE lead_audit.tree_edge IS 'Last tile of each level, with fewer than 256 hashes.';
COMMENT ON COLUMN lead_audit.tree_edge.index IS 'Position of the tile in its level, from 0.';
COMMENT ON COLUMN lead_audit.tree_edge.level IS 'Same levels as in tree_tile.';
COMMENT ON COLUMN lead_audit.tree_edge.hashes IS 'Concatenated hashes.';

-- The log id and the state of sealing. CREATE EXTENSION inserts a row, and a restore of a dump
-- adds the dump's row. lead_audit uses only the row with the largest tree_size. If several rows
-- have this tree_size, lead_audit uses the oldest of them.
CREATE TABLE lead_audit.tree (
  log_id uuid NOT NULL PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
  created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  tree_size bigint NOT NULL DEFAULT 0,
  looked_to bigint NOT NULL DEFAULT 0,
  open_gaps integer NOT NULL DEFAULT 0,
  awaits_restore boolean NOT NULL DEFAULT false,
  waits_for bigint[] NOT NULL DEFAULT '{}',
  home text,
  publishing_errors bigint NOT NULL DEFAULT 0,
  last_publishing_error_at timestamptz,
  last_publishing_error text,
  origin text,
  verifier_key text
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);
REVOKE ALL ON lead_audit.tree FROM PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('lead_audit.tree', '');
COMMENT ON TABLE lead_audit.tree IS
  'Log id and state of sealing. The row with the largest tree counts, and among equals the '
  'oldest.';
COMMENT ON COLUMN lead_audit.tree.log_id IS
  'Identity of the log. It survives dump and restore, and is the last part of the default origin.';
COMMENT ON COLUMN lead_audit.tree.created_at IS 'Time at which the row was created.';
COMMENT ON COLUMN lead_audit.tree.tree_size IS 'Number of leaves in the tree.';
COMMENT ON COLUMN lead_audit.tree.looked_to IS
  'Highest id that sealing has looked at. Each id up to it is in the tree, is an open id, or '
  'belongs to a transaction that rolled back.';
COMMENT ON COLUMN lead_audit.tree.open_gaps IS 'Number of rows in open_gap.';
COMMENT ON COLUMN lead_audit.tree.awaits_restore IS
  'Whether a restore ran CREATE EXTENSION and will load the tree. Sealing waits until the tree is '
  'there, or until a new entry shows that no tree will come.';
COMMENT ON COLUMN lead_audit.tree.waits_for IS
  'Transactions. When one of them ends, sealing looks at the open ids again.';
COMMENT ON COLUMN lead_audit.tree.home IS
  'Where transaction ids are valid: system identifier and database oid, separated by a slash.';
COMMENT ON COLUMN lead_audit.tree.origin IS
  'Origin of the newest checkpoint. NULL before the first.';
COMMENT ON COLUMN lead_audit.tree.verifier_key IS
  'Public key that belongs to the signature of the newest checkpoint. NULL if it is not signed.';
COMMENT ON COLUMN lead_audit.tree.publishing_errors IS
  'Number of failed attempts to publish a checkpoint.';
COMMENT ON COLUMN lead_audit.tree.last_publishing_error_at IS 'Time of the last failed attempt.';
COMMENT ON COLUMN lead_audit.tree.last_publishing_error IS 'Message of the last failed attempt.';
-- The script of a restore sets row_security = off at its beginning. So row_security = off shows
-- that a restore is running.
INSERT INTO lead_audit.tree (awaits_restore)
VALUES (pg_catalog.current_setting('row_security') OPERATOR(pg_catalog.=) 'off');

CREATE TABLE lead_audit.open_gap (
  first_id bigint NOT NULL PRIMARY KEY,
  seen_at timestamptz NOT NULL,
  ids int8multirange NOT NULL,
  in_progress bigint[] NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);
CREATE INDEX open_gap_in_progress_idx ON lead_audit.open_gap
  USING gin (in_progress) WITH (fastupdate = off);
COMMENT ON INDEX lead_audit.open_gap_in_progress_idx IS
  'Finds the open ids that a transaction may own, when it has ended.';
REVOKE ALL ON lead_audit.open_gap FROM PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('lead_audit.open_gap', '');
COMMENT ON TABLE lead_audit.open_gap IS
  'Internal: open ids. They are below looked_to and had no visible entry when sealing looked, but '
  'their transaction may still commit.';
COMMENT ON COLUMN lead_audit.open_gap.first_id IS 'Lowest of the ids when sealing first saw them.';
COMMENT ON COLUMN lead_audit.open_gap.seen_at IS 'Time at which sealing first saw them.';
COMMENT ON COLUMN lead_audit.open_gap.ids IS 'The open ids.';
COMMENT ON COLUMN lead_audit.open_gap.in_progress IS
  'Transactions that may own the ids: in progress when sealing first saw the ids, and still in '
  'progress when it last looked.';

CREATE TABLE lead_audit.inserted_entry (
  id bigint NOT NULL PRIMARY KEY,
  found_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
REVOKE ALL ON lead_audit.inserted_entry FROM PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('lead_audit.inserted_entry', '');
COMMENT ON TABLE lead_audit.inserted_entry IS
  'Internal: ids of entries that existed before the sequence gave out their ids. Somebody '
  'inserted them by hand, so they are never sealed.';
COMMENT ON COLUMN lead_audit.inserted_entry.id IS 'Id of the entry.';
COMMENT ON COLUMN lead_audit.inserted_entry.found_at IS 'Time at which the entry was found.';

CREATE FUNCTION lead_audit_internal.guard_tree() RETURNS trigger
  LANGUAGE c AS 'MODULE_PATHNAME', 'lead_audit_guard_tree';
REVOKE ALL ON FUNCTION lead_audit_internal.guard_tree() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.guard_tree() IS
  'Trigger: only sealing may change the state of the tree. Error 42501.';

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON lead_audit.checkpoint
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON lead_audit.leaf_range
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON lead_audit.tree_tile
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON lead_audit.inserted_entry
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.refuse_change();
CREATE TRIGGER sealing_only BEFORE UPDATE OR DELETE OR TRUNCATE ON lead_audit.tree_edge
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.guard_tree();
CREATE TRIGGER sealing_only BEFORE UPDATE OR DELETE OR TRUNCATE ON lead_audit.tree
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.guard_tree();
CREATE TRIGGER sealing_only BEFORE UPDATE OR DELETE OR TRUNCATE ON lead_audit.open_gap
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.guard_tree();
ALTER TABLE lead_audit.checkpoint ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE lead_audit.leaf_range ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE lead_audit.tree_tile ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE lead_audit.inserted_entry ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE lead_audit.tree_edge ENABLE ALWAYS TRIGGER sealing_only;
ALTER TABLE lead_audit.tree ENABLE ALWAYS TRIGGER sealing_only;
ALTER TABLE lead_audit.open_gap ENABLE ALWAYS TRIGGER sealing_only;
COMMENT ON TRIGGER append_only ON lead_audit.checkpoint IS 'Refuses UPDATE, DELETE and TRUNCATE.';
COMMENT ON TRIGGER append_only ON lead_audit.leaf_range IS 'Refuses UPDATE, DELETE and TRUNCATE.';
COMMENT ON TRIGGER append_only ON lead_audit.tree_tile IS 'Refuses UPDATE, DELETE and TRUNCATE.';
COMMENT ON TRIGGER append_only ON lead_audit.inserted_entry IS
  'Refuses UPDATE, DELETE and TRUNCATE.';
COMMENT ON TRIGGER sealing_only ON lead_audit.tree_edge IS
  'Refuses UPDATE, DELETE and TRUNCATE, except by sealing.';
COMMENT ON TRIGGER sealing_only ON lead_audit.tree IS
  'Refuses UPDATE, DELETE and TRUNCATE, except by sealing.';
COMMENT ON TRIGGER sealing_only ON lead_audit.open_gap IS
  'Refuses UPDATE, DELETE and TRUNCATE, except by sealing.';

-- The triggers own_inserts_only refuse an INSERT by a role that neither owns the table nor is a
-- superuser. The triggers append_only refuse UPDATE, DELETE and TRUNCATE. The triggers
-- sealing_only refuse these three commands too, except by sealing.
CREATE TRIGGER own_inserts_only BEFORE INSERT ON lead_audit.checkpoint
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.refuse_others();
ALTER TABLE lead_audit.checkpoint ENABLE ALWAYS TRIGGER own_inserts_only;
COMMENT ON TRIGGER own_inserts_only ON lead_audit.checkpoint IS
  'Refuses INSERT by others than lead_audit.';
CREATE TRIGGER own_inserts_only BEFORE INSERT ON lead_audit.leaf_range
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.refuse_others();
ALTER TABLE lead_audit.leaf_range ENABLE ALWAYS TRIGGER own_inserts_only;
COMMENT ON TRIGGER own_inserts_only ON lead_audit.leaf_range IS
  'Refuses INSERT by others than lead_audit.';
CREATE TRIGGER own_inserts_only BEFORE INSERT ON lead_audit.tree_tile
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.refuse_others();
ALTER TABLE lead_audit.tree_tile ENABLE ALWAYS TRIGGER own_inserts_only;
COMMENT ON TRIGGER own_inserts_only ON lead_audit.tree_tile IS
  'Refuses INSERT by others than lead_audit.';
CREATE TRIGGER own_inserts_only BEFORE INSERT ON lead_audit.tree_edge
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.refuse_others();
ALTER TABLE lead_audit.tree_edge ENABLE ALWAYS TRIGGER own_inserts_only;
COMMENT ON TRIGGER own_inserts_only ON lead_audit.tree_edge IS
  'Refuses INSERT by others than lead_audit.';
CREATE TRIGGER own_inserts_only BEFORE INSERT ON lead_audit.tree
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.refuse_others();
ALTER TABLE lead_audit.tree ENABLE ALWAYS TRIGGER own_inserts_only;
COMMENT ON TRIGGER own_inserts_only ON lead_audit.tree IS
  'Refuses INSERT by others than lead_audit.';
CREATE TRIGGER own_inserts_only BEFORE INSERT ON lead_audit.open_gap
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.refuse_others();
ALTER TABLE lead_audit.open_gap ENABLE ALWAYS TRIGGER own_inserts_only;
COMMENT ON TRIGGER own_inserts_only ON lead_audit.open_gap IS
  'Refuses INSERT by others than lead_audit.';
CREATE TRIGGER own_inserts_only BEFORE INSERT ON lead_audit.inserted_entry
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.refuse_others();
ALTER TABLE lead_audit.inserted_entry ENABLE ALWAYS TRIGGER own_inserts_only;
COMMENT ON TRIGGER own_inserts_only ON lead_audit.inserted_entry IS
  'Refuses INSERT by others than lead_audit.';
