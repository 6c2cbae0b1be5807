#!/bin/bash
# test_python.sh: the tests of clients/python and of the page docs/clients.md, on private clusters under target/python.
#
#   test_python.sh [ARGUMENT...]   all of them: mypy, then pytest with SQLAlchemy 2 and psycopg, then with SQLAlchemy 1.4 and
#                                  psycopg2 (Django). ARGUMENTs are those of pytest: then it is only that, with SQLAlchemy 2.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
setup

"$ROOT/scripts/install.sh"
"$ROOT/scripts/packages.sh" pip pgbouncer jdbc ruby
unset LEAD_AUDIT_PACKAGES_USED # there may be more of them now
use_private_packages
export LEAD_AUDIT_PACKAGES=$PACKAGES
"$ROOT/scripts/python.sh"
"$ROOT/scripts/python.sh" sqlalchemy-1.4

# Clusters that a killed run left.
for dir in "$TARGET"/python/cluster-*; do
  if [ -e "$dir" ] && ! kill -0 "${dir##*-}" 2>/dev/null; then "$ROOT/scripts/cluster.sh" remove "$dir"; fi
done

cd "$ROOT/clients/python"
if [ $# -gt 0 ]; then
  exec "$TARGET/venv/bin/python" -m pytest "$@"
fi
step "Types: mypy --strict"
"$TARGET/venv/bin/python" -m mypy
step "Python tests: pytest, with SQLAlchemy 2"
"$TARGET/venv/bin/python" -m pytest -q -rs
step "Python tests: pytest, with SQLAlchemy 1.4"
LEAD_AUDIT_DJANGO_PSYCOPG2=1 "$TARGET/venv-sqlalchemy-1.4/bin/python" -m pytest -q -rs --ignore tests/test_clients_page.py
