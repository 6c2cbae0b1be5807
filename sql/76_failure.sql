-- What failed: how far the worker is with the queue, what became of the records, and which parts of the product are on.

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

-- EXECUTE stays with PUBLIC: the view lead_audit.stats calls it as whoever reads the view. Who has no right on the schema cannot
-- name it.
CREATE FUNCTION lead_audit_internal.own_queue(OUT queued bigint, OUT written bigint, OUT dropped bigint) RETURNS SETOF record
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'own_queue_wrapper';
COMMENT ON FUNCTION lead_audit_internal.own_queue() IS 'Internal to lead_audit.stats: the counts of lead_audit.queue() for this database.';

CREATE FUNCTION lead_audit_internal.quarantined() RETURNS bigint LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'quarantined_wrapper';
COMMENT ON FUNCTION lead_audit_internal.quarantined() IS 'Internal to lead_audit.stats: how many records of this database a worker died of.';

CREATE FUNCTION lead_audit.status(OUT part text, OUT state text, OUT reason text, OUT remedy text) RETURNS SETOF record
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'status_wrapper';
REVOKE ALL ON FUNCTION lead_audit.status() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.status() IS 'Which parts of lead_audit are on in this database, why others are not, and what to do about it: a line for postgresql.conf, or a command.';
