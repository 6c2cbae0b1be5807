#!/bin/bash
# build.sh: makes release builds. `make build` and `make install` call this script. The tests and
# the demo do not need this script.
#
#   build.sh           builds the extension and the command lead-audit in target/release
#   build.sh install   builds the extension, and installs it into the server of $PG_CONFIG (by
#                      default, pg_config on the PATH). Run this command as a user who can write to
#                      the directories of the server: as root, or as the owner of the server
pg_config=${PG_CONFIG:-pg_config}
if [ "${1:-}" = install ]; then
  version=$("$pg_config" --version) || {
    echo "error: PG_CONFIG=/path/to/pg_config says where to install" >&2
    exit 1
  }
  [[ $version =~ ^PostgreSQL\ ([0-9]+) ]] && export PG=${BASH_REMATCH[1]}
fi
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
setup
cd "$ROOT"

case ${1:-} in
  "") cargo build --release -p lead_audit -p cli "${PG_FEATURES[@]}" ;;
  install)
    cargo pgrx install --release --pg-config "$(command -v "$pg_config")" "${PG_FEATURES[@]}"
    ;;
  *) sed -n '2,/^pg_config/{/^pg_config/d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
