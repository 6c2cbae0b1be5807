#!/bin/bash
# compare.sh: measures the cost of writes to a table that lead_audit audits. For comparison, the
# script also measures writes without audit, writes with PL/pgSQL triggers, and the floor
# (bench/README.md). `make bench` runs this script.
#
#   compare.sh [ARGUMENT...]   runs the comparison. --help lists the ARGUMENTs
#
# The script starts two private clusters in target/bench-compare-*, and deletes them at the end.
# One of the clusters preloads the library. The script writes the results to
# target/bench/results.md and target/bench/results.json.
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
"$ROOT/scripts/python.sh" bench/requirements.txt >&2
compare() { PYTHONPATH=$ROOT/bench "$TARGET/venv-bench/bin/python" -m compare "$@"; }
if [[ " $* " == *" --help "* ]]; then
  compare --help
  exit
fi
"$ROOT/scripts/install.sh" >&2

cluster() { "$ROOT/scripts/cluster.sh" "$@"; }
remove() {
  for kind in plain preloaded; do cluster remove "$TARGET/bench-compare-$kind" >&2; done
}
trap remove EXIT
trap 'exit 130' INT TERM
remove

# The compiler writes the library of the empty trigger to $STATE, because the server's user must be
# able to read the library.
library=$STATE/bench-empty-trigger/empty_trigger.so
mkdir -p "$(dirname "$library")" "$TARGET/bench"
cc -O2 -fPIC -shared -I"$("$BIN/pg_config" --includedir-server)" -o "$library" \
  "$ROOT/bench/empty_trigger.c"

lines=("shared_buffers = '1GB'" "max_wal_size = '16GB'" "checkpoint_timeout = '1h'"
  "autovacuum = off" "jit = off" "max_connections = 60")
cluster start "$TARGET/bench-compare-plain" "${lines[@]}"
cluster start "$TARGET/bench-compare-preloaded" "${lines[@]}" \
  "shared_preload_libraries = 'lead_audit'"

compare --bin "$BIN" --library "$library" --output "$TARGET/bench" \
  --plain "$(cluster socket "$TARGET/bench-compare-plain")" \
  --preloaded "$(cluster socket "$TARGET/bench-compare-preloaded")" "$@"
