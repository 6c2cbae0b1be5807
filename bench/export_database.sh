#!/bin/bash
# export_database.sh: measures exports and verification by the command `lead-audit`. The command
# connects to the database of a private cluster in target/bench-export.
#
#   export_database.sh [ENTRIES]   ENTRIES is the number of entries, by default 500000
#
# The script prints a Markdown table. The memory in the table is the maximum that the command uses,
# without the memory of the server process.
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
setup
"$ROOT/scripts/install.sh" >&2
cargo build --release -q -p cli --manifest-path "$ROOT/Cargo.toml"
entries=${1:-500000}
dir=$TARGET/bench-export
files=$(mktemp -d)
cluster() { "$ROOT/scripts/cluster.sh" "$@"; }
trap 'cluster remove "$dir" >&2; rm -rf "$files"' EXIT
cluster remove "$dir" >&2
cluster start "$dir" "fsync = off" "shared_buffers = '512MB'" "max_wal_size = '8GB'" \
  "autovacuum = off" "jit = off" >&2
sql() { cluster psql "$dir" -d postgres -XqAt -v ON_ERROR_STOP=1 "$@"; }

sql >&2 <<SQL
CREATE TABLE leads (
  id text PRIMARY KEY, email text, domain text, company_name text, contact_name text,
  enrichment_status text, is_manual boolean, is_deleted boolean DEFAULT false, source text,
  created_by text, created_at timestamp DEFAULT now());
CREATE EXTENSION lead_audit;
INSERT INTO leads
SELECT md5(g::text), 'contact' || g || '@example.com', 'example' || g || '.com',
  'Example Company ' || g || ' Holdings Ltd.', 'Contact Person ' || g, 'PENDING', true, false,
  'web', 'user-' || g % 50
FROM generate_series(1, $entries) g;
VACUUM ANALYZE lead_audit.entry;
SELECT lead_audit.seal();
SQL
sql -c 'SELECT lead_audit.latest_checkpoint()' >"$files/kept"
socket=$(sql -c 'SHOW unix_socket_directories' | tr -d '"')
user=$(sql -c 'SELECT current_user')
port=$(sql -c 'SHOW port')
url="host=$socket port=$port user=$user dbname=postgres"

# measure NAME ARGUMENT...: runs `lead-audit ARGUMENT...`, and prints a row of the table with its
# time and memory.
measure() {
  python3 - "$entries" "$TARGET/release/lead-audit" "$@" <<'PY'
import os, subprocess, sys, time
entries, program, name, *arguments = sys.argv[1:]
begun = time.perf_counter()
child = subprocess.Popen([program, "-q", *arguments], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
seconds = time.perf_counter() - begun
assert status == 0, (status, arguments)
rate, memory = int(entries) / seconds, usage.ru_maxrss / 1024
print(f"| {name} | {seconds:.2f} s | {rate:,.0f} | {memory:.0f} MiB |")
PY
}

printf '| what | time | entries/s | memory |\n| --- | --- | --- | --- |\n'
measure "export of $entries entries" export --database "$url" -o "$files/plain"
measure 'export with zstd' export --database "$url" -o "$files/packed.zst"
measure 'verify that export' verify --checkpoint "$files/kept" "$files/plain"
measure 'verify --database' verify --checkpoint "$files/kept" --database "$url"
measure 'export of each entry with its proof (--from-id 1)' \
  export --database "$url" --from-id 1 -o "$files/selection"
measure 'verify that selection' verify --checkpoint "$files/kept" "$files/selection"
printf '| bytes | %s plain, %s zstd, %s with proofs | | |\n' "$(stat -c %s "$files/plain")" \
  "$(stat -c %s "$files/packed.zst")" "$(stat -c %s "$files/selection")"
