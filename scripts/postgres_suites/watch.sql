-- Watches every table as soon as it exists. Each DDL command adds a row to held.note for each
-- table that it touches. The row states whether the command created a table that is now watched,
-- and whether the table is unlogged. An unlogged table leaves no changes in the WAL. A rollback of
-- the transaction that creates a table also removes the table's row in held.note.
CREATE SCHEMA held;
CREATE TABLE held.note (
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
  relation oid NOT NULL,
  name text NOT NULL,
  kind "char" NOT NULL,
  persistence "char" NOT NULL,
  watched boolean NOT NULL,
  reason text
);

-- The decoded changes of the WAL, which oracle.sql reads.
CREATE TABLE held.decoded (
  xid bigint NOT NULL,
  name text NOT NULL,
  operation text NOT NULL,
  statement bigint NOT NULL,
  n bigint NOT NULL
);

-- The row changes for which lead_audit wrote a line to the server's log instead of an entry.
-- storm.py fills this table.
CREATE TABLE held.gap (
  txid xid8 NOT NULL,
  relation oid NOT NULL,
  table_schema text NOT NULL,
  table_name text NOT NULL,
  operation text NOT NULL,
  occurred_at timestamptz NOT NULL
);

CREATE FUNCTION held.watch() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET client_min_messages = error AS $$
DECLARE
  created record;
  refused text;
BEGIN
  FOR created IN
    SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS name, c.relkind, c.relpersistence,
           bool_or(d.command_tag IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO')) AS is_new,
           bool_or(d.command_tag IN ('CREATE TABLE AS', 'SELECT INTO')) AS has_rows
    FROM pg_event_trigger_ddl_commands() d
    -- In a transaction with isolation level REPEATABLE READ, two versions of a row in pg_class can
    -- be visible: the version of the snapshot and the version that the transaction has written.
    CROSS JOIN LATERAL (
      SELECT * FROM pg_class v WHERE d.classid = 'pg_class'::regclass AND v.oid = d.objid
      ORDER BY age(v.xmin) LIMIT 1
    ) c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't'
      AND n.nspname NOT IN ('lead_audit', 'held')
    GROUP BY c.oid, n.nspname, c.relname, c.relkind, c.relpersistence
  LOOP
    refused := NULL;
    IF created.is_new AND created.relkind <> 'm' THEN
      BEGIN
        PERFORM lead_audit.enable(created.oid::regclass, baseline => created.has_rows);
      EXCEPTION WHEN OTHERS THEN
        -- In the storm, CREATE TABLE fails if the table cannot be watched.
        IF current_setting('held.refuse', true) = 'on' THEN RAISE; END IF;
        refused := format('%s %s', SQLSTATE, SQLERRM);
      END;
    END IF;
    INSERT INTO held.note (relation, name, kind, persistence, watched, reason)
    VALUES (created.oid, created.name, created.relkind, created.relpersistence,
      created.is_new AND created.relkind <> 'm' AND refused IS NULL, refused);
  END LOOP;
END
$$;
CREATE EVENT TRIGGER held_watch ON ddl_command_end EXECUTE FUNCTION held.watch();
