-- Functions that verify the log inside the database. An auditor who does not trust the database
-- verifies exported entries outside of the database (docs/FORMAT.md).
CREATE FUNCTION lead_audit.verify(
  from_id bigint DEFAULT NULL, to_id bigint DEFAULT NULL, from_time timestamptz DEFAULT NULL,
  to_time timestamptz DEFAULT NULL) RETURNS TABLE (id bigint, fault text, detail text)
  LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS 'MODULE_PATHNAME', 'verify_wrapper';
REVOKE ALL ON FUNCTION lead_audit.verify(bigint, bigint, timestamptz, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.verify(bigint, bigint, timestamptz, timestamptz) IS
  'Checks all entries and the whole tree. With arguments, checks the entries in a range of ids or '
  'times, both ends included. Returns one row for each fault: the id of the entry (NULL if the '
  'fault is not in one entry), the kind of fault, and its detail. No row means that the database '
  'shows no tampering. An entry that is not sealed yet is no fault. The check can be cancelled, '
  'and reports its progress in a NOTICE every few seconds.';

CREATE FUNCTION lead_audit.verify_entry(id bigint) RETURNS boolean
  LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS 'MODULE_PATHNAME', 'verify_entry_wrapper';
REVOKE ALL ON FUNCTION lead_audit.verify_entry(bigint) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.verify_entry(bigint) IS
  'Whether the entry is unchanged since it was written and, if it is sealed, since it was sealed. '
  'False if there is no such entry.';
