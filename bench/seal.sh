#!/bin/bash
# seal.sh: measures the times of sealing, verify() and proofs, on a private cluster in
# target/bench-seal.
#
#   seal.sh [ENTRIES]   ENTRIES is the number of entries, by default 1000000
#
# The script prints a Markdown table. For comparison with verify(), the script measures
# PostgreSQL's sha256() over about as many bytes as the preimages of the entries have. The time of
# a single call is the median of 201 calls.
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
setup
"$ROOT/scripts/install.sh" >&2
entries=${1:-1000000}
dir=$TARGET/bench-seal
cluster() { "$ROOT/scripts/cluster.sh" "$@"; }
trap 'cluster remove "$dir" >&2' EXIT
cluster remove "$dir" >&2
cluster start "$dir" "fsync = off" "shared_buffers = '512MB'" "max_wal_size = '8GB'" \
  "autovacuum = off" "jit = off" >&2
sql() { cluster psql "$dir" -d postgres -XqAt -v ON_ERROR_STOP=1 "$@"; }

# seconds STATEMENT: runs the statement and prints its duration in seconds, as psql measures it.
seconds() {
  sql -c '\timing on' -c "$1" | sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p' |
    awk '{ printf "%.3f", $1 / 1000 }'
}
row() { printf '| %s | %s | %s |\n' "$1" "$2" "$3"; }
per() {
  awk -v n="$1" -v s="$2" \
    'BEGIN { printf "%.2f µs an entry, %.0f entries/s", s / n * 1e6, n / s }'
}
# multiple FORMAT A B: prints A / B. FORMAT is a format string of printf.
multiple() { awk -v format="$1" -v a="$2" -v b="$3" 'BEGIN { printf format, a / b }'; }

sql >&2 <<'SQL'
CREATE TABLE leads (
  id text PRIMARY KEY, email text, domain text, company_name text, contact_name text,
  enrichment_status text, is_manual boolean, is_deleted boolean DEFAULT false, source text,
  created_by text, created_at timestamp DEFAULT now());
CREATE EXTENSION lead_audit;
SQL
# lead_rows KEY COUNT: prints the statement that inserts COUNT leads. KEY is an SQL expression that
# computes the key of a lead from its number g.
lead_rows() {
  cat <<SQL
INSERT INTO leads
SELECT md5($1), 'contact' || g || '@example.com', 'example' || g || '.com',
  'Example Company ' || g || ' Holdings Ltd.', 'Contact Person ' || g, 'PENDING', true, false,
  'web', 'user-' || g % 50
FROM generate_series(1, $2) g
SQL
}
write() { sql -c "$(lead_rows "$1::text || g" "$2")" >&2; }

step "Writing $entries entries" >&2
printf '| what | | time |\n| --- | --- | --- |\n'
s=$(seconds "$(lead_rows 'g::text' "$entries")")
row "write $entries entries, one statement, one session" "$s s" "$(per "$entries" "$s")"
sql -c 'VACUUM ANALYZE lead_audit.entry' >&2
bytes=$(sql -c '
  SELECT sum(length(row_values::text) + length(row_key::text)) FROM lead_audit.entry')
sql -c 'SELECT count(*) FROM lead_audit.entry WHERE checksum IS NULL' >&2 # into memory
s=$(seconds 'SELECT lead_audit.seal()')
row "seal them" "$s s" "$(per "$entries" "$s")"
pid_memory=$(sql -c "SELECT lead_audit.seal()" \
  -c "SELECT pg_size_pretty(sum(total_bytes)) FROM pg_backend_memory_contexts" | tail -n 1)
row 'memory of a session that has sealed' "$pid_memory" ''

step "Verifying" >&2
v=$(seconds 'SELECT count(*) FROM lead_audit.verify()')
row 'verify(), entries and tree' "$v s" "$(per "$entries" "$v")"
preimage="convert_to(repeat('x', 400) || row_values::text || row_key::text, 'UTF8')"
hash=$(seconds "SET max_parallel_workers_per_gather = 0;
  SELECT count(*) FILTER (WHERE sha256($preimage) IS NULL) FROM lead_audit.entry")
row 'SELECT … sha256(…) over about as many bytes in SQL' "$hash s" \
  "$(multiple 'verify() is %.2f times that' "$v" "$hash")"
row 'bytes of JSON' "$bytes" ''
half=$(sql -c 'SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY id) FROM lead_audit.entry')
halves=$(
  began=$(date +%s.%N)
  sql -c "SELECT count(*) FROM lead_audit.verify(NULL, $half)" >/dev/null &
  sql -c "SELECT count(*) FROM lead_audit.verify($half + 1)" >/dev/null
  wait
  date +%s.%N | awk -v b="$began" '{ printf "%.3f", $1 - b }'
)
row 'verify() of two halves in two sessions' "$halves s" \
  "$(multiple '%.2f times that of verify() in one' "$halves" "$v")"

step "Ticks and proofs over tree sizes" >&2
# median STATEMENT: runs the statement 201 times in one session, and prints the median time in
# milliseconds.
median() {
  sql -c "CREATE OR REPLACE FUNCTION pg_temp.median(statement text) RETURNS numeric
    LANGUAGE plpgsql AS \$\$
    DECLARE began timestamptz; times float[];
    BEGIN
      FOR i IN 1 .. 201 LOOP
        began := clock_timestamp();
        EXECUTE statement;
        times := times || extract(epoch FROM clock_timestamp() - began)::float;
      END LOOP;
      RETURN round((1000 * (
        SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY t) FROM unnest(times) t))::numeric, 3);
    END \$\$" \
    -c "SELECT pg_temp.median(\$m\$ $1 \$m\$)" | tail -n 1
}
row 'seal() with nothing to seal' "$(median 'SELECT lead_audit.seal()') ms" 'median of 201'
size=$entries
for _ in 1 2 3; do
  id="(SELECT first_id + (random() * (last_id - first_id))::bigint
    FROM lead_audit.leaf_range ORDER BY first_id LIMIT 1)"
  row "inclusion_proof() in a tree of $size" \
    "$(median "SELECT lead_audit.inclusion_proof($id)") ms" 'median of 201'
  smaller="1 + (random() * ($size - 1))::bigint"
  row "consistency_proof() in a tree of $size" \
    "$(median "SELECT lead_audit.consistency_proof($smaller)") ms" 'median of 201'
  write "$size" 10000
  row "seal 10000 entries on top of $size" "$(seconds 'SELECT lead_audit.seal()') s" ''
  size=$((size + 10000))
  [ "$size" -lt $((entries * 3)) ] || break
  write "$((size + 7))" "$entries"
  sql -c 'SELECT lead_audit.seal()' >&2
  size=$((size + entries))
done

step "A transaction that stays open" >&2
sql -c "BEGIN; INSERT INTO leads (id) SELECT 'open' || g FROM generate_series(1, 100000) g;
  SELECT pg_sleep(25)" >/dev/null 2>&1 &
sleep 5
sql -c 'SELECT lead_audit.seal()' >&2
row 'seal() while a transaction with 100000 entries is open' \
  "$(median 'SELECT lead_audit.seal()') ms" 'median of 201'

step "Writers and the worker" >&2
# For the last measurement, eight sessions write as fast as possible, 100 rows in each transaction.
# During these writes, the worker seals once a second.
cluster stop "$dir" >&2
cluster start "$dir" "fsync = off" "shared_buffers = '512MB'" "max_wal_size = '8GB'" "jit = off" \
  "shared_preload_libraries = 'lead_audit'" >&2
sql -c 'SELECT lead_audit.seal()' >&2
writer=$(mktemp)
trap 'rm -f "$writer"; cluster remove "$dir" >&2' EXIT
echo "INSERT INTO leads (id, email)" \
  "SELECT gen_random_uuid(), 'contact' || g || '@example.com' FROM generate_series(1, 100) g;" \
  >"$writer"
before=$(sql -c 'SELECT tree_size FROM lead_audit.stats')
PGHOST=$(cluster socket "$dir") \
  "$BIN/pgbench" -n -U postgres -c 8 -j 2 -T 20 -f "$writer" postgres >/dev/null 2>&1 &
lags=()
while kill -0 $! 2>/dev/null; do
  lags+=("$(sql -c "
    SELECT coalesce(extract(epoch FROM seal_lag), 0)::numeric(8, 2) FROM lead_audit.stats")")
  sleep 0.5
done
until [ "$(sql -c 'SELECT unsealed_entries FROM lead_audit.stats')" = 0 ]; do sleep 0.1; done
written=$(($(sql -c 'SELECT tree_size FROM lead_audit.stats') - before))
longest=$(printf '%s\n' "${lags[@]}" | sort -n | tail -n 1)
middle=$(printf '%s\n' "${lags[@]}" | sort -n |
  awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }')
row 'eight sessions write for 20 s, the worker seals each second' "$((written / 20)) entries/s" \
  "oldest unsealed entry at most $longest s old, median $middle s"
