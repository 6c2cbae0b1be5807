#!/bin/bash
# preloaded.sh [SECONDS [ROUNDS]]: measures the cost that a preloaded library adds to successful
# statements, because the library must be ready to record failures.
#
# One session updates rows of a watched table by primary key. The session runs in turns on a server
# that preloads the library, and on a server that does not preload the library. Neither server
# seals entries. The script prints the transactions a second for each interval. At the end, the
# script prints the ratio of the two medians.
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
seconds=${1:-10} rounds=${2:-7}
"$ROOT/scripts/install.sh" >&2
cluster() { "$ROOT/scripts/cluster.sh" "$@"; }
work=$(mktemp -d)
remove() {
  rm -rf "$work"
  for kind in with without; do cluster remove "$TARGET/bench-$kind"; done
}
trap remove EXIT
printf '%s\n' '\set id random(1, 10000)' 'UPDATE leads SET n = n + 1 WHERE id = :id;' \
  >"$work/good.sql"
for kind in with without; do
  cluster remove "$TARGET/bench-$kind"
  lines=("synchronous_commit = off" "autovacuum = off")
  [ "$kind" = without ] ||
    lines+=("shared_preload_libraries = 'lead_audit'" "lead_audit.seal_interval = 0")
  cluster start "$TARGET/bench-$kind" "${lines[@]}"
  cluster psql "$TARGET/bench-$kind" -Xq -v ON_ERROR_STOP=1 -d postgres \
    -c "CREATE TABLE leads (id int PRIMARY KEY, n int)" \
    -c "INSERT INTO leads SELECT g, 0 FROM generate_series(1, 10000) g" \
    -c "CREATE EXTENSION lead_audit" -c "VACUUM ANALYZE"
done
median() {
  sort -n | awk '
    { v[NR] = $1 }
    END { print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}
for round in $(seq "$rounds"); do
  for kind in with without; do
    PGHOST=$(cluster socket "$TARGET/bench-$kind") "$BIN/pgbench" -n -U postgres -c 1 -M prepared \
      -T "$seconds" -f "$work/good.sql" postgres >"$work/out" 2>&1
    sed -n 's/^tps = \([0-9.]*\).*/\1/p' "$work/out" | tee -a "$work/$kind" |
      sed "s/^/round $round, $kind preloading: /"
  done
done
with=$(median <"$work/with") without=$(median <"$work/without")
ratio=$(echo "$with $without" | awk '{ printf "%.3f", $1 / $2 }')
echo "median with: $with, without: $without, ratio $ratio"
