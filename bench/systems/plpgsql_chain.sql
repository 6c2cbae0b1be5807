-- label: PL/pgSQL, hash chain
-- The trigger of plpgsql.sql, with checksums that form a hash chain: each checksum also covers the
-- previous checksum. The trigger takes a lock until the end of the transaction, so that two
-- entries never follow the same checksum.
\ir plpgsql.sql
CREATE FUNCTION audit.chain() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  previous bytea;
BEGIN
  PERFORM pg_advisory_xact_lock(7061644);
  SELECT l.checksum INTO previous FROM audit.log l ORDER BY l.id DESC LIMIT 1;
  NEW.checksum := sha256(coalesce(previous, '') || NEW.checksum);
  RETURN NEW;
END
$$;
CREATE TRIGGER chain BEFORE INSERT ON audit.log FOR EACH ROW EXECUTE FUNCTION audit.chain();
