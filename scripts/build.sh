#!/bin/bash
# build.sh: release builds by hand, behind `make build` and `make install`. Tests and demo do not need it.
#
#   build.sh           the extension and the command lead-audit: target/release
#   build.sh install   the extension, into the server that $PG_CONFIG (by default pg_config on the PATH) belongs to.
#                      The user must be able to write there: as root, or in a server of your own
pg_config=${PG_CONFIG:-pg_config}
if [ "${1:-}" = install ]; then
  version=$("$pg_config" --version) || { echo "error: PG_CONFIG=/path/to/pg_config says where to install" >&2; exit 1; }
  PG=$(sed 's/^PostgreSQL \([0-9]*\).*/\1/' <<<"$version")
  export PG
fi
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
setup
cd "$ROOT"

case ${1:-} in
  "") cargo build --release -p lead_audit -p cli "${PG_FEATURES[@]}" ;;
  install) cargo pgrx install --release --pg-config "$(command -v "$pg_config")" "${PG_FEATURES[@]}" ;;
  *) sed -n '2,/^pg_config/{/^pg_config/d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
