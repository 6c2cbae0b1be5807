#!/bin/bash
# failure_flood.sh [SECONDS [ROUNDS]]: measures how much successful statements slow down while
# lead_audit records 10,000 failed statements a second.
#
# One session updates rows of a watched table by primary key as fast as possible, with one
# transaction for each row. Eight other sessions together cause 10,000 failed statements a second.
# The script measures intervals in turn with lead_audit.enabled on and off for the role whose
# statements fail. lead_audit records the failed statements only while lead_audit.enabled is on.
# For each interval, the script prints the successful transactions a second, the number of recorded
# failures, and the processor time of each kind of process.
#
# At the end, the script prints the ratio of the median rates. The script also prints the processor
# time that the recording of one failed statement adds, in the worker (including sealing) and in
# the failing session. The last figure is the processor time of a successful UPDATE. Other load on
# the machine affects the ratio more than the processor times.
#
# The successful session and the failing sessions run their loops in the server, so that the script
# does not measure the time of a client. With CLIENT=1, a client sends each UPDATE. With CLIENT=1,
# the result mostly depends on whether the client and the server process share a processor.
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
seconds=${1:-20} rounds=${2:-3} rate=${RATE:-10000}
"$ROOT/scripts/install.sh" >&2
dir=$TARGET/bench-flood
cluster() { "$ROOT/scripts/cluster.sh" "$@"; }
cluster remove "$dir"
trap 'cluster remove "$dir"' EXIT
cluster start "$dir" "shared_preload_libraries = 'lead_audit'" \
  "lead_audit.queue_size = '${QUEUE:-16MB}'" "max_connections = 30" \
  "log_min_messages = warning" "log_min_error_statement = panic" \
  "min_wal_size = '512MB'" ${SETTINGS:+"$SETTINGS"}
psql() { cluster psql "$dir" -XqAt -v ON_ERROR_STOP=1 -d postgres "$@"; }
psql <<'SQL'
CREATE TABLE leads (id int PRIMARY KEY, n int);
INSERT INTO leads SELECT g, 0 FROM generate_series(1, 10000) g;
CREATE EXTENSION lead_audit;
CREATE ROLE good LOGIN;
CREATE ROLE noisy LOGIN;
GRANT ALL ON leads TO good, noisy;
-- Twenty failures, each caught.
CREATE FUNCTION fail() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
  FOR i IN 1..20 LOOP
    BEGIN INSERT INTO leads VALUES (1, 1); EXCEPTION WHEN unique_violation THEN NULL; END;
  END LOOP;
END $$;
CREATE PROCEDURE succeed(count int) LANGUAGE plpgsql AS $$
  DECLARE chosen int;
BEGIN
  FOR i IN 1..count LOOP
    chosen := 1 + random() * 9999;
    UPDATE leads SET n = leads.n + 1 WHERE id = chosen;
    COMMIT;
  END LOOP;
END $$;
-- A server that has run for a while has files for its log already: making one takes others the
-- time of many commits.
DO $$ BEGIN
  FOR i IN 1..32 LOOP PERFORM pg_create_restore_point('file'), pg_switch_wal(); END LOOP;
END $$;
SQL
work=$(mktemp -d)
trap 'rm -rf "$work"; cluster remove "$dir"' EXIT
echo 'SELECT fail();' >"$work/fail.sql"
each=50
echo "CALL succeed($each);" >"$work/good.sql"
if [ "${CLIENT:-}" = 1 ]; then
  each=1
  printf '%s\n' '\set id random(1, 10000)' 'UPDATE leads SET n = n + 1 WHERE id = :id;' \
    >"$work/good.sql"
fi
export PGHOST
PGHOST=$(cluster socket "$dir")
tps() { awk -v each="$2" '/^tps = / { printf "%.0f", $3 * each }' "$1"; }
median() {
  sort -n | awk '
    { v[NR] = $1 }
    END { print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}
# processes WHERE: prints the path /proc/PID/stat of each process whose row in pg_stat_activity
# fulfils the condition WHERE.
processes() { psql -c "SELECT '/proc/' || pid || '/stat' FROM pg_stat_activity WHERE $1"; }
# used FILE...: prints the processor time of the processes with the files /proc/PID/stat in
# FILE..., in seconds.
used() {
  cat "$@" | awk -v hz="$(getconf CLK_TCK)" '
    { sub(/.*\) /, ""); sum += $12 + $13 }
    END { print sum / hz }'
}
idle() { awk -v hz="$(getconf CLK_TCK)" '$1 == "cpu" { print ($5 + $6) / hz }' /proc/stat; }
# note_used: prints four numbers of seconds. The numbers are the processor time of the worker, of
# the failing sessions and of the successful session, and the idle time of the processors.
note_used() {
  echo "$(used "${worker[@]}") $(used "${failing[@]}") $(used "${succeeding[@]}") $(idle)"
}
for round in $(seq "$rounds"); do
  for enabled in $([ $((round % 2)) = 1 ] && echo on off || echo off on); do
    psql -c "ALTER ROLE noisy SET lead_audit.enabled = $enabled" -c "CHECKPOINT"
    before=$(psql -c "SELECT written || ' ' || dropped FROM lead_audit.stats")
    "$BIN/pgbench" -n -U noisy -c 8 -j 2 -R $((rate / 20)) -T $((seconds + 2)) \
      -f "$work/fail.sql" postgres >"$work/fail.out" 2>&1 &
    sleep 1
    "$BIN/pgbench" -n -U good -c 1 -M prepared -T "$seconds" \
      -f "$work/good.sql" postgres >"$work/good.out" 2>&1 &
    sleep 1
    mapfile -t worker < <(processes "backend_type = 'lead_audit worker'")
    mapfile -t failing < <(processes "usename = 'noisy'")
    mapfile -t succeeding < <(processes "usename = 'good'")
    begin=$(note_used)
    sleep $((seconds - 2))
    end=$(note_used)
    wait
    until [ "$(psql -c "SELECT coalesce(sum(waiting), 0) FROM lead_audit.queue()")" = 0 ]; do
      sleep 0.1
    done
    after=$(psql -c "SELECT written || ' ' || dropped FROM lead_audit.stats")
    good=$(tps "$work/good.out" $each) failures=$(tps "$work/fail.out" 20)
    echo "$good" >>"$work/$enabled"
    echo "$begin $end $((seconds - 2)) $failures $good" | awk '{
      for (i = 1; i <= 4; i++) printf "%d ", ($(i + 4) - $i) / $9 * 100
      print ($5 - $1) / $9 / $10 * 1e6, ($6 - $2) / $9 / $10 * 1e6, ($7 - $3) / $9 / $11 * 1e6
    }' >"$work/used"
    read -r worker_load failing_load good_load idle worker_cost failing_cost good_cost \
      <"$work/used"
    echo "$worker_cost" >>"$work/worker-$enabled"
    echo "$failing_cost" >>"$work/failing-$enabled"
    echo "$good_cost" >>"$work/good-$enabled"
    echo "round $round, recording failures $enabled:" \
      "$good successful/s beside $failures failures/s;" \
      "written and dropped before: $before, after: $after;" \
      "percent of a processor: worker $worker_load, failing sessions $failing_load," \
      "successful session $good_load, idle $idle"
  done
done
on=$(median <"$work/on") off=$(median <"$work/off")
ratio=$(echo "$on $off" | awk '{ printf "%.3f", $1 / $2 }')
echo "median on: $on, off: $off, ratio $ratio"
for who in worker failing; do
  echo "$(median <"$work/$who-on") $(median <"$work/$who-off")" | awk -v who=$who '{
    printf "processor time for each recorded failure, %s: ", who
    printf "%.1f us (%.1f in all)\n", $1 - $2, $1
  }'
done
echo "processor time of a successful UPDATE:" \
  "$(median <"$work/good-on") us on, $(median <"$work/good-off") us off"
