# lib.sh: the other shell scripts source this file. lib.sh sets paths, the operating system user of
# the server, and the environment of cargo and pgrx. lib.sh starts nothing and installs nothing.
# setup.sh installs the missing packages.
#
#   ROOT          the checkout
#   TARGET        the directory for all output of the scripts: ROOT/target, or $LEAD_AUDIT_TARGET.
#                 assertions.sh sets LEAD_AUDIT_TARGET
#   STATE         the directory for files that the server's user must be able to read (the server,
#                 clusters): TARGET, or a directory below /var/tmp
#   PG_MAJOR      the major version of PostgreSQL: $PG, by default 15. Debian 12 has version 15
#   PREFIX        the private copy of the server for the demo and the acceptance tests. The copy
#                 contains a release build of the extension
#   TEST_PREFIX   the private copy of the server for the in-database tests. The copy contains a
#                 debug build of the extension with the tests
#   BIN           the directory in PREFIX with the server's programs
# shellcheck shell=bash disable=SC2034 # other scripts use these variables

set -euo pipefail
umask 022

DEBIAN_MAJOR=15
MAJORS=(15 16 17 18) # the supported major versions of PostgreSQL
export PG=${PG:-$DEBIAN_MAJOR}
PG_MAJOR=$PG
ROOT=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TARGET=${LEAD_AUDIT_TARGET:-$ROOT/target}

# ---- messages -----------------------------------------------------------------------------------

# The time at which the outermost script started. A script inherits this variable from the script
# that calls it.
export LEAD_AUDIT_STARTED=${LEAD_AUDIT_STARTED:-$EPOCHSECONDS}

step() { printf '==> [%3d s] %s\n' $((EPOCHSECONDS - LEAD_AUDIT_STARTED)) "$*"; }
note() { printf '    %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# run_logged NAME COMMAND...: runs COMMAND, and writes its output to target/logs/NAME.log. While
# COMMAND runs, shows the last line of the log. If COMMAND fails, shows the end of the log and ends
# the script.
run_logged() {
  local log=$TARGET/logs/$1.log ticker status=0
  shift
  mkdir -p "$TARGET/logs"
  : >"$log"
  show_progress "$log" 9>&- & ticker=$!
  "$@" </dev/null >"$log" 2>&1 || status=$?
  kill "$ticker" 2>/dev/null || true
  wait "$ticker" 2>/dev/null || true
  [ ! -t 1 ] || printf '\r\033[K'
  if [ "$status" -ne 0 ]; then
    printf '\n---- the end of %s\n' "$log" >&2
    tail -n 40 "$log" >&2
    printf -- '----\n' >&2
    die "this failed with exit code $status: $*"
  fi
}

# Shows the last line of a growing log and the seconds since the start. On a terminal, each new
# line replaces the previous line. If the output is not a terminal, the function prints a line
# every 20 seconds. The function returns when the calling script ends.
show_progress() {
  local start=$SECONDS seconds line
  # The process `sleep` can outlive this function. So `sleep` runs for one second only, without the
  # inherited output and without the inherited lock file (descriptor 9).
  while sleep 1 >/dev/null 2>&1 9>&- && kill -0 "$$" 2>/dev/null; do
    seconds=$((SECONDS - start))
    line=$(tail -n 1 "$1" | tr -d '\r' | sed 's/^ *//' | cut -c 1-80)
    if [ -t 1 ]; then
      printf '\r\033[K    %3d s  %s' "$seconds" "$line"
    elif [ $((seconds % 20)) -eq 0 ] && [ "$seconds" -gt 0 ]; then
      printf '    %3d s  %s\n' "$seconds" "$line"
    fi
  done
}

[[ " ${MAJORS[*]} " == *" $PG_MAJOR "* ]] ||
  die "PG=$PG_MAJOR: the extension supports PostgreSQL ${MAJORS[*]}"

# private_apt_conf DIR: prints a configuration with which apt keeps its lists, packages and status
# in DIR. With this configuration, apt needs no rights of root and runs none of the system's hooks.
private_apt_conf() {
  local work=$1
  cat <<CONF
Dir::State "$work";
Dir::State::Lists "$work/lists";
Dir::State::status "$work/status";
Dir::State::extended_states "$work/extended_states";
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

# ---- the user, and the user of the server -------------------------------------------------------

case $ROOT in
*[\'\"\\\$\`:\;,]* | *$'\n'*)
  die "the path of this checkout has a character that the build does not support: $ROOT"
  ;;
esac
if [ "$(id -u)" -ne 0 ] && [ "$(stat -c %u "$ROOT")" -ne "$(id -u)" ]; then
  die "this checkout belongs to $(stat -c %U "$ROOT"), not to you: work in a clone of your own"
fi
mkdir -p "$TARGET" 2>/dev/null && [ -w "$TARGET" ] ||
  die "cannot write to $TARGET (was it made by root? then: sudo rm -rf '$TARGET')"

# PostgreSQL refuses to run as root. If root runs the scripts, the server runs as the user
# postgres. If the user postgres does not exist, the server runs as the user nobody.
SERVER_USER=
if [ "$(id -u)" -eq 0 ]; then
  SERVER_USER=nobody
  ! id -u postgres >/dev/null 2>&1 || SERVER_USER=postgres
fi

# Runs a command as the user of the server. The command starts in the directory /, because the user
# of the server may be unable to enter the current directory.
as_server() {
  if [ -n "$SERVER_USER" ]; then
    (cd / && exec setpriv --reuid "$SERVER_USER" --regid "$(id -g "$SERVER_USER")" \
      --init-groups -- "$@")
  else
    (cd / && exec "$@")
  fi
}

# The server's user may be unable to enter the checkout, for example if the checkout is in the home
# directory of root. In this case the server and the clusters are in a directory STATE below
# /var/tmp. The name of the directory STATE depends on the path of the checkout. target/state is a
# link to the directory STATE.
STATE=$TARGET
if [ -n "$SERVER_USER" ] && ! as_server test -r "$TARGET" -a -x "$TARGET"; then
  STATE=/var/tmp/lead_audit-$(printf %s "$TARGET" | sha256sum | cut -c 1-12)
  mkdir -m 0755 "$STATE" 2>/dev/null || true
  [ ! -L "$STATE" ] && [ -d "$STATE" ] && [ -O "$STATE" ] ||
    die "$STATE is in the way: it does not belong to root"
  if [ "$(readlink "$TARGET/state" || true)" != "$STATE" ]; then
    ln -sfn "$STATE" "$TARGET/state"
    note "The user $SERVER_USER cannot enter $ROOT: server and clusters go to $STATE." >&2
  fi
fi

# ---- the environment ----------------------------------------------------------------------------

PREFIX=$STATE/pg$PG_MAJOR
TEST_PREFIX=$STATE/pg$PG_MAJOR-test
BIN=$PREFIX/usr/lib/postgresql/$PG_MAJOR/bin
PACKAGES=$STATE/packages # packages.sh unpacks Debian packages here
TOOLS=$TARGET/tools      # cargo-pgrx, and a script that replaces sudo

# Unsets environment variables that would change how psql, make or cargo work.
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES CDPATH
unset PGHOST PGHOSTADDR PGPORT PGUSER PGDATABASE PGPASSWORD PGSERVICE PGSERVICEFILE PGOPTIONS
unset PGDATA PGSSLMODE
unset PGRX_PG_CONFIG_PATH PGRX_PG_CONFIG_AS_ENV CARGO_BUILD_TARGET
export LC_ALL=C.UTF-8 USER=${USER:-$(id -un)}
# Each major version of PostgreSQL has its own configuration of pgrx. So a change of one
# configuration does not cause new builds for the other versions.
export CARGO_TARGET_DIR=$TARGET PGRX_HOME=$TARGET/pgrx
[ "$PG_MAJOR" = "$DEBIAN_MAJOR" ] || PGRX_HOME=$TARGET/pgrx$PG_MAJOR
# The arguments with which cargo compiles for PG_MAJOR. PG_FEATURES is empty for the default major
# version.
PG_FEATURES=()
[ "$PG_MAJOR" = "$DEBIAN_MAJOR" ] || PG_FEATURES=(--no-default-features --features "pg$PG_MAJOR")
PATH=$TOOLS/bin:$PATH:${CARGO_HOME:-${HOME:-/nonexistent}/.cargo}/bin
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

# rust-toolchain.toml names the toolchain. rustup's default toolchain can be the same version of
# Rust under another name. In this case the scripts use the default toolchain, because a machine
# without network cannot download the named toolchain.
if [ -z "${RUSTUP_TOOLCHAIN:-}" ] && command -v rustup >/dev/null; then
  pinned=$(sed -n 's/^channel = "\(.*\)"$/\1/p' "$ROOT/rust-toolchain.toml")
  if [[ $'\n'$(rustup toolchain list) != *$'\n'"$pinned"-* &&
    $(cd / && rustc --version 2>/dev/null) == "rustc $pinned "* ]]; then
    RUSTUP_TOOLCHAIN=$(cd / && rustup show active-toolchain | cut -d ' ' -f 1)
    export RUSTUP_TOOLCHAIN
  fi
fi

# own_pg_config MAJOR: prints the pg_config that an environment variable names, for example
# PG_CONFIG_17=/path/to/pg_config. Returns 1 if the variable is not set.
own_pg_config() {
  local variable=PG_CONFIG_$1
  [ -n "${!variable:-}" ] && echo "${!variable}"
}

# Prints the arguments that are existing directories, joined with ':'. Other arguments can occur,
# because bash passes a pattern unchanged if no path matches it.
existing_dirs() {
  local dir joined=
  for dir in "$@"; do [ ! -d "$dir" ] || joined=${joined:+$joined:}$dir; done
  printf %s "$joined"
}

# Sets the environment so that the server, bindgen and the shell find the files that packages.sh
# has unpacked.
use_private_packages() {
  local libraries
  [ -d "$PACKAGES/usr" ] && [ -z "${LEAD_AUDIT_PACKAGES_USED:-}" ] || return 0
  export LEAD_AUDIT_PACKAGES_USED=1
  libraries=$(existing_dirs "$PACKAGES"/usr/lib/*-linux-gnu* "$PACKAGES"/lib/*-linux-gnu* \
    "$PACKAGES"/usr/lib/llvm-*/lib)
  export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  libraries=$(existing_dirs "$PACKAGES"/usr/lib/llvm-*/lib)
  PATH=$PATH:$PACKAGES/usr/bin:$PACKAGES/usr/sbin
  if [ -z "${LIBCLANG_PATH:-}" ] && [ -n "$libraries" ]; then
    export LIBCLANG_PATH=${libraries##*:}
  fi
}
use_private_packages

# Calls setup.sh, which gets everything that building and testing need. Scripts that build or test
# call this function first.
setup() {
  "$ROOT/scripts/setup.sh"
  use_private_packages
}
