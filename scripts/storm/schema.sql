-- Creates the tables of the storm. postgres_suites/watch.sql runs before this file, so each table
-- is watched as soon as it exists. The writers add, change and drop the columns x1 to x3, but not
-- the columns id, a and b.
CREATE ROLE writer LOGIN;
CREATE ROLE smith LOGIN;
ALTER ROLE smith SET statement_timeout = '1s';
ALTER ROLE smith SET lock_timeout = '300ms';
CREATE SCHEMA s AUTHORIZATION writer;
CREATE SCHEMA s2 AUTHORIZATION writer;
GRANT USAGE ON SCHEMA s, s2 TO smith;
ALTER DEFAULT PRIVILEGES FOR ROLE writer GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO smith;

SET ROLE writer;
CREATE TABLE s.plain_0 (id bigint PRIMARY KEY, a int, b text,
  c jsonb DEFAULT '{"a": [1, null]}', d numeric DEFAULT 1.50);
CREATE TABLE s.plain_1 (id bigint PRIMARY KEY, a int UNIQUE DEFERRABLE INITIALLY DEFERRED,
  b text CHECK (length(b) < 40000), at timestamptz DEFAULT clock_timestamp());
CREATE TABLE s.plain_2 (id bigint PRIMARY KEY, a int, b text,
  c bytea DEFAULT '\x00ff', d float8 DEFAULT 'NaN', e int[] DEFAULT '{1,NULL}');
CREATE TABLE s.nokey (id bigint, a int, b text);
CREATE UNLOGGED TABLE s.unlogged (id bigint PRIMARY KEY, a int, b text);

CREATE TABLE s.owner (id bigint PRIMARY KEY, a int, b text);
CREATE TABLE s.item (id bigint PRIMARY KEY, a int, b text,
  owner bigint REFERENCES s.owner ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE s.remark (id bigint PRIMARY KEY, a int, b text,
  item bigint REFERENCES s.item ON DELETE SET NULL ON UPDATE CASCADE
    DEFERRABLE INITIALLY DEFERRED);
CREATE INDEX ON s.item (owner);
CREATE INDEX ON s.remark (item);

CREATE TABLE s.part (id bigint PRIMARY KEY, a int, b text) PARTITION BY RANGE (id);
CREATE TABLE s.part_0 PARTITION OF s.part FOR VALUES FROM (0) TO (100);
CREATE TABLE s.part_1 PARTITION OF s.part FOR VALUES FROM (100) TO (200) PARTITION BY HASH (id);
CREATE TABLE s.part_1_0 PARTITION OF s.part_1 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE s.part_1_1 PARTITION OF s.part_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE s.part_2 PARTITION OF s.part FOR VALUES FROM (200) TO (300);
CREATE TABLE s.part_rest PARTITION OF s.part DEFAULT;
CREATE TABLE s.list (id bigint, a int, b text, PRIMARY KEY (id, a)) PARTITION BY LIST (a);
CREATE TABLE s.list_0 PARTITION OF s.list FOR VALUES IN (0, 1, 2, 3);
CREATE TABLE s.list_rest PARTITION OF s.list DEFAULT;

CREATE TABLE s.inh (id bigint, a int, b text);
CREATE TABLE s.inh_0 (PRIMARY KEY (id)) INHERITS (s.inh);
CREATE TABLE s.inh_1 (z int DEFAULT 7) INHERITS (s.inh);

-- Statements of Writer.fail fail at this table. Each of these failed statements must be recorded.
CREATE TABLE s.fixed (id bigint PRIMARY KEY);
INSERT INTO s.fixed VALUES (1);

-- The function s.work() writes a row in a block, catches an error of the block, and writes again.
CREATE FUNCTION s.work(relation text, first bigint, n int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  FOR number IN first .. first + n LOOP
    BEGIN
      EXECUTE format('INSERT INTO %s (id, a, b) VALUES ($1, $2, $3)', relation)
        USING number, (number % 7)::int, 'by a function';
      IF number % 5 = 0 THEN RAISE EXCEPTION 'undone'; END IF;
    EXCEPTION
      WHEN unique_violation OR raise_exception OR check_violation OR foreign_key_violation THEN
      EXECUTE format('UPDATE %s SET b = b || ''!'' WHERE id = $1', relation) USING number;
    END;
  END LOOP;
END
$$;
