-- Creates tables with columns of many types, and writes the same values to these tables in each
-- run. crates/acceptance/tests/same_checksums.rs compares the checksums of the entries between
-- PostgreSQL's major versions. Every supported version of PostgreSQL has the types of these
-- columns. No written value depends on the clock, on chance, on oids or on the machine. No column
-- has the type xml, because PostgreSQL can be built without xml.
CREATE TYPE mood AS ENUM ('glad', 'so so', 'Übel');
CREATE DOMAIN price AS numeric(20, 4) CHECK (VALUE IS NULL OR VALUE > -1e15);
CREATE TYPE address AS (street text, since timestamptz, paid money, tags text[]);
CREATE TABLE many_types (
  id integer PRIMARY KEY, b boolean, i2 smallint, i8 bigint, n numeric, n2 numeric(30, 10),
  f4 real, f8 double precision, m money, t text, vc varchar(80), ch char(12), nm name, ba bytea,
  bits bit varying, u uuid, j json, jb jsonb, d date, ts timestamp, tz timestamptz, tm time,
  tmz timetz, iv interval, ip inet, net cidr, mac macaddr, mac8 macaddr8, p point, c circle,
  bx box, r int4range, rz tstzrange, mr nummultirange, ints integer[], texts text[],
  times timestamptz[], floats double precision[], mo mood, moods mood[], pr price, a address,
  aa address[], cat regclass, lsn pg_lsn, path jsonpath, vector tsvector, query tsquery,
  dup integer GENERATED ALWAYS AS (id * 2) STORED, is_deleted boolean NOT NULL DEFAULT false,
  "Größe ""x"" 😀" text, "" text);
CREATE TABLE pairs (id text, no numeric, at timestamptz, PRIMARY KEY (no, id, at));
SELECT lead_audit.enable('many_types'), lead_audit.enable('pairs');

SET TimeZone = 'America/St_Johns'; SET DateStyle = 'Postgres, DMY';
SET IntervalStyle = 'sql_standard'; SET extra_float_digits = -15; SET bytea_output = 'escape';
SET lead_audit.user_id = 'u-ü "1"'; SET lead_audit.user_ip = '2001:db8::1';
INSERT INTO many_types VALUES
  (1, true, -32768, -9223372036854775808, 1.10, 0.1, '-0', '-0', '12345.67'::money,
   E'\u0001\t\n\r\f\b"\\/\u007f\u2028', '   ', 'padded', 'Name "x"', '\x00ff5c27', B'10110',
   'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', '{"b": 1.10, "a": [1,  2], "bb": 1e3}',
   '{"bb": 1.10, "a": {"z": [], "": null}, "é": true}', '2024-02-29', '2024-02-29 23:59:59.999999',
   '2024-03-31 02:30:00+01', '24:00', '12:34:56.7+05:45', '1 year 2 months -3 days 04:05:06.789',
   '192.0.2.7', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', '(0.1,-1e-7)',
   '<(1,2),3.5>', '(1,2),(3,4)', '[1,5)', '[2024-03-31 02:30+01,)', '{[1.10,2.50),[3,4]}',
   '{{1,2},{3,NULL}}', ARRAY['a,b', 'c"d', NULL, ''],
   ARRAY['infinity', '2024-03-31 02:30:00+01']::timestamptz[],
   ARRAY[0.1, '-0', 'NaN', 1e300]::float8[], 'Übel', '{glad,"so so"}', 1.5,
   ROW('Weg 1', '2024-07-01 12:00+02', 3.50, ARRAY['x', NULL])::address,
   ARRAY[ROW('a', 'infinity', -1, '{}')::address, NULL], 'pg_class', '16/B374D848',
   '$.a[*] ? (@ > 1.50)', 'fat:2 cat:1A', 'fat & !cat', DEFAULT, DEFAULT, 'groß', 'private'),
  (2, false, 32767, 9007199254740993, -0.000000000000000000000000000001, -1.5, 16777217,
   1.7976931348623157e308, '-0.01'::money, '😀' || chr(57344), 'x', NULL, NULL, '', B'', NULL,
   '  null ', 'null', '0044-03-15 BC', '0001-01-01 BC', 'infinity', '00:00:00.000001',
   '00:00-15:59:59', '-178000000 years', '2001:db8::1/64', NULL, NULL, NULL, '(NaN,Infinity)',
   NULL, NULL, 'empty', NULL, '{}', '[0:1]={7,8}', ARRAY[E'\\', 'é😀'], NULL, '{}', 'so so', NULL,
   NULL, ROW(NULL, NULL, NULL, NULL)::address, NULL, 4294967295, NULL, NULL, NULL, NULL, DEFAULT,
   DEFAULT, NULL, NULL),
  (3, NULL, NULL, NULL, 'NaN', 12345678901234567890.0123456789, 1e-45, 5e-324, NULL,
   repeat('long é ', 500), NULL, 'x', 'y', decode(repeat('00ff', 3000), 'hex'),
   NULL, NULL, '"\u00e9\ud83d\ude00"', '-0.0', 'infinity', '-infinity', '1883-11-18 12:00:00+00',
   NULL, NULL, '0', NULL, NULL, NULL, NULL, NULL, NULL, NULL, '(,)',
   '(2024-03-31 02:30+01,infinity]', NULL, '{}', '{}', NULL, ARRAY[1e22, 123456789.123456789,
   2/3.0::float8], NULL, '{}', -1, NULL, NULL, NULL, '0/0', '$', '', '', DEFAULT, DEFAULT, NULL,
   NULL),
  (4, true, 0, 0, 'Infinity', 0, 3.4e38, 0.1::float8 + 0.2, 0, '', '', '', '', '\x00', B'0', NULL,
   '[]', '{}', '2000-01-01', '2000-01-01', '99999-01-01 00:00+00', '00:00', '00:00+00',
   '-00:00:01.5', '0.0.0.0/0', '::/0', NULL, NULL, '(0,0)', '<(0,0),0>', '(0,0),(0,0)', '[2,2]',
   NULL, NULL, '{1}', '{NULL}', '{}', '{-Infinity,0}', 'glad', NULL, 0, NULL, '{}', 'pg_attribute',
   NULL, NULL, NULL, NULL, DEFAULT, true, '', '');
SET TimeZone = 'Asia/Kathmandu'; SET DateStyle = 'German'; SET extra_float_digits = 3;
UPDATE many_types SET tz = tz + interval '1 hour', f8 = id / 3.0::float8, n = n / 7
WHERE id IN (1, 3);
UPDATE many_types SET is_deleted = true WHERE id = 1;
UPDATE many_types SET id = 20, "Größe ""x"" 😀" = NULL, is_deleted = false WHERE id = 4;
INSERT INTO pairs VALUES ('k "1', 1.10, '2024-03-31 01:30:00+00'), ('', 0, '-infinity');
UPDATE pairs SET no = 1.100 WHERE id = '';
DELETE FROM many_types WHERE id IN (2, 3);
ALTER TABLE many_types ADD COLUMN late text DEFAULT 'later';
UPDATE many_types SET late = 'now' WHERE id = 1;
TRUNCATE pairs;
SELECT lead_audit.disable('pairs');
