#!/bin/bash
# failure_flood.sh [SECONDS [ROUNDS]]: what 10,000 failures a second from eight sessions cost the successful statements beside them.
#
# One session updates rows of a watched table by primary key as fast as it can, while eight others fail (pgbench, 10,000 a second in
# all), by turns with what fails being recorded and not (lead_audit.enabled, for the failing role only). Prints for each turn the
# successful transactions a second and what became of the failures, at the end the ratio of the medians.
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
seconds=${1:-20} rounds=${2:-3} rate=${RATE:-10000}
"$ROOT/scripts/install.sh" >&2
dir=$TARGET/bench-flood
cluster() { "$ROOT/scripts/cluster.sh" "$@"; }
cluster remove "$dir"
trap 'cluster remove "$dir"' EXIT
cluster start "$dir" "shared_preload_libraries = 'lead_audit'" "lead_audit.queue_size = '${QUEUE:-16MB}'" "max_connections = 30" \
  "log_min_messages = warning" "log_min_error_statement = panic" ${SETTINGS:+"$SETTINGS"}
psql() { cluster psql "$dir" -XqAt -v ON_ERROR_STOP=1 -d postgres "$@"; }
psql <<'SQL'
CREATE TABLE leads (id int PRIMARY KEY, n int);
INSERT INTO leads SELECT g, 0 FROM generate_series(1, 10000) g;
CREATE EXTENSION lead_audit;
CREATE ROLE good LOGIN;
CREATE ROLE noisy LOGIN;
GRANT ALL ON leads TO good, noisy;
-- Twenty failures, each caught, so that it is the server that is measured and not the client.
CREATE FUNCTION fail() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
  FOR i IN 1..20 LOOP
    BEGIN INSERT INTO leads VALUES (1, 1); EXCEPTION WHEN unique_violation THEN NULL; END;
  END LOOP;
END $$;
SQL
work=$(mktemp -d)
trap 'rm -rf "$work"; cluster remove "$dir"' EXIT
echo 'SELECT fail();' >"$work/fail.sql"
printf '%s\n' '\set id random(1, 10000)' 'UPDATE leads SET n = n + 1 WHERE id = :id;' >"$work/good.sql"
export PGHOST
PGHOST=$(cluster socket "$dir")
tps() { sed -n 's/^tps = \([0-9.]*\).*/\1/p' "$1"; }
median() { sort -n | awk '{ v[NR] = $1 } END { print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
for round in $(seq "$rounds"); do
  for enabled in on off; do
    psql -c "ALTER ROLE noisy SET lead_audit.enabled = $enabled" -c "CHECKPOINT"
    before=$(psql -c "SELECT written || ' ' || dropped FROM lead_audit.stats")
    "$BIN/pgbench" -n -U noisy -c 8 -j 2 -R $((rate / 20)) -T $((seconds + 2)) -f "$work/fail.sql" postgres >"$work/fail.out" 2>&1 &
    sleep 1
    "$BIN/pgbench" -n -U good -c 1 -M prepared -T "$seconds" -f "$work/good.sql" postgres >"$work/good.out" 2>&1
    wait $!
    until [ "$(psql -c "SELECT coalesce(sum(waiting), 0) FROM lead_audit.queue()")" = 0 ]; do sleep 0.1; done
    after=$(psql -c "SELECT written || ' ' || dropped FROM lead_audit.stats")
    good=$(tps "$work/good.out")
    echo "$good" >>"$work/$enabled"
    echo "round $round, recording failures $enabled: $good successful/s beside $(($(tps "$work/fail.out" | cut -d . -f 1) * 20)) failures/s; written and dropped before: $before, after: $after"
  done
done
echo "median on: $(median <"$work/on"), off: $(median <"$work/off"), ratio $(echo "$(median <"$work/on") $(median <"$work/off")" | awk '{ printf "%.3f", $1 / $2 }')"
