#!/bin/bash
# server17.sh: PostgreSQL 17 beside 15, in target/pg17, with the extension built for it and installed: what the test of pg_upgrade needs.
# It comes from the Debian release that has it, and is only unpacked: its programs are told where their loader and libraries
# lie, so that they run on an older system. Nothing outside of target/ changes, save that patchelf is installed where apt may be used.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
setup

major=17 suite=trixie
prefix=$STATE/pg$major
bin=$prefix/usr/lib/postgresql/$major/bin

# apt for another release, with lists, cache and status of its own: it takes nothing for installed.
prepare_apt() {
  local mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -v security | head -n 1)
  [ -n "$mirror" ] && [ -e "$keyring" ] || die "PostgreSQL $major is taken from Debian's mirror, and none is configured here"
  mkdir -p "$work"/{etc/sources.list.d,etc/preferences.d,lists/partial,archives/partial,lone,unpacked}
  echo "deb [signed-by=$keyring] $mirror $suite main" >"$work/etc/sources.list.d/suite.list"
  : >"$work/status"
  cat >"$work/apt.conf" <<CONF
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$work/etc/sources.list.d";
Dir::Etc::preferencesparts "$work/etc/preferences.d";
Dir::State "$work";
Dir::State::Lists "$work/lists";
Dir::State::status "$work/status";
Dir::Cache "$work";
Dir::Cache::archives "$work/archives";
Dir::Log "$work";
APT::Sandbox::User "";
APT::Install-Recommends "false";
Acquire::Languages "none";
Acquire::Retries "3";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Install-Pkgs;
#clear DPkg::Post-Invoke;
CONF
}

get_patchelf() {
  ! command -v patchelf >/dev/null || return 0
  step "Getting patchelf"
  (cd "$work/lone" && apt-get -q download patchelf >/dev/null && dpkg -x patchelf_*.deb "$work/patchelf" && rm patchelf_*.deb)
  PATH=$PATH:$work/patchelf/usr/bin
}

# The programs and libraries below a directory.
binaries() { find "$1" -type f -exec sh -c 'for file; do [ "$(head -c 4 "$file" | tail -c 3)" != ELF ] || echo "$file"; done' sh {} +; }

get_server() {
  local deb loader file from
  [ ! -x "$bin/postgres" ] || return 0
  work=$TARGET/apt-$suite
  rm -rf "$work" "$prefix"
  prepare_apt
  get_patchelf
  step "Downloading PostgreSQL $major to ${prefix#"$ROOT/"}"
  run_logged apt-$suite-lists apt-get -y -q -c "$work/apt.conf" update
  run_logged apt-$suite apt-get -y -q -c "$work/apt.conf" --download-only install "postgresql-$major" "postgresql-client-$major"
  # Of the headers' package only the files are needed, not the compilers that it depends on.
  (cd "$work/lone" && run_logged apt-$suite-headers apt-get -y -q -c "$work/apt.conf" download "postgresql-server-dev-$major")
  for deb in "$work"/archives/*.deb "$work"/lone/*.deb; do dpkg -x "$deb" "$work/unpacked"; done

  from=$work/unpacked
  mkdir -p "$prefix"/usr/{lib,share}/postgresql "$prefix/usr/include" "$prefix/libs"
  cp -a --no-preserve=ownership "$from/usr/lib/postgresql/$major" "$prefix/usr/lib/postgresql/"
  cp -a --no-preserve=ownership "$from/usr/share/postgresql/$major" "$prefix/usr/share/postgresql/"
  cp -a --no-preserve=ownership "$from/usr/include/postgresql" "$prefix/usr/include/"
  loader=$(find "$from" -name 'ld-linux*.so.*' -type f | head -n 1)
  [ -n "$loader" ] || die "the packages of $suite hold no loader"
  cp "$loader" "$prefix/libs/loader"
  # Every library that something of the server's asks for and that came with the packages.
  binaries "$prefix/usr/lib/postgresql" | while read -r file; do
    "$loader" --library-path "$(echo "$from"/usr/lib/*-linux-gnu)" --list "$file" 2>/dev/null || true
  done | awk -v from="$from/" 'index($3, from) == 1 { print $3 }' | sort -u | xargs -I{} cp -Lf {} "$prefix/libs/"
  binaries "$prefix/usr/lib/postgresql" | grep -Ev '\.(so|a|o|bc)(\.[0-9.]*)?$' | while read -r file; do
    patchelf --set-interpreter "$prefix/libs/loader" --force-rpath --set-rpath "$prefix/libs" "$file"
  done
  "$bin/postgres" --version >/dev/null || die "PostgreSQL $major of $suite does not run here"
  rm -rf "$work"
}

# In a target directory and with a configuration of pgrx's of its own: those for 15 would be built anew otherwise.
build() {
  local config="[configs]
pg$major = \"$bin/pg_config\""
  export PGRX_HOME=$TARGET/pgrx$major CARGO_TARGET_DIR=$TARGET/build$major
  mkdir -p "$PGRX_HOME"
  [ "$(cat "$PGRX_HOME/config.toml" 2>/dev/null)" = "$config" ] || printf '%s\n' "$config" >"$PGRX_HOME/config.toml"
  cd "$ROOT"
  step "Building and installing the extension for PostgreSQL $major (the first time about 2 minutes)"
  run_logged "install$major" cargo pgrx install --release --pg-config "$bin/pg_config" --no-default-features --features "pg$major"
}

(
  flock 9
  get_server
  build
) 9>"$TARGET/server$major.lock"
