#!/bin/bash
# valgrind.sh: runs acceptance tests against a server under valgrind (memcheck), behind `make
# test-valgrind`. Fails if valgrind reports that the library accesses invalid memory or uses
# uninitialised memory.
#
#   valgrind.sh [TEST...]   crates/acceptance/tests/TEST.rs; by default a few that cover most
#                           of the library
#
# It slows the tests down 20 to 50 times, so no other target includes it. Debian's server does not
# tell valgrind about its memory contexts. So valgrind finds errors outside of a context's blocks,
# but not within a block. scripts/valgrind.supp lists reports that the library does not cause.
#
# Result of 24 November 2026 (valgrind 3.19, PostgreSQL 15.20) for two_phase, random_schemas and
# to_jsonb_oracle: 74 server processes, no report that names the library, and 5 reports in the
# server's own code, all in ReceiveSharedInvalidMessages (now in valgrind.supp).
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
command -v valgrind >/dev/null ||
  die "valgrind is not installed (Debian: apt-get install valgrind)"
"$ROOT/scripts/install.sh"

# Copies the server and replaces its program with a script that starts the server under valgrind.
# The script runs the server directly for other uses, such as initdb and --version.
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
