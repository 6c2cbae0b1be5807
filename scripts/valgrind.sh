#!/bin/bash
# valgrind.sh: tests with real clients, against a server that runs under valgrind (memcheck), behind
# `make test-valgrind`. Fails if valgrind saw the library read or write where it must not, or decide
# by memory that nobody had written.
#
#   valgrind.sh [TEST...]   crates/acceptance/tests/TEST.rs; by default a few that touch everything once
#
# It is slow (20 to 50 times) and so not part of any other target. Debian's server says nothing to
# valgrind about its own memory contexts: what is found are errors beyond whole blocks of them, not
# within. scripts/valgrind.supp says what is none of ours.
#
# Seen on 24 November 2026 (valgrind 3.19, PostgreSQL 15.20): two_phase, random_schemas and
# to_jsonb_oracle, 74 server processes, no report in which the library appears; 5 of the server's own,
# all in ReceiveSharedInvalidMessages (now in valgrind.supp).
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
command -v valgrind >/dev/null || die "valgrind is not installed (Debian: apt-get install valgrind)"
"$ROOT/scripts/install.sh"

# A copy of the server whose program starts valgrind, which starts the server. Not for initdb and for what only asks its version.
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
exec valgrind --quiet --trace-children=yes --leak-check=no --error-limit=no --num-callers=40 --time-stamp=yes \\
  --suppressions="$prefix/valgrind.supp" --log-file="$logs/%p" "$bin/postgres.server" "\$@"
WRAPPER
chmod +x "$bin/postgres"

tests=()
[ $# -gt 0 ] || set -- random_schemas to_jsonb_oracle two_phase dump_restore
for test; do tests+=(--test "$test"); done
step "Acceptance tests under valgrind: ${tests[*]}"
cd "$ROOT"
rm -rf "$STATE/acceptance"
LEAD_AUDIT_PG_CONFIG=$bin/pg_config LEAD_AUDIT_STATE_DIR=$STATE/acceptance cargo test --no-fail-fast -p acceptance "${tests[@]}"

processes=$(find "$logs" -type f | wc -l)
ours=$(grep -El '\.rs:[0-9]+\)|lead_audit\.so' "$logs"/* | wc -l || true)
others=$(cat "$logs"/* | grep -c '== \(Invalid\|Conditional\|Use of\|Syscall\)' || true)
step "$processes server processes; $ours reports of valgrind's in which the library appears; $others complaints in all ($logs)"
[ "$processes" -gt 0 ] && [ "$ours" -eq 0 ] || die "see $logs"
