-- Verification inside the database. A proof that needs no trust in it takes the entries outside: docs/FORMAT.md.
CREATE FUNCTION lead_audit.verify(from_id bigint DEFAULT NULL, to_id bigint DEFAULT NULL, from_time timestamptz DEFAULT NULL, to_time timestamptz DEFAULT NULL)
RETURNS TABLE (id bigint, fault text, detail text)
LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'verify_wrapper';
REVOKE ALL ON FUNCTION lead_audit.verify(bigint, bigint, timestamptz, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.verify(bigint, bigint, timestamptz, timestamptz) IS 'Checks every entry and the whole tree or, with arguments, the entries with ids or times from ... to ... inclusive. One row for each fault: the entry''s id (NULL for what is not of one entry), the kind of fault, and what is wrong. No row: nothing was touched that can be seen from within the database. Entries that are not sealed yet are no fault. Can be cancelled; a NOTICE every few seconds says how far it is.';

CREATE FUNCTION lead_audit.verify_entry(id bigint) RETURNS boolean
LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'verify_entry_wrapper';
REVOKE ALL ON FUNCTION lead_audit.verify_entry(bigint) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.verify_entry(bigint) IS 'Whether the entry is as it was written and, once it is sealed, as it was sealed. False, too, for an id that does not exist.';
