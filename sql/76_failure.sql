-- Objects about failed statements: the worker's position in the queue, and the counts of records.
-- The function status() lists the parts of lead_audit, and states whether each part is on.
CREATE TABLE lead_audit.queue_position (
  queue bigint PRIMARY KEY,
  position bigint NOT NULL
);
REVOKE ALL ON lead_audit.queue_position FROM PUBLIC;
COMMENT ON TABLE lead_audit.queue_position IS
  'Internal: last record of the queue that was written in this database. With it, no record is '
  'written twice.';
COMMENT ON COLUMN lead_audit.queue_position.queue IS 'Identity of the queue.';
COMMENT ON COLUMN lead_audit.queue_position.position IS 'Number of the record.';
CREATE TRIGGER own_writes_only BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE
  ON lead_audit.queue_position
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.refuse_others();
ALTER TABLE lead_audit.queue_position ENABLE ALWAYS TRIGGER own_writes_only;
COMMENT ON TRIGGER own_writes_only ON lead_audit.queue_position IS
  'Refuses writes by others than lead_audit.';

CREATE FUNCTION lead_audit.queue(
  OUT database oid, OUT database_name text, OUT queued bigint, OUT written bigint,
  OUT dropped bigint, OUT waiting bigint, OUT worker_pid integer) RETURNS SETOF record
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'queue_wrapper';
REVOKE ALL ON FUNCTION lead_audit.queue() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.queue() IS
  'Returns one row for each database with the extension: the number of failed statements since '
  'the server started (queued), how many of them are entries (written) or only in the server''s '
  'log (dropped), the bytes that wait in the queue, and the process id of the worker. Returns no '
  'row unless the library is preloaded.';

-- PUBLIC keeps EXECUTE on own_queue() and quarantined(), because the view lead_audit.stats calls
-- them as the role that reads the view. A role without USAGE on the schema lead_audit_internal
-- cannot call the two functions outside of the view.
CREATE FUNCTION lead_audit_internal.own_queue(
  OUT queued bigint, OUT written bigint, OUT dropped bigint) RETURNS SETOF record
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'own_queue_wrapper';
COMMENT ON FUNCTION lead_audit_internal.own_queue() IS
  'Returns the counts of lead_audit.queue() for this database, for lead_audit.stats.';

CREATE FUNCTION lead_audit_internal.quarantined() RETURNS bigint
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'quarantined_wrapper';
COMMENT ON FUNCTION lead_audit_internal.quarantined() IS
  'Returns the number of records of this database during which a worker died, for '
  'lead_audit.stats.';

CREATE FUNCTION lead_audit.status(OUT part text, OUT state text, OUT reason text, OUT remedy text)
  RETURNS SETOF record LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'status_wrapper';
REVOKE ALL ON FUNCTION lead_audit.status() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.status() IS
  'Returns the parts of lead_audit, whether each is on in this database, the reason if it is off, '
  'and the remedy: a line for postgresql.conf, or a command.';
