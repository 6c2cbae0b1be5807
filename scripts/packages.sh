#!/bin/bash
# packages.sh: gets the Debian packages that the build and the tests need. These packages are a C
# compiler, libclang (for bindgen), Python (for the tests), and PostgreSQL with its headers. If PG
# names a version that is not Debian's own, server.sh gets PostgreSQL instead. setup.sh calls this
# script. If no package is missing, the script is quick and prints nothing.
#
# The script installs missing packages with apt if it runs as root, or if sudo works without a
# password. The script never installs the package of the PostgreSQL server, because the package
# postgresql-15 would create and start a cluster of the system. Instead the script downloads the
# server, and the libraries that the system lacks, and unpacks them in target/packages. If the
# script cannot install packages, it unpacks everything except the C compiler in target/packages.
#
#   packages.sh [EXTRA...]   EXTRA names further packages for some tests. The script never installs
#                            these packages in the system. The script unpacks these packages in
#                            target/packages
#     pip         unpacks pip, if Python does not contain pip. scripts/python.sh needs pip
#     sqlsmith    unpacks sqlsmith, which generates random queries
#     pgbouncer   unpacks PgBouncer, and puts PgBouncer on the PATH
#     jdbc        unpacks PostgreSQL's JDBC driver, with support for Unix sockets
#     spring      unpacks Spring's jdbc and transaction modules
#     ruby        unpacks Ruby with pg and ActiveRecord, if they are not installed
#     go          unpacks Go with pgx 4, if they are not installed
#
#   LEAD_AUDIT_PRIVATE_PACKAGES=1   with this variable, the script installs nothing in the system,
#                                   not even as root
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lib=usr/lib/postgresql/$PG_MAJOR
include=usr/include/postgresql/$PG_MAJOR/server

exists() { compgen -G "$1" >/dev/null; }
has_compiler() { command -v cc >/dev/null && [ -e /usr/include/stdio.h ]; }
has_libclang() {
  local top
  [ -z "${LIBCLANG_PATH:-}" ] || return 0
  for top in "" "$PACKAGES"; do
    if exists "$top/usr/lib/llvm-*/lib/libclang*.so*" &&
      exists "$top/usr/lib/llvm-*/lib/clang/*/include/stddef.h"; then
      return 0
    fi
  done
  return 1
}
has_file() { [ -e "/$1" ] || [ -e "$PACKAGES/$1" ]; }
# Returns true if the server does not come from a package of the system's Debian release. The
# server has a different source if PG names a version other than Debian's own, or if the user has
# chosen a pg_config.
has_other_server() { [ "$PG_MAJOR" != "$DEBIAN_MAJOR" ] || own_pg_config "$PG_MAJOR" >/dev/null; }
has_programs() {
  has_file "$lib/bin/postgres" && has_file "$lib/bin/psql" && has_file "$lib/bin/pg_config"
}
has_server() { has_other_server || has_programs; }
has_headers() { has_other_server || has_file "$include/postgres.h"; }
has_python() { command -v python3 >/dev/null; }
has_pip() {
  [ -e "$PACKAGES/usr/share/python-wheels" ] || exists "/usr/share/python-wheels/pip-*.whl" ||
    python3 -c 'import ensurepip' 2>/dev/null
}
has_pgbouncer() { command -v pgbouncer >/dev/null; }
has_sqlsmith() { command -v sqlsmith >/dev/null; }
has_jdbc() {
  has_file usr/share/java/postgresql.jar && has_file usr/share/java/junixsocket-common.jar
}
has_ruby() {
  [ -e "$PACKAGES/usr/bin/ruby" ] || ruby -e 'require "pg"; require "active_record"' 2>/dev/null
}
has_spring() {
  has_file usr/share/java/spring3-jdbc.jar && has_file usr/share/java/spring3-transaction.jar
}
has_go() { has_file usr/bin/go && has_file usr/share/gocode/src/github.com/jackc/pgx/v4/conn.go; }
has_extras() {
  local extra
  for extra in "${extras[@]}"; do "has_$extra" || return 1; done
}
has_all() {
  has_compiler && has_libclang && has_server && has_headers && has_python && has_extras
}

declare -A extra_packages=(
  [pip]=python3-pip-whl
  [pgbouncer]=pgbouncer
  [sqlsmith]=sqlsmith
  [jdbc]="libpostgresql-jdbc-java libjunixsocket-java libjunixsocket-jni"
  [spring]="libspring-jdbc-java libspring-transaction-java"
  [ruby]="ruby ruby-pg ruby-activerecord"
  [go]="golang-go golang-github-jackc-pgx-v4-dev"
)
extras=("$@")
for extra in "${extras[@]}"; do
  [ -n "${extra_packages[$extra]:-}" ] || die "packages.sh knows no '$extra'"
done

! has_all || exit 0
exec 8>"$TARGET/packages.lock"
flock 8
! has_all || exit 0

command -v apt-get >/dev/null ||
  die "this is not Debian. Install PostgreSQL $PG_MAJOR with its server headers, libclang and a C
compiler where Debian would have them (/usr/$lib, /usr/include/postgresql)," \
    "or use Debian $((PG_MAJOR - 3))."

# ---- with apt -----------------------------------------------------------------------------------

root=()
[ "$(id -u)" -eq 0 ] || root=(sudo -n)
may_install() {
  [ "${LEAD_AUDIT_PRIVATE_PACKAGES:-}" != 1 ] || return 1
  [ "$(id -u)" -eq 0 ] || { command -v sudo >/dev/null && sudo -n true 2>/dev/null; }
}

install=()
has_compiler || install+=(build-essential pkg-config)
has_libclang || install+=(libclang-dev clang)
has_headers || install+=("postgresql-server-dev-$PG_MAJOR")
has_python || install+=(python3)
if [ ${#install[@]} -gt 0 ] && may_install; then
  step "Installing Debian packages: ${install[*]}"
  apt=("${root[@]}" env DEBIAN_FRONTEND=noninteractive
    apt-get -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
  run_logged apt-update "${apt[@]}" update
  run_logged apt-install "${apt[@]}" install --no-install-recommends "${install[@]}"
  hash -r
fi

has_compiler || die "there is no C compiler. Install it and run this again:
  apt-get install build-essential pkg-config"
! has_all || exit 0

# ---- without apt: download and unpack -----------------------------------------------------------

command -v dpkg >/dev/null || die "dpkg is missing"
wanted=() headers=()
has_server || wanted+=("postgresql-$PG_MAJOR" "postgresql-client-$PG_MAJOR")
has_libclang || wanted+=(libclang-dev)
has_python || wanted+=(python3)
# shellcheck disable=SC2206 # several names
for extra in "${extras[@]}"; do "has_$extra" || wanted+=(${extra_packages[$extra]}); done
has_headers || headers=("postgresql-server-dev-$PG_MAJOR")
step "Downloading Debian packages to ${PACKAGES#"$ROOT/"}, without installing them:" \
  "${wanted[*]} ${headers[*]}"

# apt runs with private lists, a private cache and a private status, so apt needs no rights of
# root. The status is a copy of the system's status, so apt downloads only packages that are not
# installed.
work=$TARGET/apt
rm -rf "$work"
mkdir -p "$work"/{lists/partial,archives/partial,lone,unpacked}
cp /var/lib/dpkg/status "$work/status"
private_apt_conf "$work" >"$work/apt.conf"
apt=(apt-get -y -q -c "$work/apt.conf")
run_logged apt-lists "${apt[@]}" update

[ ${#wanted[@]} -eq 0 ] ||
  run_logged apt-download "${apt[@]}" --download-only install "${wanted[@]}"
# Downloads the header packages without their dependencies. The dependencies are compilers, which
# the build does not need.
[ ${#headers[@]} -eq 0 ] ||
  (cd "$work/lone" && run_logged apt-headers "${apt[@]}" download "${headers[@]}")
for deb in "$work"/archives/*.deb "$work"/lone/*.deb; do
  [ ! -e "$deb" ] || dpkg -x "$deb" "$work/unpacked"
done
mkdir -p "$PACKAGES"
cp -a "$work/unpacked/." "$PACKAGES/"
rm -rf "$work"
use_private_packages
has_all || die "Debian's packages lack an expected file: see $TARGET/logs"
