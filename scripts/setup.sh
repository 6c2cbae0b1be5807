#!/bin/bash
# setup.sh: gets everything that building and testing need, under target/: Debian packages (packages.sh), a private copy of
# the PostgreSQL server, cargo-pgrx, and pgrx's configuration. Every other script calls it first; when nothing is missing it
# takes a fraction of a second and says nothing.
#
# The server is a copy because extensions are installed into it, and because nothing outside of the checkout may change.
# Debian's pg_config finds its directories relative to itself, as long as the copy keeps the layout usr/lib, usr/share,
# usr/include.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

pgrx_version=$(sed -n 's/^pgrx = "=\([0-9.]*\)".*/\1/p' "$ROOT/Cargo.toml")
rust_version=$(sed -n 's/^rust-version = "\([0-9.]*\)".*/\1/p' "$ROOT/Cargo.toml")

check_rust() {
  local found
  command -v cargo >/dev/null || die "cargo was not found. Install Rust $rust_version or later (with rustup), then run this again."
  found=$(rustc --version 2>/dev/null | cut -d ' ' -f 2) || true
  [ -n "$found" ] || die "rustc does not work: try 'rustc --version'. Rust $rust_version or later is needed."
  [ "$(printf '%s\n' "$rust_version" "$found" | sort -V | head -n 1)" = "$rust_version" ] ||
    die "Rust $rust_version or later is needed; $(command -v rustc) is $found."
}

# copy_server PREFIX: Debian's own, again when the packages that it was copied from have changed.
copy_server() {
  local prefix=$1 from='' stamp part
  local postgres=usr/lib/postgresql/$PG_MAJOR/bin/postgres headers=usr/include/postgresql/$PG_MAJOR/server/postgres.h
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
  rm -f "$PGRX_HOME/config.toml" # the bindings are to be generated again
  mkdir -p "$prefix.new/usr/lib/postgresql" "$prefix.new/usr/share/postgresql" "$prefix.new/usr/include"
  for part in "lib/postgresql/$PG_MAJOR" "share/postgresql/$PG_MAJOR" include/postgresql; do
    # Unpacked packages may hold the server, its client programs and its headers in parts: the union is what counts.
    for from in "$PACKAGES" ""; do
      [ ! -d "$from/usr/$part" ] || cp -a --no-preserve=ownership "$from/usr/$part" "$prefix.new/usr/$(dirname "$part")/"
    done
  done
  find "$prefix.new" -name 'lead_audit*' -delete # one that is installed in the system
  printf '%s\n' "$stamp" >"$prefix.new/origin"
  mv "$prefix.new" "$prefix"
}

get_cargo_pgrx() {
  local name
  name=$(cargo-pgrx pgrx --version 2>/dev/null) || true
  [ "${name##* }" != "$pgrx_version" ] || return 0
  step "Building cargo-pgrx $pgrx_version (once; about 2 minutes)"
  # Without its default features it does not need OpenSSL's headers. It only calls cargo and copies files, so it is
  # compiled fast rather than to be fast.
  run_logged cargo-pgrx env CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off \
    CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 cargo install --locked cargo-pgrx --version "=$pgrx_version" --no-default-features --force \
    --root "$TOOLS" --target-dir "$TOOLS/build"
  rm -rf "$TOOLS/build"
}

# What `cargo pgrx init` would write. Only if it differs: a newer file makes cargo build pgrx-pg-sys again.
configure_pgrx() {
  local config
  config="[configs]
pg$PG_MAJOR = \"$TEST_PREFIX/usr/lib/postgresql/$PG_MAJOR/bin/pg_config\""
  mkdir -p "$PGRX_HOME"
  [ "$(cat "$PGRX_HOME/config.toml" 2>/dev/null)" = "$config" ] || printf '%s\n' "$config" >"$PGRX_HOME/config.toml"
}

# `cargo pgrx test --runas` calls sudo. As root that is not needed, and may not be there: this stands in for it. test.sh
# puts it on the PATH, only for root.
write_sudo() {
  [ -n "$SERVER_USER" ] && [ ! -e "$TOOLS/sudo/sudo" ] || return 0
  mkdir -p "$TOOLS/sudo"
  cat >"$TOOLS/sudo/sudo" <<'SUDO'
#!/bin/bash
# Stands in for sudo where we are root already: sudo [-u USER] [NAME=VALUE]... COMMAND... The environment passes through
# as it is, so that the assignments (copies of it) are not needed.
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
  flock 9 # `make -j demo test`: one of them sets up, the other waits
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
