#!/bin/bash
# storm.sh: runs a stress test of random concurrent sessions, called the storm. `make test-storm`
# calls this script. Sessions called writers run random statements of every kind, and change the
# tables that other writers use (storm/writers.py). sqlsmith runs at the same time. A superuser's
# session cancels and terminates sessions and workers, and rewrites the catalogs with VACUUM FULL
# (storm/chaos.py). In the last sixth of the time, the superuser's session also kills processes,
# after which the server restarts.
#
# After the storm the test checks the following conditions. The server has restarted only after
# kills. The entries agree with the logical decoding of the WAL (postgres_suites/oracle.sql).
# verify() finds no fault. Every failed statement is recorded. An entry is missing only if a lock
# timeout or a deadlock prevented its write. In this case an entry with the outcome gap, or a line
# in the server's log, stands for the missing entry.
#
#   storm.sh [SECONDS [SEED]]   SECONDS is the duration of the storm without its start and end, by
#                               default 1800. SEED is random by default. With the same seed, each
#                               session makes the same random choices, but at other times
#
# The output and the server's log stay in target/storm. If target/state exists, the output and the
# log stay in the subdirectory storm of the directory to which target/state points. If the test
# found faults, the stopped cluster stays too.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

seconds=${1:-1800} seed=${2:-$((EPOCHSECONDS % 100000))}
work=$STATE/storm
cluster=$ROOT/scripts/cluster.sh

"$ROOT/scripts/install.sh"
"$ROOT/scripts/packages.sh" pip sqlsmith
unset LEAD_AUDIT_PACKAGES_USED # so that use_private_packages finds the new packages
use_private_packages
"$ROOT/scripts/python.sh"

[ ! -e "$work/cluster" ] || "$cluster" remove "$work/cluster" # a killed run has left this
rm -rf "$work"
mkdir -p "$work/lib"
if [ ! -e "$("$BIN/pg_config" --pkglibdir)/test_decoding.so" ]; then # the server lacks contrib
  source=$("$ROOT/scripts/postgres_source.sh")
  run_logged storm-test_decoding \
    cc -O2 -fPIC -shared -w -I"$("$BIN/pg_config" --includedir-server)" \
    "$source/contrib/test_decoding/test_decoding.c" -o "$work/lib/test_decoding.so"
fi
trap '"$cluster" stop "$work/cluster"' EXIT
"$cluster" start "$work/cluster" "fsync = off" "wal_level = logical" \
  "max_prepared_transactions = 20" "lc_messages = 'C'" "max_wal_size = '4GB'" \
  "shared_preload_libraries = 'lead_audit'" "lead_audit.log_unchanged = on" \
  "deadlock_timeout = '50ms'" "autovacuum_naptime = '5s'" \
  "dynamic_library_path = '\$libdir:$work/lib'"

step "A storm of $seconds seconds, seed $seed"
status=0
PATH=$BIN:$PATH "$TARGET/venv/bin/python" "$ROOT/scripts/storm/storm.py" "$seconds" "$seed" \
  "$("$cluster" socket "$work/cluster")" "$("$cluster" log "$work/cluster")" "$work" || status=$?
cp "$("$cluster" log "$work/cluster")" "$work/server.log"
[ $status -eq 0 ] || die "the storm found faults: see $work"
trap - EXIT
"$cluster" remove "$work/cluster"
step "The storm is over, and nothing is missing."
