-- The Merkle tree over the entries, and its checkpoints. Written by lead_audit.seal() and the background worker only
-- (src/seal/): entries of finished transactions, in the order of sealing, are the leaves of one RFC 6962 tree.

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
COMMENT ON TABLE lead_audit.checkpoint IS 'What the log has said of its tree, and when. The ids of the entries that a checkpoint added stand in ascending order in the tree.';
COMMENT ON COLUMN lead_audit.checkpoint.tree_size IS 'Leaves in the tree.';
COMMENT ON COLUMN lead_audit.checkpoint.sealed_at IS 'Wall-clock time of the sealing. Information only: it is in neither root nor note.';
COMMENT ON COLUMN lead_audit.checkpoint.root IS 'Root of the tree, RFC 6962 section 2.1.';
COMMENT ON COLUMN lead_audit.checkpoint.entry_ids IS 'Ids of the entries that were added to the tree since the checkpoint before.';
COMMENT ON COLUMN lead_audit.checkpoint.note IS 'The C2SP tlog-checkpoint as it left the database: a signed note or, without lead_audit.signing_key_file, the unsigned text.';

COMMENT ON COLUMN lead_audit.checkpoint.log_id IS 'Identity of the log, as lead_audit.tree had it. NULL if a version before 1.1 wrote it.';

-- Where an id is in the tree. It follows from the checkpoints; it is here so that one look finds it.
CREATE TABLE lead_audit.leaf_range (
  first_id bigint NOT NULL PRIMARY KEY,
  last_id bigint NOT NULL CHECK (last_id >= first_id),
  first_leaf bigint NOT NULL
);
REVOKE ALL ON lead_audit.leaf_range FROM PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('lead_audit.leaf_range', '');
COMMENT ON TABLE lead_audit.leaf_range IS 'Internal: which leaves of the tree the entries with these ids are.';
COMMENT ON COLUMN lead_audit.leaf_range.first_id IS 'The first id.';
COMMENT ON COLUMN lead_audit.leaf_range.last_id IS 'The last id; all ids between are there too.';
COMMENT ON COLUMN lead_audit.leaf_range.first_leaf IS 'Index of the first id''s leaf, from 0; the others follow.';

-- Tiles as in C2SP tlog-tiles: up to 256 hashes of one level. Full ones never change; the last one of a level is apart from
-- them, so that this table only grows.
CREATE TABLE lead_audit.tree_tile (
  index bigint NOT NULL,
  level smallint NOT NULL,
  hashes bytea NOT NULL,
  PRIMARY KEY (level, index)
);
-- Hashes cannot be compressed.
ALTER TABLE lead_audit.tree_tile ALTER COLUMN hashes SET STORAGE EXTERNAL;
REVOKE ALL ON lead_audit.tree_tile FROM PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('lead_audit.tree_tile', '');
COMMENT ON TABLE lead_audit.tree_tile IS 'The full tiles of the tree (C2SP tlog-tiles, height 8), 256 hashes of 32 bytes each.';
COMMENT ON COLUMN lead_audit.tree_tile.index IS 'Place in the level, from 0.';
COMMENT ON COLUMN lead_audit.tree_tile.level IS '0: leaf hashes; n + 1: the roots of full tiles of level n.';
COMMENT ON COLUMN lead_audit.tree_tile.hashes IS 'The hashes, one after the other.';

CREATE TABLE lead_audit.tree_edge (
  index bigint NOT NULL,
  level smallint NOT NULL PRIMARY KEY,
  hashes bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200,
        toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 1000);
ALTER TABLE lead_audit.tree_edge ALTER COLUMN hashes SET STORAGE EXTERNAL;
REVOKE ALL ON lead_audit.tree_edge FROM PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('lead_audit.tree_edge', '');
COMMENT ON TABLE lead_audit.tree_edge IS 'The last tile of each level, which has fewer than 256 hashes.';
COMMENT ON COLUMN lead_audit.tree_edge.index IS 'Place in the level, from 0.';
COMMENT ON COLUMN lead_audit.tree_edge.level IS 'As in tree_tile.';
COMMENT ON COLUMN lead_audit.tree_edge.hashes IS 'The hashes so far, one after the other.';

-- The log's identity, and how far sealing is. One row counts: the one with the largest tree, of several the oldest. CREATE
-- EXTENSION makes one, a restored dump brings its own.
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
COMMENT ON TABLE lead_audit.tree IS 'The log''s identity and the state of its sealing. Of several rows the one with the largest tree counts, then the oldest.';
COMMENT ON COLUMN lead_audit.tree.log_id IS 'Identity of the log. It survives dump and restore, and is the last part of the default origin.';
COMMENT ON COLUMN lead_audit.tree.created_at IS 'When this row was made.';
COMMENT ON COLUMN lead_audit.tree.tree_size IS 'Leaves in the tree.';
COMMENT ON COLUMN lead_audit.tree.looked_to IS 'Ids up to this one have been looked at: they are in the tree, in an open gap, or belong to rolled-back transactions.';
COMMENT ON COLUMN lead_audit.tree.open_gaps IS 'Number of rows in open_gap.';
COMMENT ON COLUMN lead_audit.tree.awaits_restore IS 'CREATE EXTENSION was run by a restore, which will bring the tree: nothing is sealed until it has, or until a new entry shows that it will not.';
COMMENT ON COLUMN lead_audit.tree.waits_for IS 'Transactions whose end makes it worth while to look at open gaps again.';
COMMENT ON COLUMN lead_audit.tree.home IS 'Where the ids of transactions mean something: system identifier/oid of the database.';
COMMENT ON COLUMN lead_audit.tree.origin IS 'Origin of the last checkpoint. NULL before the first.';
COMMENT ON COLUMN lead_audit.tree.verifier_key IS 'Public key that the last checkpoint is signed with. NULL if it is not signed.';
COMMENT ON COLUMN lead_audit.tree.publishing_errors IS 'How often a checkpoint could not be published.';
COMMENT ON COLUMN lead_audit.tree.last_publishing_error_at IS 'When that happened last.';
COMMENT ON COLUMN lead_audit.tree.last_publishing_error IS 'Why.';
-- A restore says row_security = off before anything else.
INSERT INTO lead_audit.tree (awaits_restore) VALUES (pg_catalog.current_setting('row_security') OPERATOR(pg_catalog.=) 'off');

CREATE TABLE lead_audit.open_gap (
  first_id bigint NOT NULL PRIMARY KEY,
  seen_at timestamptz NOT NULL,
  ids int8multirange NOT NULL,
  in_progress bigint[] NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);
-- Which gaps to look at when a transaction has ended.
CREATE INDEX open_gap_in_progress_idx ON lead_audit.open_gap USING gin (in_progress) WITH (fastupdate = off);
REVOKE ALL ON lead_audit.open_gap FROM PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('lead_audit.open_gap', '');
COMMENT ON TABLE lead_audit.open_gap IS 'Internal: ids up to looked_to that had no visible entry when they were looked at, and whose transaction may still commit.';
COMMENT ON COLUMN lead_audit.open_gap.first_id IS 'The lowest of the ids when the gap was seen first.';
COMMENT ON COLUMN lead_audit.open_gap.seen_at IS 'When that was.';
COMMENT ON COLUMN lead_audit.open_gap.ids IS 'The ids.';
COMMENT ON COLUMN lead_audit.open_gap.in_progress IS 'The transactions that they may belong to: those in progress when they were looked at first, and still when they were last.';

CREATE TABLE lead_audit.inserted_entry (
  id bigint NOT NULL PRIMARY KEY,
  found_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
REVOKE ALL ON lead_audit.inserted_entry FROM PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('lead_audit.inserted_entry', '');
COMMENT ON TABLE lead_audit.inserted_entry IS 'Internal: ids of entries that were there before the sequence gave their ids out. Somebody put them there by hand; they are never sealed.';
COMMENT ON COLUMN lead_audit.inserted_entry.id IS 'The id.';
COMMENT ON COLUMN lead_audit.inserted_entry.found_at IS 'When the entry was found.';

CREATE FUNCTION lead_audit_internal.guard_tree() RETURNS trigger LANGUAGE c AS 'MODULE_PATHNAME', 'lead_audit_guard_tree';
REVOKE ALL ON FUNCTION lead_audit_internal.guard_tree() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.guard_tree() IS 'Keeps the state of the tree from being changed by anything but sealing. Error 42501.';

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
COMMENT ON TRIGGER append_only ON lead_audit.inserted_entry IS 'Refuses UPDATE, DELETE and TRUNCATE.';
COMMENT ON TRIGGER sealing_only ON lead_audit.tree_edge IS 'Refuses UPDATE, DELETE and TRUNCATE but for sealing.';
COMMENT ON TRIGGER sealing_only ON lead_audit.tree IS 'Refuses UPDATE, DELETE and TRUNCATE but for sealing.';
COMMENT ON TRIGGER sealing_only ON lead_audit.open_gap IS 'Refuses UPDATE, DELETE and TRUNCATE but for sealing.';
