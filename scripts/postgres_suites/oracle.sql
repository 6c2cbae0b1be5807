-- Compares the entries with the changes that logical decoding reads from the WAL, by transaction,
-- table and operation. Prints one line for each difference that the conditions below do not
-- explain. The table held.decoded contains the changes that count_changes.py has counted.
\set QUIET on
SET client_min_messages = warning;

CREATE INDEX ON held.note (relation, at);
CREATE INDEX ON held.decoded (xid, name);
ANALYZE held.note, held.decoded;

CREATE TEMP TABLE recorded AS
SELECT e.txid::text::bigint AS xid, c.name, c.operation, count(*) AS n
FROM (
  -- An entry with the outcome gap, or a row of held.gap, stands for a row whose entry could not be
  -- written.
  SELECT txid, relation, table_schema, table_name, operation, occurred_at, details::jsonb
  FROM lead_audit.entry WHERE outcome IN ('ok', 'gap')
  UNION ALL
  SELECT txid, relation, table_schema, table_name, operation, occurred_at, NULL FROM held.gap
) e
CROSS JOIN LATERAL (
  SELECT format('%I.%I', e.table_schema, e.table_name), e.details -> 'moved_from'
) t(name, moved_from)
CROSS JOIN LATERAL (
  -- A partition move is one UPDATE entry, but a DELETE and an INSERT in the WAL.
  SELECT format('%I.%I', t.moved_from ->> 'table_schema', t.moved_from ->> 'table_name'), 'DELETE'
  WHERE t.moved_from IS NOT NULL
  UNION ALL
  SELECT t.name, CASE WHEN t.moved_from IS NOT NULL THEN 'INSERT'
                      -- The rows of CREATE TABLE AS exist before their table is watched, so each
                      -- of these rows has a SNAPSHOT entry of the baseline.
                      WHEN e.operation = 'SNAPSHOT' AND EXISTS (
                        SELECT FROM held.note h
                        WHERE h.relation = e.relation AND h.xid = e.txid AND h.watched
                      ) THEN 'INSERT'
                      ELSE e.operation END
) c(name, operation)
WHERE c.operation IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE')
  -- Temporary and unlogged tables leave no changes in the WAL. A child table of a watched table
  -- can be temporary.
  AND e.table_schema !~ '^pg_temp_'
  AND (
    SELECT h.persistence FROM held.note h
    WHERE h.relation = e.relation AND h.at <= e.occurred_at ORDER BY h.at DESC LIMIT 1
  ) IS DISTINCT FROM 'u'
GROUP BY 1, 2, 3;
CREATE INDEX ON recorded (xid);
ANALYZE recorded;

SELECT format('transaction %s, %s of %s: decoded %s, recorded %s',
              b.xid, b.operation, b.name, b.decoded, b.recorded)
FROM (SELECT xid, operation, name, coalesce(d.n, 0), coalesce(r.n, 0)
      FROM (SELECT xid, name, operation, sum(n) AS n FROM held.decoded GROUP BY 1, 2, 3) d
      FULL JOIN recorded r USING (xid, name, operation)
     ) b(xid, operation, name, decoded, recorded)
WHERE b.decoded <> b.recorded
  -- Leaves out relations that were never watched because lead_audit cannot watch them.
  AND NOT EXISTS (SELECT FROM held.note h WHERE h.name = b.name HAVING NOT bool_or(h.watched))
  -- TRUNCATE of a partitioned table has one entry, which counts the rows of all partitions.
  AND NOT (b.operation = 'TRUNCATE' AND b.recorded < b.decoded
           AND EXISTS (
             SELECT FROM held.decoded own
             JOIN held.decoded above
               ON (above.xid, above.operation, above.statement)
                 = (own.xid, own.operation, own.statement)
               AND above.name <> own.name
             JOIN held.note h ON h.name = above.name AND h.kind = 'p'
             JOIN recorded r
               ON (r.xid, r.name, r.operation) = (above.xid, above.name, above.operation)
             WHERE (own.xid, own.name, own.operation) = (b.xid, b.name, b.operation)))
ORDER BY b.xid, b.name, b.operation;

SELECT format('%s is not watched: %s', h.name, h.reason)
FROM held.note h WHERE h.reason IS NOT NULL ORDER BY h.at;
