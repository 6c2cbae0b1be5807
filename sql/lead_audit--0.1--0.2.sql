-- From 0.1 to 0.2. Written by scripts/upgrade_script.py from sql/upgrade/ and sql/*.sql: do not edit.
\echo Run "ALTER EXTENSION lead_audit UPDATE" instead of this file. \quit

-- What leads from 0.1 to 0.2 and cannot be worked out from sql/*.sql: see scripts/upgrade_script.py.

COMMENT ON COLUMN lead_audit.entry.operation IS 'INSERT, UPDATE, DELETE, TRUNCATE, SNAPSHOT (a row that was there when watching began) or DDL; of failures also MERGE, COPY, COMMIT (a deferred check of several operations) and ROLLBACK.';

COMMENT ON COLUMN lead_audit.entry.outcome IS 'ok, failed, rolled_back (what a transaction had written that was rolled back) or gap (it took place, but its entry could not be written).';

COMMENT ON COLUMN lead_audit.entry.details IS 'What only some events have: {"row_count": n} of a TRUNCATE; constraint, column and parameters of a failure; {"written": [...]} of a transaction that was rolled back.';

CREATE TABLE lead_audit.checkpoint (
  tree_size bigint NOT NULL PRIMARY KEY CHECK (tree_size > 0),
  sealed_at timestamptz NOT NULL,
  root bytea NOT NULL CHECK (pg_catalog.octet_length(root) = 32),
  entry_ids int8multirange NOT NULL,
  note text NOT NULL
);

REVOKE ALL ON lead_audit.checkpoint FROM PUBLIC;

SELECT pg_catalog.pg_extension_config_dump('lead_audit.checkpoint', '');

COMMENT ON TABLE lead_audit.checkpoint IS 'What the log has said of its tree, and when. The ids of the entries that a checkpoint added stand in ascending order in the tree.';

COMMENT ON COLUMN lead_audit.checkpoint.tree_size IS 'Leaves in the tree.';

COMMENT ON COLUMN lead_audit.checkpoint.sealed_at IS 'Wall-clock time of the sealing. Information only: it is in neither root nor note.';

COMMENT ON COLUMN lead_audit.checkpoint.root IS 'Root of the tree, RFC 6962 section 2.1.';

COMMENT ON COLUMN lead_audit.checkpoint.entry_ids IS 'Ids of the entries that were added to the tree since the checkpoint before.';

COMMENT ON COLUMN lead_audit.checkpoint.note IS 'The C2SP tlog-checkpoint as it left the database: a signed note or, without lead_audit.signing_key_file, the unsigned text.';

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

CREATE TABLE lead_audit.tree_tile (
  index bigint NOT NULL,
  level smallint NOT NULL,
  hashes bytea NOT NULL,
  PRIMARY KEY (level, index)
);

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
  last_publishing_error text
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

COMMENT ON COLUMN lead_audit.tree.publishing_errors IS 'How often a checkpoint could not be published.';

COMMENT ON COLUMN lead_audit.tree.last_publishing_error_at IS 'When that happened last.';

COMMENT ON COLUMN lead_audit.tree.last_publishing_error IS 'Why.';

INSERT INTO lead_audit.tree (awaits_restore) VALUES (pg_catalog.current_setting('row_security') OPERATOR(pg_catalog.=) 'off');

CREATE TABLE lead_audit.open_gap (
  first_id bigint NOT NULL PRIMARY KEY,
  seen_at timestamptz NOT NULL,
  ids int8multirange NOT NULL,
  in_progress bigint[] NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);

CREATE INDEX open_gap_in_progress_idx ON lead_audit.open_gap USING gin (in_progress) WITH (fastupdate = off);

REVOKE ALL ON lead_audit.open_gap FROM PUBLIC;

SELECT pg_catalog.pg_extension_config_dump('lead_audit.open_gap', '');

COMMENT ON TABLE lead_audit.open_gap IS 'Internal: ids up to looked_to that had no visible entry when they were looked at, and whose transaction may still commit.';

COMMENT ON COLUMN lead_audit.open_gap.first_id IS 'The lowest of the ids when the gap was seen first.';

COMMENT ON COLUMN lead_audit.open_gap.seen_at IS 'When that was.';

COMMENT ON COLUMN lead_audit.open_gap.ids IS 'The ids.';

COMMENT ON COLUMN lead_audit.open_gap.in_progress IS 'The transactions that they may belong to: those in progress when they were looked at first, and still when they were last.';

CREATE FUNCTION lead_audit.guard_tree() RETURNS trigger LANGUAGE c AS 'MODULE_PATHNAME', 'lead_audit_guard_tree';

REVOKE ALL ON FUNCTION lead_audit.guard_tree() FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.guard_tree() IS 'Keeps the state of the tree from being changed by anything but sealing. Error 42501.';

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON lead_audit.checkpoint
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit.refuse_change();

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON lead_audit.leaf_range
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit.refuse_change();

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON lead_audit.tree_tile
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit.refuse_change();

CREATE TRIGGER sealing_only BEFORE UPDATE OR DELETE OR TRUNCATE ON lead_audit.tree_edge
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit.guard_tree();

CREATE TRIGGER sealing_only BEFORE UPDATE OR DELETE OR TRUNCATE ON lead_audit.tree
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit.guard_tree();

CREATE TRIGGER sealing_only BEFORE UPDATE OR DELETE OR TRUNCATE ON lead_audit.open_gap
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit.guard_tree();

ALTER TABLE lead_audit.checkpoint ENABLE ALWAYS TRIGGER append_only;

ALTER TABLE lead_audit.leaf_range ENABLE ALWAYS TRIGGER append_only;

ALTER TABLE lead_audit.tree_tile ENABLE ALWAYS TRIGGER append_only;

ALTER TABLE lead_audit.tree_edge ENABLE ALWAYS TRIGGER sealing_only;

ALTER TABLE lead_audit.tree ENABLE ALWAYS TRIGGER sealing_only;

ALTER TABLE lead_audit.open_gap ENABLE ALWAYS TRIGGER sealing_only;

COMMENT ON TRIGGER append_only ON lead_audit.checkpoint IS 'Refuses UPDATE, DELETE and TRUNCATE.';

COMMENT ON TRIGGER append_only ON lead_audit.leaf_range IS 'Refuses UPDATE, DELETE and TRUNCATE.';

COMMENT ON TRIGGER append_only ON lead_audit.tree_tile IS 'Refuses UPDATE, DELETE and TRUNCATE.';

COMMENT ON TRIGGER sealing_only ON lead_audit.tree_edge IS 'Refuses UPDATE, DELETE and TRUNCATE but for sealing.';

COMMENT ON TRIGGER sealing_only ON lead_audit.tree IS 'Refuses UPDATE, DELETE and TRUNCATE but for sealing.';

COMMENT ON TRIGGER sealing_only ON lead_audit.open_gap IS 'Refuses UPDATE, DELETE and TRUNCATE but for sealing.';

CREATE OR REPLACE VIEW lead_audit.log AS
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

CREATE FUNCTION lead_audit.seal() RETURNS bigint
LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'seal_wrapper';

REVOKE ALL ON FUNCTION lead_audit.seal() FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.seal() IS 'Takes the entries of finished transactions (and those that the calling one has written so far) into the tree, writes a checkpoint, or several of many entries, and publishes it when the transaction is committed. Returns the number of leaves in the tree. The background worker does the same every lead_audit.seal_interval. Other sealing waits until the calling transaction ends; writers never do.';

CREATE FUNCTION lead_audit.inclusion_proof(id bigint, tree_size bigint DEFAULT NULL) RETURNS text
LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'inclusion_proof_wrapper';

REVOKE ALL ON FUNCTION lead_audit.inclusion_proof(bigint, bigint) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.inclusion_proof(bigint, bigint) IS 'Proof that an entry is in the tree, as a C2SP tlog-proof with the newest checkpoint, or that of tree_size. Errors: P0002 for an entry or checkpoint that there is not, 55000 for an entry that is not sealed yet, 22023 for a tree that the entry is not in.';

CREATE FUNCTION lead_audit.consistency_proof(from_size bigint, to_size bigint DEFAULT NULL) RETURNS text
LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'consistency_proof_wrapper';

REVOKE ALL ON FUNCTION lead_audit.consistency_proof(bigint, bigint) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.consistency_proof(bigint, bigint) IS 'Proof that the tree of from_size leaves has only grown into that of to_size (by default the whole tree): the hashes of RFC 6962, section 2.1.2, in base64, each on a line. Empty for equal sizes and for 0. Error 22023 for sizes that the tree has not had.';

CREATE FUNCTION lead_audit.latest_checkpoint() RETURNS text
LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'latest_checkpoint_wrapper';

REVOKE ALL ON FUNCTION lead_audit.latest_checkpoint() FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.latest_checkpoint() IS 'The newest checkpoint as it left the database: a C2SP signed note, or the unsigned text. NULL before the first.';

CREATE FUNCTION lead_audit.origin() RETURNS text
LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'origin_wrapper';

REVOKE ALL ON FUNCTION lead_audit.origin() FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.origin() IS 'The name of this log in its next checkpoint: that of the signing key, or lead_audit.origin, or lead_audit/ and the log''s id.';

CREATE FUNCTION lead_audit.verifier_key() RETURNS text
LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'verifier_key_text_wrapper';

REVOKE ALL ON FUNCTION lead_audit.verifier_key() FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.verifier_key() IS 'The public key that belongs to lead_audit.signing_key_file, as the text that verifiers take. NULL if checkpoints are not signed. Who audits gets it from elsewhere: the database is not to be trusted with it.';

COMMENT ON FUNCTION lead_audit.verify(bigint, bigint, timestamptz, timestamptz) IS 'Checks every entry and the whole tree or, with arguments, the entries with ids or times from … to … inclusive. One row for each fault: the entry''s id (NULL for what is not of one entry), the kind of fault, and what is wrong. No row: nothing was touched that can be seen from within the database. Entries that are not sealed yet are no fault. Can be cancelled; a NOTICE every few seconds says how far it is.';

COMMENT ON FUNCTION lead_audit.verify_entry(bigint) IS 'Whether the entry is as it was written and, once it is sealed, as it was sealed. False, too, for an id that does not exist.';

CREATE TABLE lead_audit.queue_position (
  queue bigint PRIMARY KEY,
  position bigint NOT NULL
);

REVOKE ALL ON lead_audit.queue_position FROM PUBLIC;

COMMENT ON TABLE lead_audit.queue_position IS 'Internal: the last record of the queue of failed operations that was written here, so that none is written twice.';

COMMENT ON COLUMN lead_audit.queue_position.queue IS 'Which life of the queue: it ends with the server.';

COMMENT ON COLUMN lead_audit.queue_position.position IS 'Number of the record.';

CREATE FUNCTION lead_audit.queue(OUT database oid, OUT database_name text, OUT queued bigint, OUT written bigint, OUT dropped bigint,
  OUT waiting bigint, OUT worker_pid integer) RETURNS SETOF record LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'queue_wrapper';

REVOKE ALL ON FUNCTION lead_audit.queue() FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.queue() IS 'What became of failed operations since the server was started, for each database with the extension: taken into the queue, written as entries, only in the server''s log (dropped), and bytes that wait; and the process that writes them. No row where the library is not preloaded.';

CREATE FUNCTION lead_audit.own_queue(OUT queued bigint, OUT written bigint, OUT dropped bigint) RETURNS SETOF record
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'own_queue_wrapper';

COMMENT ON FUNCTION lead_audit.own_queue() IS 'Internal to lead_audit.stats: the counts of lead_audit.queue() for this database.';

CREATE FUNCTION lead_audit.status(OUT part text, OUT state text, OUT reason text, OUT remedy text) RETURNS SETOF record
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'status_wrapper';

REVOKE ALL ON FUNCTION lead_audit.status() FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.status() IS 'Which parts of lead_audit are on in this database, why others are not, and what to do about it: a line for postgresql.conf, or a command.';

CREATE OR REPLACE VIEW lead_audit.stats AS
SELECT (SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END FROM lead_audit.unwritten_seq s) AS entries_not_written,
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
