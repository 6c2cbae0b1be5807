-- The story that `make demo` tells: an application writes leads, the trail of who changed what, a tampered entry found.
-- Played by psql, as the superuser postgres, in an empty database that belongs to the role lead_app. Each statement is
-- shown before its result.
\set ECHO none
\pset footer off
\pset null '-'
\pset format wrapped
\pset columns 105

\echo
\echo '---- 1. An application and its table ---------------------------------------------------------------'
\echo
\echo 'The role lead_app owns the table "leads" (demo/leads.sql), with 20 rows. It is no superuser.'
\connect - lead_app
\set n 20
\i leads.sql
\set QUIET off

\echo
\echo '---- 2. A superuser switches the audit trail on ----------------------------------------------------'
\echo
\echo 'CREATE EXTENSION finds the table and watches it. The rows that are there already are written down'
\echo 'once, so that every history has a beginning. lead_app gets no rights on any of it.'
\echo
\connect - postgres
\set ECHO queries
CREATE EXTENSION lead_audit;
SELECT lead_audit.enable('leads', baseline => true) AS watch_id;
SELECT relation, row_trigger_on, truncate_trigger_on, state, soft_delete_column FROM lead_audit.watched;
SELECT operation, count(*) FROM lead_audit.log GROUP BY operation;
\set ECHO none

\echo
\echo '---- 3. The application works ----------------------------------------------------------------------'
\echo
\echo 'It says on whose behalf, as often as that changes. Maria enters two leads.'
\echo
\connect - lead_app
\set QUIET on
\set ECHO queries
SET application_name = 'lead-manager';
SET lead_audit.user_id = 'maria';
SET lead_audit.user_ip = '203.0.113.7';
SET lead_audit.user_agent = 'Firefox/140';
SET lead_audit.request_id = 'req-1001';
\set QUIET off
INSERT INTO leads (id, email, company_name, contact_name, source, created_by)
VALUES ('acme',   'jo@acme.example',    'Acme Corporation', 'Jo Kim',   'web', 'maria'),
       ('globex', 'sam@globex.example', 'Globex GmbH',      'Sam Diaz', 'fair', 'maria');
\set ECHO none

\echo
\echo 'Tom corrects one, in a transaction of his own: SET LOCAL lasts as long as that.'
\echo
\set ECHO queries
\set QUIET on
BEGIN;
SET LOCAL lead_audit.user_id = 'tom';
SET LOCAL lead_audit.user_ip = '198.51.100.23';
SET LOCAL lead_audit.request_id = 'req-1002';
\set QUIET off
UPDATE leads SET contact_name = 'Jo Kim-Park', enrichment_status = 'COMPLETED', updated_by = 'tom'
WHERE id = 'acme';
COMMIT;
\set ECHO none

\echo
\echo 'Maria again: a soft delete, a statement that changes several rows at once, and a real delete.'
\echo
\set ECHO queries
\set QUIET on
SET lead_audit.request_id = 'req-1003';
\set QUIET off
UPDATE leads SET is_deleted = true, deleted_at = now(), deleted_by = 'maria' WHERE id = 'acme';
\set QUIET on
SET lead_audit.request_id = 'req-1004';
\set QUIET off
UPDATE leads SET source = 'yelp-2024' WHERE source = 'yelp' AND is_manual;
\set QUIET on
SET lead_audit.request_id = 'req-1005';
\set QUIET off
DELETE FROM leads WHERE id = 'globex';
\set ECHO none

\echo
\echo 'She enters a lead that is there already. The statement fails, and is rolled back with all that it did:'
\echo
\set ECHO queries
\set QUIET on
SET lead_audit.request_id = 'req-1006';
\set QUIET off
\set ON_ERROR_STOP off
INSERT INTO leads (id, email, company_name, created_by) VALUES ('acme', 'sales@acme.example', 'ACME', 'maria');
\set ON_ERROR_STOP on
\set ECHO none

\echo
\echo 'The application can neither read the trail nor touch it:'
\echo
\set ECHO queries
\set ON_ERROR_STOP off
SELECT count(*) FROM lead_audit.log;
SELECT lead_audit.disable('leads');
\set ON_ERROR_STOP on
\set ECHO none

\echo
\echo '---- 4. Who changed what ---------------------------------------------------------------------------'
\echo
\echo 'user_id and user_ip are what the application said; db_session_user is what the database knows.'
\echo
\connect - postgres
\set ECHO queries
SELECT id, right(row_key ->> 'id', 6) AS lead, operation, soft_delete, user_id, user_ip, request_id,
       db_session_user
FROM lead_audit.log WHERE operation <> 'SNAPSHOT' AND outcome = 'ok' ORDER BY id;
\set ECHO none

\echo
\echo 'What failed is there too: the library was loaded when the server started (shared_preload_libraries), and a'
\echo 'background worker has written the entry that no transaction of the application could keep.'
\echo
-- The worker writes it a few milliseconds after the failure.
\set QUIET on
DO $$ BEGIN FOR i IN 1..200 LOOP EXIT WHEN (SELECT queued = written FROM lead_audit.stats); PERFORM pg_sleep(0.05); END LOOP; END $$;
\set QUIET off
\set ECHO queries
SELECT operation, error_code, error_message, row_key, details, user_id, request_id
FROM lead_audit.log WHERE outcome = 'failed';
SELECT part, state FROM lead_audit.status();
\set ECHO none

\echo
\echo 'The history of one lead:'
\echo
\set ECHO queries
SELECT id, occurred_at::timestamp(3), operation, outcome, soft_delete, user_id,
       new_values ->> 'contact_name' AS contact_name
FROM lead_audit.history('leads', 'acme');
\set ECHO none

\echo
\echo 'What changed in it, value by value:'
\echo
\set ECHO queries
SELECT h.id, h.user_id, d.key AS "column", d.value ->> 'old' AS old, d.value ->> 'new' AS new
FROM lead_audit.history('leads', 'acme') h, jsonb_each(h.diff) d ORDER BY h.id, d.key;
SELECT total, created, updated, deleted, failed, distinct_users, verified
FROM lead_audit.summary('leads', 'acme');
\set ECHO none

\echo
\echo '---- 5. Has anyone touched the trail? --------------------------------------------------------------'
\echo
\echo 'Every entry has a checksum over all that is stored of it. verify() returns one row for each fault.'
\echo
\set ECHO queries
SELECT * FROM lead_audit.verify();
\set ECHO none

\echo
\echo 'No row: nothing was touched. Now a DBA wants it to have been Maria who changed the name. Not even a'
\echo 'superuser can simply do that ...'
\echo
SELECT id AS victim FROM lead_audit.history('leads', 'acme') WHERE user_id = 'tom' \gset
\set ECHO queries
\set ON_ERROR_STOP off
UPDATE lead_audit.entry SET user_id = 'maria' WHERE id = :victim;
\set ON_ERROR_STOP on
\set ECHO none

\echo
\echo '... but one who switches the guard off first can:'
\echo
\set ECHO queries
ALTER TABLE lead_audit.entry DISABLE TRIGGER ALL;
UPDATE lead_audit.entry SET user_id = 'maria' WHERE id = :victim;
ALTER TABLE lead_audit.entry ENABLE ALWAYS TRIGGER append_only;
SELECT id, operation, user_id, user_ip, request_id FROM lead_audit.history('leads', 'acme') WHERE id = :victim;
\set ECHO none

\echo
\echo 'It looks as if Maria had done it. The checksum says otherwise:'
\echo
\set ECHO queries
SELECT * FROM lead_audit.verify();
SELECT lead_audit.verify_entry(:victim);
SELECT total, updated, distinct_users, verified FROM lead_audit.summary('leads', 'acme');
\set ECHO none

\echo
\echo '---- 6. A DBA who knows how checksums are made -----------------------------------------------------'
\echo
\echo 'A checksum beside its entry can be made anew with it. So entries are sealed (by a background worker every second'
\echo 'where the library is preloaded, here by hand): each becomes a leaf of one Merkle tree, and a checkpoint of it'
\echo 'leaves the database. Origin, number of entries, root: whoever keeps these three lines elsewhere needs no trust in'
\echo 'the database any more. (They can be signed: lead_audit.signing_key_file.)'
\echo
\set ECHO queries
SELECT lead_audit.seal() AS tree_size;
SELECT lead_audit.latest_checkpoint() AS checkpoint;
\set ECHO none

\echo
\echo 'That it was Maria who deleted the lead is to be forgotten, and this time the checksum is made to fit:'
\echo
SELECT id AS second_victim FROM lead_audit.history('leads', 'acme') WHERE soft_delete = 'deleted' \gset
\set ECHO queries
ALTER TABLE lead_audit.entry DISABLE TRIGGER ALL;
UPDATE lead_audit.entry SET user_id = 'tom' WHERE id = :second_victim;
UPDATE lead_audit.entry e SET checksum = (
  SELECT sha256(convert_to('{' || string_agg(to_json(c.key)::text || ':' || CASE
           WHEN c.key = 'occurred_at' THEN
             to_json(to_char(e.occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))::text
           WHEN c.key IN ('id', 'txid', 'relation') THEN c.value #>> '{}'
           ELSE c.value::text END, ',' ORDER BY c.key COLLATE "C") || '}', 'UTF8'))
  FROM json_each(row_to_json(e)) c WHERE c.key <> 'checksum' AND c.value::text <> 'null')
WHERE id = :second_victim;
ALTER TABLE lead_audit.entry ENABLE ALWAYS TRIGGER append_only;
SELECT id, operation, soft_delete, user_id FROM lead_audit.history('leads', 'acme') WHERE id = :second_victim;
\set ECHO none

\echo
\echo 'The entry and its checksum agree. The tree remembers:'
\echo
\set ECHO queries
SELECT * FROM lead_audit.verify();
\set ECHO none

\echo
\echo 'To change the tree as well takes new hashes up to the root, and the root is what the auditor has in his hands.'
\echo
