#!/bin/bash
# valgrind.sh: runs acceptance tests with a server that runs under valgrind (memcheck). `make
# test-valgrind` calls this script. The script fails if valgrind reports that the library accesses
# invalid memory or uses uninitialised memory.
#
#   valgrind.sh [TEST...]   runs crates/acceptance/tests/TEST.rs. Without arguments, runs a few
#                           tests that cover most of the library
#
# valgrind makes the tests 20 to 50 times slower, so no other target of the Makefile runs this
# script. Debian's server does not tell valgrind about its memory contexts. So valgrind finds
# errors outside of the blocks that a memory context allocates, but no errors within a block.
# scripts/valgrind.supp lists the reports of valgrind that the library does not cause.
#
# On 24 November 2026 the script ran two_phase, random_schemas and to_jsonb_oracle (valgrind 3.19,
# PostgreSQL 15.20). In 74 server processes, valgrind made no report that names the library.
# valgrind made 5 reports about the server's own code, all in ReceiveSharedInvalidMessages.
# valgrind.supp lists these 5 reports.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
command -v valgrind >/dev/null ||
  die "valgrind is not installed (Debian: apt-get install valgrind)"
"$ROOT/scripts/install.sh"

# Copies the server, and replaces its program postgres with a script. The replacement starts a
# server under valgrind. For other uses of postgres, for example by initdb or with --version, the
# replacement runs postgres without valgrind.
prefix=$STATE/pg$PG_MAJOR-valgrind logs=$STATE/valgrind
rm -rf "$prefix" "$logs"
cp -a "$PREFIX" "$prefix"
mkdir -m 0777 "$logs"
bin=$prefix/usr/lib/postgresql/$PG_MAJOR/bin
mv "$bin/postgres" "$bin/postgres.server"
cp "$ROOT/scripts/valgrind.supp" "$prefix/valgrind.supp"
cat >"$bin/postgres" <<WRAPPER
#!/bin/bash
if [ "\$1" != -D ]; then exec "$bin/postgres.server" "\$@"; fi
exec valgrind --quiet --trace-children=yes --leak-check=no --error-limit=no --num-callers=40 \\
  --time-stamp=yes --suppressions="$prefix/valgrind.supp" --log-file="$logs/%p" \\
  "$bin/postgres.server" "\$@"
WRAPPER
chmod +x "$bin/postgres"

tests=()
[ $# -gt 0 ] || set -- random_schemas to_jsonb_oracle two_phase dump_restore
for test; do tests+=(--test "$test"); done
step "Acceptance tests under valgrind: ${tests[*]}"
cd "$ROOT"
rm -rf "$STATE/acceptance"
LEAD_AUDIT_PG_CONFIG=$bin/pg_config LEAD_AUDIT_STATE_DIR=$STATE/acceptance \
  cargo test --no-fail-fast -p acceptance "${tests[@]}"

processes=$(find "$logs" -type f | wc -l)
ours=$(grep -El '\.rs:[0-9]+\)|lead_audit\.so' "$logs"/* | wc -l || true)
others=$(cat "$logs"/* | grep -c '== \(Invalid\|Conditional\|Use of\|Syscall\)' || true)
step "$processes server processes; $ours reports of valgrind's in which the library appears;" \
  "$others complaints in all ($logs)"
[ "$processes" -gt 0 ] && [ "$ours" -eq 0 ] || die "see $logs"
