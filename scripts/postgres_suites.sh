#!/bin/bash
# postgres_suites.sh: runs PostgreSQL's regression and isolation suites with the library in the
# server. `make test-postgres` calls this script. Each suite runs in three modes:
#
#   plain       runs the suite without the library. In this mode, all differences from PostgreSQL's
#               expected output come from the machine
#   preloaded   preloads the library and creates the extension in the database
#   watched     preloads the library and creates the extension in the database. In addition, an
#               event trigger calls enable() for every table that the suite creates
#               (postgres_suites/watch.sql)
#
# A result in the mode preloaded or watched must equal the result in the mode plain.
# postgres_suites/accepted.txt lists the accepted differences with their reasons. After the run,
# the script fails if verify() finds a fault, if there is an unwritten entry, or if a server
# process has died. In the mode watched, the entries must also agree with the logical decoding of
# the WAL (postgres_suites/oracle.sql).
#
#   postgres_suites.sh                  runs both suites in all modes, and compares the results.
#                                       postgres_source.sh gets the suites
#   postgres_suites.sh prepare          copies the suites and compiles their libraries, and runs no
#                                       suite
#   postgres_suites.sh run MODE SUITE [TEST...]   runs one suite (regress or isolation) in one
#                                       mode. With TESTs, runs only the tests with these names, in
#                                       the given order
#   postgres_suites.sh compare          compares the results of the last runs, and runs no suite
#
# The script writes its output to target/postgres-suites15 (15 is the major version). If
# target/state exists, the output is in postgres-suites15 in the directory to which target/state
# points. For each mode and suite, the output directory has a subdirectory MODE/SUITE, which
# contains output/results/, run.log and server.log.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

MODES=(plain preloaded watched)
SUITES=(regress isolation)
files=$ROOT/scripts/postgres_suites
work=$STATE/postgres-suites$PG_MAJOR
cluster=$ROOT/scripts/cluster.sh

# Copies the files of both suites to a directory that the server's user can read. Compiles the C
# libraries that the suites load.
prepare() {
  local source library directory headers
  "$ROOT/scripts/install.sh"
  source=$("$ROOT/scripts/postgres_source.sh")
  [ ! -e "$work" ] || remove_clusters
  rm -rf "$work"
  mkdir -p "$work/lib"
  cp -r "$source/src/test/regress" "$source/src/test/isolation" "$work/"
  step "Compiling the libraries that the suites load"
  headers=$("$BIN/pg_config" --includedir-server)
  for library in src/test/regress/regress contrib/spi/refint contrib/spi/autoinc \
    contrib/test_decoding/test_decoding; do
    run_logged "postgres-suites-${library##*/}" \
      cc -O2 -fPIC -shared -w -DREFINT_VERBOSE -I"$headers" -I"$source/$(dirname "$library")" \
      "$source/$library.c" -o "$work/lib/${library##*/}.so"
  done
  get_psql "$source"
}

# Gets a psql for the suites, because the output of the suites depends on the version of psql. If
# the version of the server's psql differs from the version of the sources, the function downloads
# a psql with the version of the sources.
get_psql() {
  local source=$1 version package
  ln -s "$BIN/psql" "$work/psql"
  version=$(sed -n "s/^PACKAGE_VERSION='\(.*\)'/\1/p" "$source/configure")
  if [[ "$("$work/psql" --version) " != *" $version "* ]] &&
    [ "$PG_MAJOR" = "$DEBIAN_MAJOR" ]; then
    package=postgresql-client-$PG_MAJOR=$(
      dpkg-parsechangelog -l "$source/debian/changelog" -S Version 2>/dev/null || true
    )
    if (
      mkdir "$work/client" && cd "$work/client" &&
        apt-get -q -o APT::Sandbox::User= download "$package"
    ) >"$TARGET/logs/psql.log" 2>&1; then
      dpkg -x "$work"/client/*.deb "$work/client"
      ln -sfn "$work/client/usr/lib/postgresql/$PG_MAJOR/bin/psql" "$work/psql"
    fi
  fi
  step "Suites of PostgreSQL $version, $("$BIN/postgres" --version), $("$work/psql" --version)"
}

remove_clusters() {
  for directory in "$work"/*/*/cluster; do
    [ ! -e "$directory" ] || "$cluster" remove "$directory"
  done
}

# run MODE SUITE [TEST...]: runs the suite SUITE in the mode MODE, on a server of its own.
run() {
  local mode=$1 suite=$2 directory=$work/$1/$2
  local name=regression program=regress/pg_regress schedule=parallel_schedule
  local socket status=0 receiver counter programs settings=() tests=()
  shift 2
  [ "$suite" = regress ] || {
    name=isolation_regression program=isolation/pg_isolation_regress schedule=isolation_schedule
  }
  [ "$mode" = plain ] || settings+=("shared_preload_libraries = 'lead_audit'")
  # The WAL also contains UPDATEs that change no value. With lead_audit.log_unchanged, the audit
  # trail also contains these UPDATEs.
  [ "$mode" != watched ] || settings+=("lead_audit.log_unchanged = on")
  tests=("$@")
  [ $# -gt 0 ] || tests=("--schedule=$work/$suite/$schedule")

  [ ! -e "$directory/cluster" ] || "$cluster" remove "$directory/cluster"
  rm -rf "$directory"
  mkdir -p "$directory"
  # fsync is off because no data has to survive a crash of the machine. The replication slot of the
  # logical decoding needs wal_level = logical, and the suites need prepared transactions.
  "$cluster" start "$directory/cluster" "fsync = off" "wal_level = logical" \
    "max_prepared_transactions = 20" "lc_messages = 'C'" "max_wal_size = '4GB'" \
    "dynamic_library_path = '\$libdir:$work/lib'" "${settings[@]}"
  sql() { "$cluster" psql "$directory/cluster" -XqAt -v ON_ERROR_STOP=1 "$@"; }
  # Creates the database in the way that pg_regress does.
  sql -d postgres -c "CREATE DATABASE $name TEMPLATE template0 LOCALE 'C'"
  for setting in "lc_messages = 'C'" "lc_monetary = 'C'" "lc_numeric = 'C'" "lc_time = 'C'" \
    "bytea_output = 'hex'" "timezone_abbreviations = 'Default'"; do
    sql -d postgres -c "ALTER DATABASE $name SET $setting"
  done
  [ "$mode" = plain ] ||
    sql -d $name -c 'SET client_min_messages = warning' -c 'CREATE EXTENSION lead_audit'
  [ "$mode" != watched ] || sql -d $name -f "$files/watch.sql"
  mkdir "$directory/output"
  [ -z "$SERVER_USER" ] || chown "$SERVER_USER:" "$directory/output"
  socket=$("$cluster" socket "$directory/cluster")
  [ "$mode" != watched ] || start_oracle
  programs=$("$BIN/pg_config" --pgxs | sed 's#/src/makefiles/pgxs.mk##')/src/test
  # Exit code 1 means that results differ from PostgreSQL's expected output. The script accepts
  # exit code 1, because compare.py checks the differences.
  as_server env --chdir="$directory/output" "$programs/$program" \
    --inputdir="$work/$suite" --outputdir="$directory/output" --bindir="$work" \
    --dlpath="$work/lib" --use-existing --dbname=$name --host="$socket" --port=5432 \
    --user=postgres --max-concurrent-tests=20 "${tests[@]}" >"$directory/run.log" 2>&1 || status=$?
  [ $status -le 1 ] || die "$program ended with exit code $status: see $directory/run.log"

  [ "$mode" != watched ] || ask_oracle
  if [ "$mode" != plain ]; then
    sql -d $name -c 'SELECT FROM lead_audit.seal()'
    sql -d $name -c 'SET client_min_messages = warning' \
      -c 'COPY (SELECT v FROM lead_audit.verify() v) TO STDOUT' >"$directory/verify"
    sql -d $name -c 'COPY (SELECT entries_not_written FROM lead_audit.stats) TO STDOUT' \
      >"$directory/entries_not_written"
  fi
  cp "$("$cluster" log "$directory/cluster")" "$directory/server.log"
  "$cluster" remove "$directory/cluster"
}

# Starts pg_recvlogical, which decodes the changes of the suite while the suite runs. If nothing
# read the replication slot, VACUUM could not remove dead rows of the catalogs.
start_oracle() {
  sql -d "$name" -c "SELECT FROM pg_create_logical_replication_slot('oracle', 'test_decoding')"
  mkfifo "$directory/changes"
  python3 "$files/count_changes.py" <"$directory/changes" >"$directory/decoded" & counter=$!
  PGHOST=$socket PGUSER=postgres "$BIN/pg_recvlogical" -d "$name" -S oracle --start --no-loop \
    --status-interval=1 -f - -o include-xids=1 -o skip-empty-xacts=1 \
    >"$directory/changes" 2>"$directory/recvlogical.log" & receiver=$!
}

# Waits until all changes are decoded, and compares the decoded changes with the entries.
ask_oracle() {
  local end
  end=$(sql -d "$name" -c 'SELECT pg_current_wal_lsn()')
  until [ "$(sql -d "$name" -c "SELECT confirmed_flush_lsn >= '$end'
    FROM pg_replication_slots WHERE slot_name = 'oracle'")" = t ]; do
    kill -0 "$receiver" || die "pg_recvlogical has ended: see $directory/recvlogical.log"
    sleep 1
  done
  kill -INT "$receiver"
  wait "$receiver" || true
  wait "$counter"
  sql -d "$name" -c "\\copy held.decoded FROM '$directory/decoded'"
  sql -d "$name" -f "$files/oracle.sql" >"$directory/oracle"
}

compare() { python3 "$files/compare.py" "$PG_MAJOR" "$work" "$files/accepted.txt"; }

all() {
  local mode suite jobs=() job failed=
  prepare
  trap remove_clusters EXIT
  for mode in "${MODES[@]}"; do
    step "PostgreSQL $PG_MAJOR's suites, mode $mode"
    jobs=()
    # The two suites run in parallel. Together the two suites take little longer than the
    # regression suite alone, because the isolation suite mostly waits.
    for suite in "${SUITES[@]}"; do
      (run "$mode" "$suite") & jobs+=($!)
    done
    for job in "${jobs[@]}"; do wait "$job" || failed=1; done
    [ -z "$failed" ] || die "mode $mode did not run to its end"
  done
  compare
  step "PostgreSQL $PG_MAJOR's suites passed."
}

case ${1:-all} in
  all) all ;;
  prepare | run | compare) "$@" ;;
  *) sed -n '2,/^source/{/^source/d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
