#!/bin/bash
# setup.sh: gets everything that building and testing need, and puts it under target/: Debian
# packages (packages.sh), a private copy of the PostgreSQL server, cargo-pgrx, and the
# configuration of pgrx. Scripts that build or test call this script first. If nothing is missing,
# the script takes a fraction of a second and prints nothing.
#
# The scripts install the extension into a copy of the server, because they must not change
# anything outside of the checkout. Debian's pg_config finds the other directories relative to its
# own path. So the copy has the same directories as Debian's packages: usr/lib, usr/share and
# usr/include.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

pgrx_version=$(sed -n 's/^pgrx = "=\([0-9.]*\)".*/\1/p' "$ROOT/Cargo.toml")
rust_version=$(sed -n 's/^rust-version = "\([0-9.]*\)".*/\1/p' "$ROOT/Cargo.toml")

check_rust() {
  local found
  command -v cargo >/dev/null ||
    die "cargo was not found. Install Rust $rust_version or later (with rustup)," \
      "then run this again."
  found=$(rustc --version 2>/dev/null | cut -d ' ' -f 2) || true
  [ -n "$found" ] ||
    die "rustc does not work: try 'rustc --version'. Rust $rust_version or later is needed."
  [ "$(printf '%s\n' "$rust_version" "$found" | sort -V | head -n 1)" = "$rust_version" ] ||
    die "Rust $rust_version or later is needed; $(command -v rustc) is $found."
}

# copy_server PREFIX: copies Debian's server to PREFIX. Does nothing if PREFIX already contains a
# copy of the same packages.
copy_server() {
  local prefix=$1 from='' stamp part
  local postgres=usr/lib/postgresql/$PG_MAJOR/bin/postgres
  local headers=usr/include/postgresql/$PG_MAJOR/server/postgres.h
  local origins=()
  for part in "$postgres" "$headers"; do
    from=/$part
    [ -e "$from" ] || from=$PACKAGES/$part
    origins+=("$from")
  done
  stamp=$(stat -c '%n %Y %s' "${origins[@]}")
  [ "$(cat "$prefix/origin" 2>/dev/null)" != "$stamp" ] || return 0

  step "Copying the PostgreSQL $PG_MAJOR server to ${prefix#"$ROOT/"}"
  rm -rf "$prefix" "$prefix.new"
  rm -f "$PGRX_HOME/config.toml" # makes pgrx generate its bindings again
  mkdir -p "$prefix.new/usr/lib/postgresql" "$prefix.new/usr/share/postgresql" \
    "$prefix.new/usr/include"
  for part in "lib/postgresql/$PG_MAJOR" "share/postgresql/$PG_MAJOR" include/postgresql; do
    # The server, the client programs and the headers can each be in the system or among the
    # unpacked packages.
    for from in "$PACKAGES" ""; do
      [ ! -d "$from/usr/$part" ] ||
        cp -a --no-preserve=ownership "$from/usr/$part" "$prefix.new/usr/$(dirname "$part")/"
    done
  done
  find "$prefix.new" -name 'lead_audit*' -delete # deletes a copy of an installed lead_audit
  printf '%s\n' "$stamp" >"$prefix.new/origin"
  mv "$prefix.new" "$prefix"
}

get_cargo_pgrx() {
  local name
  name=$(cargo-pgrx pgrx --version 2>/dev/null) || true
  [ "${name##* }" != "$pgrx_version" ] || return 0
  step "Building cargo-pgrx $pgrx_version (once; about 2 minutes)"
  # Without its default features, cargo-pgrx does not need the headers of OpenSSL. cargo-pgrx only
  # calls cargo and copies files, so a short compilation of cargo-pgrx matters more than its speed.
  run_logged cargo-pgrx env CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off \
    CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
    cargo install --locked cargo-pgrx --version "=$pgrx_version" --no-default-features --force \
    --root "$TOOLS" --target-dir "$TOOLS/build"
  rm -rf "$TOOLS/build"
}

# Writes the file that `cargo pgrx init` would write, but only if its content changes. If the file
# were newer after each run, cargo would build pgrx-pg-sys again each time.
configure_pgrx() {
  local config
  config="[configs]
pg$PG_MAJOR = \"$TEST_PREFIX/usr/lib/postgresql/$PG_MAJOR/bin/pg_config\""
  mkdir -p "$PGRX_HOME"
  [ "$(cat "$PGRX_HOME/config.toml" 2>/dev/null)" = "$config" ] ||
    printf '%s\n' "$config" >"$PGRX_HOME/config.toml"
}

# If root runs the tests, writes a script that replaces sudo. `cargo pgrx test --runas` calls sudo,
# and sudo may be missing. test.sh puts the written script on the PATH.
write_sudo() {
  [ -n "$SERVER_USER" ] && [ ! -e "$TOOLS/sudo/sudo" ] || return 0
  mkdir -p "$TOOLS/sudo"
  cat >"$TOOLS/sudo/sudo" <<'SUDO'
#!/bin/bash
# Replaces sudo for root: sudo [-u USER] [NAME=VALUE]... COMMAND... It passes the environment on,
# so it ignores the assignments, which only repeat the environment.
user=
if [ "$1" = -u ]; then user=$2; shift 2; fi
while [[ $1 == *=* ]]; do shift; done
[ -n "$user" ] || exec "$@"
exec setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups -- "$@"
SUDO
  chmod +x "$TOOLS/sudo/sudo"
}

check_rust
(
  flock 9 # with `make -j demo test`, the second run of this script waits
  "$ROOT/scripts/packages.sh"
  use_private_packages
  if [ "$PG_MAJOR" = "$DEBIAN_MAJOR" ] && ! own_pg_config "$PG_MAJOR" >/dev/null; then
    copy_server "$PREFIX"
    copy_server "$TEST_PREFIX"
  else
    "$ROOT/scripts/server.sh"
  fi
  get_cargo_pgrx
  configure_pgrx
  write_sudo
) 9>"$TARGET/setup.lock"
