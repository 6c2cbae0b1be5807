#!/bin/bash
# demo.sh: runs the demo. `make demo`, `make psql`, `make demo-url` and `make demo-stop` call this
# script.
#
#   demo.sh run    builds and installs the extension, deletes the cluster of an earlier run, starts
#                  a new cluster in target/demo, and runs demo/walkthrough.sql
#   demo.sh psql   runs psql on the demo's cluster, interactively or with the script's standard
#                  input
#   demo.sh url    prints the connection URL of the demo's cluster
#   demo.sh stop   stops the demo's cluster
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

database=leads_demo
dir=$TARGET/demo
cluster() { "$ROOT/scripts/cluster.sh" "$@"; }
running() { cluster status "$dir" || die "the demo does not run: type 'make demo'"; }

run() {
  step "Looking for what the build needs"
  setup
  "$ROOT/scripts/install.sh"
  step "Starting a private PostgreSQL (Unix socket only) in target/demo"
  cluster remove "$dir"
  cluster start "$dir" "shared_preload_libraries = 'lead_audit'"
  cluster psql "$dir" -Xq -v ON_ERROR_STOP=1 -c "CREATE ROLE lead_app LOGIN" \
    -c "CREATE DATABASE $database OWNER lead_app"
  step "What it records (demo/walkthrough.sql)"
  # Some statements of the walkthrough raise errors on purpose. The errors go to standard output,
  # so that they appear between the results of the other statements.
  (cd "$ROOT/demo" &&
    cluster psql "$dir" -d "$database" -Xq -v ON_ERROR_STOP=1 <walkthrough.sql 2>&1)
  step "Done. The demo is still running:"
  note "make psql        opens psql on it (as its superuser);" \
    " echo 'SELECT …' | make -s psql  works too"
  note "make demo-url    prints its connection URL"
  note "make demo-stop   stops it"
}

case ${1:-} in
  run) run ;;
  psql)
    running
    if [ -t 0 ]; then exec "$ROOT/scripts/cluster.sh" psql "$dir" -d "$database"; fi
    exec "$ROOT/scripts/cluster.sh" psql "$dir" -d "$database" -Xq -v ON_ERROR_STOP=1
    ;;
  url)
    running
    cluster url "$dir" "$database"
    ;;
  stop)
    cluster stop "$dir"
    note "The demo is stopped. 'make demo' starts it again."
    ;;
  *) sed -n '2,/^source/{/^source/d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
