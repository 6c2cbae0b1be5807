#!/bin/bash
# test_python_stress.sh: runs clients/python/tests/stress.py. This stress test uses all drivers,
# FastAPI and Django at once, through PgBouncer, and restarts the server. The stress test fails if
# an entry has a wrong user. The script uses a private cluster under target/python.
#
#   test_python_stress.sh [SECONDS]   SECONDS is the duration of the stress test without its start
#                                     and end, by default 60
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
setup

"$ROOT/scripts/install.sh"
"$ROOT/scripts/packages.sh" pip pgbouncer
unset LEAD_AUDIT_PACKAGES_USED # so that use_private_packages finds the new packages
use_private_packages
"$ROOT/scripts/python.sh"

cd "$ROOT/clients/python"
step "Python client: stress, ${1:-60} seconds"
exec "$TARGET/venv/bin/python" -m tests.stress "$@"
