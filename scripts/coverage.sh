#!/bin/bash
# coverage.sh: measures which lines of the extension and of crates/ the tests run. `make coverage`
# calls this script. The script writes the percentages of the folders to
# target/coverage/summary.txt. The script writes the covered lines to
# target/coverage/html/index.html and target/coverage/lcov.info.
#
#   coverage.sh               measures the unit tests, the in-database tests, and the acceptance
#                             tests that ACCEPTANCE lists
#   coverage.sh crates        measures only the unit tests. Keeps the counters of earlier runs
#   coverage.sh in_database   measures only the in-database tests. Keeps the counters of earlier
#                             runs
#   coverage.sh acceptance    measures only the acceptance tests. Keeps the counters of earlier
#                             runs
#   coverage.sh report        makes only the report, from the counters of earlier runs
#
# The script compiles the measured code with -C instrument-coverage. The script does not measure
# dependencies. Most of the measured code runs in server processes. A process writes its counters
# when it calls exit(). A killed process writes no counters. A process that ends with _exit() in an
# immediate shutdown writes no counters either. So each test stops its server in the mode "fast",
# and the script leaves out tests of crashes. Lines of test code do not count.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
setup
cd "$ROOT"

# The acceptance tests whose coverage the script measures. Unlike the in-database tests, these
# tests preload the library and use real clients. The script skips the one test of queue_flood that
# kills servers.
ACCEPTANCE=(failed_operations unwritable_log rejected_rows queue_flood seal_beside_writers
  checkpoints library_loading two_phase standby application_role multi_session_writes
  changed_entry_columns upgrade lead_audit_command lead_audit_keys lead_audit_page
  lead_audit_witness)

out=$TARGET/coverage
profiles=$STATE/coverage-profiles # the server's user writes to this directory
objects=$out/objects

# ---- the LLVM tools that fit rustc --------------------------------------------------------------

find_llvm() {
  local version dir
  version=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
  for dir in "$(rustc --print sysroot)"/lib/rustlib/*/bin "/usr/lib/llvm-$version/bin"; do
    if [ -x "$dir/llvm-cov" ] && [ -x "$dir/llvm-profdata" ]; then LLVM=$dir && return; fi
  done
  [ "${1:-}" != again ] && [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null ||
    die "llvm-cov of LLVM $version is missing. Install it:" \
      "rustup component add llvm-tools, or apt-get install llvm-$version"
  step "Installing Debian's llvm-$version"
  local apt=(env DEBIAN_FRONTEND=noninteractive
    apt-get -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
  run_logged apt-update "${apt[@]}" update
  run_logged apt-llvm "${apt[@]}" install --no-install-recommends "llvm-$version"
  find_llvm again
}

# ---- running the tests --------------------------------------------------------------------------

instrument() {
  mkdir -p "$out"
  cat >"$out/rustc" <<'WRAPPER'
#!/bin/sh
# Applies to the crates of this workspace only (RUSTC_WORKSPACE_WRAPPER). The linker adds LLVM's
# runtime.
exec "$@" -C instrument-coverage
WRAPPER
  chmod +x "$out/rustc"
  export RUSTC_WORKSPACE_WRAPPER=$out/rustc CARGO_INCREMENTAL=0
  # %4m means that all processes of a program share four files. Each process adds its counters to
  # one of these files.
  export LLVM_PROFILE_FILE=$profiles/%4m.profraw
  mkdir -p "$objects" "$profiles"
  chmod 0777 "$profiles"
}

# keep NAME FILE: keeps a copy of the measured binary FILE, because a later build would overwrite
# FILE.
keep() { cp "$2" "$objects/$1"; }

# Prints the paths of the test programs of the packages in the arguments. The paths come from
# cargo's JSON messages.
test_programs() {
  cargo test --no-run --message-format=json "$@" 2>/dev/null |
    python3 -c 'import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message["profile"]["test"]:
        print(message["executable"])'
}

run_crates() {
  local program number=0
  step "Unit and property tests"
  "$ROOT/scripts/test.sh" crates >"$out/crates.log" 2>&1 ||
    { tail -n 40 "$out/crates.log"; die "tests of crates/ failed"; }
  for program in $(test_programs -p ledger -p export -p cli); do
    number=$((number + 1))
    keep "crate-$number" "$program"
  done
}

run_in_database() {
  step "In-database tests"
  local pg_config=$TEST_PREFIX/usr/lib/postgresql/$PG_MAJOR/bin/pg_config
  "$ROOT/scripts/test.sh" pgrx >"$out/pgrx.log" 2>&1 ||
    { tail -n 60 "$out/pgrx.log"; die "in-database tests failed"; }
  keep in-database "$("$pg_config" --pkglibdir)/lead_audit.so"
}

run_acceptance() {
  local prefix=$STATE/pg$PG_MAJOR-coverage bin test arguments=()
  step "Acceptance tests: ${ACCEPTANCE[*]}"
  rm -rf "$prefix"
  cp -a "$PREFIX" "$prefix"
  bin=$prefix/usr/lib/postgresql/$PG_MAJOR/bin
  run_logged coverage-install cargo pgrx install --pg-config "$bin/pg_config" "${PG_FEATURES[@]}"
  cp "$ROOT"/sql/released/lead_audit--*.sql "$("$bin/pg_config" --sharedir)/extension/"
  run_logged coverage-cli cargo build -p cli
  "$ROOT/scripts/python.sh"
  "$ROOT/scripts/packages.sh" pgbouncer
  use_private_packages
  for test in "${ACCEPTANCE[@]}"; do arguments+=(--test "$test"); done
  rm -rf "$STATE/acceptance"
  LEAD_AUDIT_STOP_MODE=fast LEAD_AUDIT_PG_CONFIG=$bin/pg_config \
    LEAD_AUDIT_STATE_DIR=$STATE/acceptance LEAD_AUDIT_PYTHON=$TARGET/venv/bin/python \
    LEAD_AUDIT_COMMAND=$TARGET/debug/lead-audit \
    cargo test --no-fail-fast -p acceptance "${arguments[@]}" -- --skip whatever_is_killed \
    >"$out/acceptance.log" 2>&1 ||
    note "some acceptance tests failed: their lines count as far as they came;" \
      "see $out/acceptance.log"
  keep acceptance "$("$bin/pg_config" --pkglibdir)/lead_audit.so"
  keep lead-audit "$TARGET/debug/lead-audit"
  rm -rf "$prefix"
}

# ---- the report ---------------------------------------------------------------------------------

report() {
  local object first='' arguments=()
  local tests='/pgrx-tests/|/tests/|/tests\.rs$|/benches/|/acceptance/'
  step "Report"
  "$LLVM/llvm-profdata" merge -sparse "$profiles"/*.profraw -o "$out/merged.profdata"
  for object in "$objects"/*; do
    if [ -z "$first" ]; then first=$object; else arguments+=(-object "$object"); fi
  done
  arguments+=(-instr-profile "$out/merged.profdata"
    -ignore-filename-regex "/\.cargo/|/rustc/|$tests|/target/")
  "$LLVM/llvm-cov" export "$first" "${arguments[@]}" -format lcov \
    2>"$out/llvm-cov.log" >"$out/all.lcov"
  rm -rf "$out/html"
  "$LLVM/llvm-cov" show "$first" "${arguments[@]}" -format html -output-dir "$out/html" \
    2>>"$out/llvm-cov.log"
  "$ROOT/scripts/coverage_summary.py" "$ROOT" "$out/all.lcov" "$out/lcov.info" |
    tee "$out/summary.txt"
}

find_llvm
case ${1:-all} in
  all)
    rm -rf "$profiles" "$objects"
    instrument
    run_crates
    run_in_database
    run_acceptance
    ;;
  crates | in_database | acceptance) instrument && "run_$1" ;;
  report) ;;
  *) sed -n '2,/^source/{/^source/d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
report
