#!/bin/bash
# assertions.sh: runs the in-database tests on a PostgreSQL that is built with --enable-cassert.
# `make test-assertions` calls this script. The script builds the server from Debian's sources
# (postgres_source.sh). Then the script runs some of the tests again with debug_discard_caches = 1.
# With debug_discard_caches = 1, PostgreSQL discards its caches at every opportunity, so a test
# fails if the library uses a stale cache entry.
#
#   assertions.sh           runs all in-database tests, and then runs the tests of the list
#                           "discarding" with debug_discard_caches = 1
#   assertions.sh all       runs all in-database tests once, without debug_discard_caches
#   assertions.sh discard   runs only the tests of the list "discarding", with
#                           debug_discard_caches = 1
#   assertions.sh names     checks that each test of the list "discarding" exists. Runs no test
#
# The script puts the server, and the extension for this server, in target/assertions15 (15 is the
# major version). The script changes no file of another build.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

work=$TARGET/assertions$PG_MAJOR
server=$work/server

# The names of the tests that run with debug_discard_caches = 1. These tests cover each part of the
# library that caches facts about a relation. With debug_discard_caches = 1, a run of all
# in-database tests would take hours.
discarding=(
  row_changes::tests::pg_insert_update_delete
  row_changes::tests::pg_soft_delete_and_restore
  row_changes::tests::pg_upsert_merge_and_writing_ctes
  row_changes::tests::pg_foreign_key_actions
  row_changes::tests::pg_truncate_of_several_tables_and_cascade
  context::tests::pg_changed_within_one_statement
  row_keys::tests::pg_renamed_key_column
  entry_order::tests::pg_after_row_trigger_that_updates_the_same_row
  rollback::tests::pg_nested_blocks
  partitions::tests::pg_row_that_moves_is_an_update
  partitions::tests::pg_attached_created_and_detached
  partitions::tests::pg_child_tables_are_watched_with_their_parent
  ddl_guard::tests::pg_disabled_trigger
  ddl_guard::tests::pg_renamed_table
  ddl_guard::tests::pg_dropped_table
  enable::tests::pg_baseline_of_a_partitioned_table
  on_error::tests::pg_column_of_another_type
  on_error::tests::pg_cast_to_json
  writer::tests::pg_added_indexes_contain_the_entries
  values::tests::pg_columns_dropped_added_renamed_and_retyped
  sealing::tests::pg_makes_one_leaf_of_each_entry
  changed_entries::tests::pg_verify_a_range
  changed_tree::tests::pg_range_checks_entries_and_leaves
  sql_statements::tests::pg_views_rules_and_instead_of
)

# The files of acceptance tests that run with debug_discard_caches = 1. The setting applies to the
# sessions that the tests open with Cluster::examined. In every other session it would take minutes
# to create the extension.
preloaded=(
  ddl_nested
  foreign_tables
  rejected_rows
)

# Checks that each test of the list "discarding" exists. Without this check, a renamed test would
# not run, because cargo ignores a name that selects no test.
names() {
  local test file
  for test in "${discarding[@]}"; do
    file=pgrx-tests/${test%%::*}.rs
    grep -q "fn ${test##*::pg_}(" "$ROOT/$file" || die "assertions.sh: $file has no test $test"
  done
}

build_server() {
  local source
  [ ! -e "$server/bin/postgres" ] || return 0
  source=$("$ROOT/scripts/postgres_source.sh")
  step "Building PostgreSQL $PG_MAJOR with assertions (about 6 minutes)"
  rm -rf "$work/build" "$server.new"
  mkdir -p "$work/build"
  (
    cd "$work/build"
    # The options --without-… disable features of PostgreSQL that need further packages. The tests
    # do not use the disabled features.
    run_logged assertions-configure "$source/configure" --prefix="$server" \
      --enable-cassert --enable-debug --without-readline --without-zlib CFLAGS=-O1
    run_logged assertions-make make -s -j "$(nproc)"
    run_logged assertions-contrib make -s -j "$(nproc)" -C contrib
    run_logged assertions-install make -s install DESTDIR="$work/build/installed"
    run_logged assertions-install-contrib \
      make -s -C contrib install DESTDIR="$work/build/installed"
  )
  mv "$work/build/installed$server" "$server"
  rm -rf "$work/build"
}

# Runs tests with test.sh on the server with assertions, in a separate target directory. The
# function uses the cargo-pgrx and the Python of the usual target directory.
tests() {
  local link
  mkdir -p "$work/target"
  for link in "$TOOLS" "$TARGET/venv"; do
    [ -L "$work/target/${link##*/}" ] || ln -s "$link" "$work/target/"
  done
  env LEAD_AUDIT_TARGET="$work/target" "PG_CONFIG_$PG_MAJOR=$server/bin/pg_config" \
    "$ROOT/scripts/test.sh" "$@"
}

all() {
  step "The in-database tests with assertions"
  tests pgrx
}

preloaded() {
  step "Of the acceptance tests ${#preloaded[@]} files with debug_discard_caches = 1"
  "$ROOT/scripts/python.sh"
  LEAD_AUDIT_ACCEPTANCE_SETTINGS="-c debug_discard_caches=1" \
    tests acceptance "${preloaded[@]/#/--test=}"
}

discard() {
  step "Of the in-database tests ${#discarding[@]} with debug_discard_caches = 1"
  LEAD_AUDIT_TEST_SETTINGS="tests.debug_discard_caches = 1" tests pgrx "${discarding[@]}"
  preloaded
}

names
[ "${1:-}" != names ] || exit 0
setup
build_server
case ${1:-} in
  "") all && discard ;;
  all | discard | preloaded) "$1" ;;
  *) sed -n '2,/^source/{/^source/d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
