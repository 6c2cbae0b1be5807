#!/bin/bash
# build.sh: release builds, behind `make build` and `make install`. Tests and demo do not need it.
#
#   build.sh           the extension and the command lead-audit: target/release
#   build.sh install   the extension, into the server of $PG_CONFIG (by default pg_config on the
#                      PATH) as a user that can write there: root, or the owner of that server
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
