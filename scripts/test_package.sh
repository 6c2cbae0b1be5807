#!/bin/bash
# test_package.sh: tests the packages of `make package` on a new Debian system. `make test-package`
# calls this script. The script needs root and debootstrap.
#
# debootstrap makes a minimal Debian system. In this system, apt installs Debian's PostgreSQL and
# the packages of lead_audit. The script then runs the examples on the pages docs/install.md and
# docs/quick-start.md, and updates a database of each earlier version of lead_audit. Finally the
# script runs the examples on docs/removal.md, which remove the packages with apt. The new system
# is a chroot, which starts no services, so the script starts the server with pg_ctlcluster.
#
#   test_package.sh   uses the Debian release that has PostgreSQL $PG. The script keeps the base
#                     system in target/debian-..., so that a later run does not make it again
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

declare -A suites=([15]=bookworm [17]=trixie [18]=forky)
suite=${suites[$PG_MAJOR]:-}
[ -n "$suite" ] || die "no release of Debian has PostgreSQL $PG_MAJOR"
[ "$(id -u)" -eq 0 ] || die "this needs root, for chroot and mount"
command -v debootstrap >/dev/null ||
  die "debootstrap is not installed (Debian: apt-get install debootstrap)"

# Runs the rest of the script in its own mount namespace, so that all mounts end when the script
# ends.
if [ "${LEAD_AUDIT_UNSHARED:-}" != 1 ]; then
  "$ROOT/scripts/package.sh"
  LEAD_AUDIT_UNSHARED=1 exec unshare --mount --propagation private --pid --fork --kill-child \
    -- "${BASH_SOURCE[0]}"
fi

base=$TARGET/debian-$suite system=$TARGET/debian-test
# shellcheck disable=SC2016 # apt's own variable
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' |
  grep -v security | grep debian.org | head -n 1)
inside() {
  chroot "$system" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
}
psql() { inside runuser -u postgres -- psql -XqAt -v ON_ERROR_STOP=1 "$@"; }
# expect TEXT COMMAND...: runs COMMAND, and fails if the output of COMMAND is not exactly TEXT.
expect() {
  local found
  found=$("${@:2}") || die "this failed: ${*:2}"
  [ "$found" = "$1" ] || die "$(printf 'expected %q of "%s", found %q' "$1" "${*:2}" "$found")"
}

make_base() {
  local script
  [ ! -e "$base" ] || return 0
  step "A minimal Debian $suite (once; a few minutes)"
  rm -rf "$base.new"
  # Uses debootstrap's script for the release sid if the installed debootstrap has no script for
  # the wanted release.
  script=/usr/share/debootstrap/scripts/$suite
  [ -e "$script" ] || script=${script%/*}/sid
  run_logged debootstrap debootstrap --variant=minbase "$suite" "$base.new" \
    "${mirror:-http://deb.debian.org/debian}" "$script"
  mv "$base.new" "$base"
}

make_system() {
  rm -rf "$system"
  cp -a "$base" "$system"
  mount -t proc proc "$system/proc"
  mount -t tmpfs tmpfs "$system/dev/shm"
  cp /etc/resolv.conf "$system/etc/"
  # Copies the apt settings of this machine, for example its proxy, to the new system.
  apt-config dump | grep '^Acquire::' >"$system/etc/apt/apt.conf.d/99-as-here"
  printf '#!/bin/sh\nexit 101\n' >"$system/usr/sbin/policy-rc.d"
  chmod +x "$system/usr/sbin/policy-rc.d"
  mkdir "$system/packages"
  cp "$TARGET"/deb/*.deb "$system/packages/"
}

stop_server() { inside pg_ctlcluster "$PG_MAJOR" main stop >/dev/null 2>&1 || true; }
trap stop_server EXIT

make_base
make_system
step "apt-get install postgresql-$PG_MAJOR, Debian's own"
run_logged debian-update inside apt-get -q update
run_logged debian-postgresql inside \
  apt-get -qy --no-install-recommends install "postgresql-$PG_MAJOR" python3
inside pg_ctlcluster "$PG_MAJOR" main start
expect 0 psql -c "SELECT count(*) FROM pg_available_extensions WHERE name = 'lead_audit'"

step "apt-get install ./*.deb"
cd "$system/packages"
packages=(postgresql-"$PG_MAJOR"-lead-audit_*.deb lead-audit_*.deb)
run_logged debian-install inside \
  apt-get -qy --no-install-recommends install "${packages[@]/#//packages/}"
inside lead-audit --version
for page in lead-audit lead-audit-witness; do
  [ -s "$system/usr/share/man/man1/$page.1.gz" ] || die "there is no manual page $page"
done
version=$(psql -c "SELECT default_version FROM pg_available_extensions WHERE name = 'lead_audit'")

step "Without preloading: CREATE EXTENSION, a write, its entry"
psql -c "CREATE DATABASE plain ENCODING 'UTF8' TEMPLATE template0"
psql -d plain -c "CREATE TABLE leads (id int PRIMARY KEY); CREATE EXTENSION lead_audit;
  INSERT INTO leads VALUES (1)"
expect 'INSERT|{"id": 1}' psql -d plain -c "SELECT operation, row_key FROM lead_audit.log"

cp "$ROOT/scripts/pages.py" "$ROOT"/docs/{install,quick-start,removal}.md "$system/packages/"
inside sed -i 's/^local .*/local all all trust/' "/etc/postgresql/$PG_MAJOR/main/pg_hba.conf"
inside pg_ctlcluster "$PG_MAJOR" main reload
pages() {
  inside env PG_MAJOR="$PG_MAJOR" python3 /packages/pages.py --system --user postgres \
    --directory /packages "/packages/$1"
}
step "docs/install.md"
pages install.md
psql -c "DROP DATABASE crm WITH (FORCE)"
step "docs/quick-start.md"
pages quick-start.md

for old in "$ROOT"/sql/released/lead_audit--*.sql; do
  old=${old##*--} old=${old%.sql}
  step "ALTER EXTENSION UPDATE: $old to $version"
  cp "$ROOT/sql/released/lead_audit--$old.sql" "$system/usr/share/postgresql/$PG_MAJOR/extension/"
  psql -c "CREATE DATABASE old ENCODING 'UTF8' TEMPLATE template0"
  psql -d old -c "CREATE TABLE leads (id int PRIMARY KEY);
    CREATE EXTENSION lead_audit VERSION '$old'; INSERT INTO leads VALUES (1)"
  psql -d old -c 'ALTER EXTENSION lead_audit UPDATE' -c 'INSERT INTO leads VALUES (2)'
  expect "$version" psql -d old \
    -c "SELECT extversion FROM pg_extension WHERE extname = 'lead_audit'"
  expect "2" psql -d old -c "SELECT count(*) FROM lead_audit.log WHERE lead_audit.verify_entry(id)"
  expect "" psql -d old -c "SELECT * FROM lead_audit.verify()"
  psql -c "DROP DATABASE old"
  rm "$system/usr/share/postgresql/$PG_MAJOR/extension/lead_audit--$old.sql"
done

step "docs/removal.md"
psql -d plain -c 'DROP EXTENSION lead_audit CASCADE; DROP SCHEMA lead_audit' 2>/dev/null
psql -d plain -c 'INSERT INTO leads VALUES (2)'
expect 0 psql -d plain -c "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal"
pages removal.md
expect 0 psql -c "SELECT count(*) FROM pg_available_extensions WHERE name = 'lead_audit'"
left=$(find "$system"/{usr,etc,lib,var/lib,dev/shm} -xdev \
  \( -iname '*lead_audit*' -o -iname '*lead-audit*' \) \
  -not -path '*/dpkg/*' -not -path '*/apt/*')
[ -z "$left" ] || die "apt left: $left"
stop_server
rm -rf --one-file-system "$system" 2>/dev/null || true
step "The packages can be installed, used, updated and removed."
