#!/bin/bash
# test.sh: runs the tests. `make test` calls this script.
#
#   test.sh             runs all tests: the unit and property tests, the in-database tests, the
#                       acceptance tests, and the tests of the verifier, of the Python client and
#                       of the example
#   PG=17 test.sh       downloads PostgreSQL 17. Runs the lints, the in-database tests and the
#                       acceptance tests with PostgreSQL 17. All other tests do not depend on the
#                       version of the server
#   test.sh named NAME  runs the tests of any kind with NAME in their name. `make test NAME=...`
#                       runs this command
#   test.sh majors      runs `test.sh` with each supported major version of PostgreSQL
#   test.sh crates      runs only the tests of crates/, without a server
#   test.sh pgrx [NAME...]   runs only the in-database tests (pgrx-tests/). With NAMEs, runs only
#                       the tests with a NAME in their name
#   test.sh acceptance [ARGUMENT...]   runs only the tests of crates/acceptance, with the release
#                       build. The ARGUMENTs go to cargo test
#   test.sh upgrade     runs the test of pg_upgrade from PostgreSQL 15 to 17. `test.sh` without
#                       arguments does not run this test
#   test.sh released    runs the test of the update from version 1.0. The script builds version 1.0
#                       from its commit. `test.sh` without arguments does not run this test
#   test.sh verifier    runs only the tests of verifiers/python, without a server
#   test.sh python [ARGUMENT...]   runs only the tests of clients/python and docs/clients.md. The
#                       ARGUMENTs go to pytest
#   test.sh example [ARGUMENT...]   runs only the tests of examples/leads-api. The ARGUMENTs go to
#                       pytest
#
# `cargo pgrx test` runs the in-database tests. `cargo pgrx test` creates a new cluster and starts
# the cluster's server. The server of this cluster listens on a free port of localhost, because
# pgrx connects over TCP.
#
# The acceptance tests start the server of the pg_config in LEAD_AUDIT_PG_CONFIG, with clusters in
# the directory LEAD_AUDIT_STATE_DIR.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
setup
cd "$ROOT"

# named NAME: runs the tests with NAME in their name. Compiles and runs only the suites that
# contain a test with NAME in its name.
named() {
  local name=${1:-} found=0 files
  [[ $name =~ ^[A-Za-z0-9_]+$ ]] || die "make test NAME=part_of_a_name"
  has() { grep -rqE "$1" --include="$2" "${@:3}" && found=1; }
  if has "fn \w*$name" '*.rs' crates/cli crates/export crates/ledger; then
    step "Unit and property tests: $name"
    cargo test -p cli -p export -p ledger -- "$name"
  fi
  if has "fn \w*$name" '*.rs' pgrx-tests src; then pgrx "$name"; fi
  if has "fn \w*$name" '*.rs' crates/acceptance/tests; then
    # Runs only the acceptance tests' programs that contain a test with NAME in its name. The
    # program FILE consists of crates/acceptance/tests/FILE.rs, or of the files in
    # crates/acceptance/tests/FILE/.
    mapfile -t files < <(cd crates/acceptance/tests && grep -rlE "fn \w*$name" --include='*.rs' . |
      sed 's|^\./||; s|/.*||; s|\.rs$||' | sort -u)
    acceptance "${files[@]/#/--test=}" -- "$name"
  fi
  if has "def test\w*$name" '*.py' clients/python/tests; then python -k "$name"; fi
  if has "def test\w*$name" '*.py' examples/leads-api/tests; then example -k "$name"; fi
  [ $found -eq 1 ] || die "no test has $name in its name"
}

crates() {
  local crate arguments=()
  for crate in crates/*/; do
    crate=$(basename "$crate")
    [ "$crate" = acceptance ] || arguments+=(-p "$crate")
  done
  step "Unit and property tests: cargo test ${arguments[*]}"
  cargo test --no-fail-fast "${arguments[@]}"
}

verifier() {
  step "The verifier in Python: unittest"
  (cd verifiers/python && python3 -B -m unittest discover -s tests)
}

pgrx() {
  local clusters=$STATE/test-pgdata$PG_MAJOR arguments=()
  # The directory $clusters contains the socket of the server, and the path of a socket must be
  # short.
  if [ ${#clusters} -gt 85 ]; then
    clusters=$(mktemp -d /tmp/lead_audit-XXXXXX)
    # shellcheck disable=SC2064 # clusters is gone when the trap runs
    trap "rm -rf '$clusters'" EXIT
  fi
  rm -rf "$clusters" # a killed run can have left this
  mkdir -m 0700 "$clusters"
  if [ -n "$SERVER_USER" ]; then
    chown "$SERVER_USER:" "$clusters"
    arguments=(--runas "$SERVER_USER")
    PATH=$TOOLS/sudo:$PATH
  fi
  if [ $# -le 1 ]; then
    step "In-database tests: cargo pgrx test pg$PG_MAJOR ${1:-}"
    cargo pgrx test "${arguments[@]}" --pgdata "$clusters" "pg$PG_MAJOR" "$@"
  else
    # `cargo pgrx test` accepts only one name. With several names, the function runs the command
    # that `cargo pgrx test` itself runs.
    step "In-database tests: cargo test $*"
    env ${SERVER_USER:+CARGO_PGRX_TEST_RUNAS="$SERVER_USER"} CARGO_PGRX_TEST_PGDATA="$clusters" \
      PGRX_BUILD_PROFILE=dev PGRX_NO_SCHEMA=false PGRX_ALL_FEATURES=false \
      PGRX_NO_DEFAULT_FEATURES=true PGRX_FEATURES="pg$PG_MAJOR pg_test" \
      cargo test --no-default-features --features "pg$PG_MAJOR pg_test" -p lead_audit -- "$@"
  fi
}

acceptance() {
  [ -d crates/acceptance ] || return 0
  "$ROOT/scripts/install.sh"
  "$ROOT/scripts/python.sh"
  "$ROOT/scripts/packages.sh" pgbouncer
  use_private_packages
  step "The lead-audit command: cargo build -p cli"
  cargo build -p cli
  step "Acceptance tests: cargo test -p acceptance"
  rm -rf "$STATE/acceptance" # a killed run can have left this
  LEAD_AUDIT_PG_CONFIG=$BIN/pg_config LEAD_AUDIT_STATE_DIR=$STATE/acceptance \
    LEAD_AUDIT_PYTHON=$TARGET/venv/bin/python \
    LEAD_AUDIT_COMMAND=$CARGO_TARGET_DIR/debug/lead-audit \
    cargo test --no-fail-fast -p acceptance "$@"
}

# Runs clippy for the chosen version of PostgreSQL, because some code is compiled for one version
# only.
lints() {
  step "Lints with PostgreSQL $PG_MAJOR: cargo clippy -p lead_audit"
  cargo clippy -p lead_audit --all-targets "${PG_FEATURES[@]}" -- -D warnings
}

majors() {
  local major
  for major in "${MAJORS[@]}"; do
    step "PostgreSQL $major"
    PG=$major "$ROOT/scripts/test.sh"
  done
  step "All tests passed with PostgreSQL ${MAJORS[*]}."
}

upgrade() {
  PG=17 "$ROOT/scripts/install.sh"
  LEAD_AUDIT_NEXT_PG_CONFIG=$STATE/pg17/usr/lib/postgresql/17/bin/pg_config \
    acceptance --test pg_upgrade -- --ignored
}

python() { "$ROOT/scripts/test_python.sh" "$@"; }

example() { "$ROOT/scripts/example.sh" test "$@"; }

# Builds version 1.0 in target/released and copies a server for the test. Then runs the test, which
# installs version 1.0 into the copied server.
released() {
  local commit=7aa8e60 work=$TARGET/released package=$STATE/released-1.0
  local server=$STATE/pg$PG_MAJOR-released
  if [ ! -d "$package" ]; then
    step "Building lead_audit 1.0 ($commit)"
    rm -rf "$work" && mkdir -p "$work/source" "$package.new"
    git archive "$commit" | tar x -C "$work/source" ||
      die "commit $commit, version 1.0, is not in this clone: git fetch --unshallow"
    (cd "$work/source" && CARGO_TARGET_DIR=$work/target \
      run_logged released cargo pgrx package --out-dir "$work/package" \
      --pg-config "$BIN/pg_config" "${PG_FEATURES[@]}")
    mkdir "$package.new/lib" "$package.new/extension"
    find "$work/package" -name lead_audit.so -exec cp {} "$package.new/lib" \;
    find "$work/package" -path '*/extension/*' -exec cp {} "$package.new/extension" \;
    mv "$package.new" "$package"
    rm -rf "$work"
  fi
  rm -rf "$server"
  cp -a "$PREFIX" "$server"
  LEAD_AUDIT_RELEASED_PACKAGE=$package \
    LEAD_AUDIT_RELEASED_PG_CONFIG=$server/${BIN#"$PREFIX/"}/pg_config \
    acceptance --test released_library -- --ignored
}

case ${1:-all} in
  all)
    # shellcheck disable=SC2119 # all of their tests
    if [ "$PG_MAJOR" = "$DEBIAN_MAJOR" ]; then
      crates
      verifier
      pgrx
      acceptance
      python
      example
    else
      lints
      pgrx
      acceptance
    fi
    step "All tests with PostgreSQL $PG_MAJOR passed."
    ;;
  crates | verifier | lints | majors | upgrade | released) "$1" ;;
  named | pgrx | acceptance | python | example) "$@" ;;
  *) sed -n '2,/^source/{/^source/d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
