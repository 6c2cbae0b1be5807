#!/bin/bash
# test_python.sh: runs the tests of clients/python and of docs/clients.md, on private clusters
# under target/python.
#
#   test_python.sh               runs mypy. Then runs pytest twice: with SQLAlchemy 2 and psycopg,
#                                and with SQLAlchemy 1.4, where Django uses psycopg2
#   test_python.sh ARGUMENT...   runs only pytest with SQLAlchemy 2. The ARGUMENTs go to pytest
#   test_python.sh versions      runs pytest with Python 3.9 (Django 4.2), 3.10 (SQLAlchemy 1.4)
#                                and 3.13 (Django 6, SQLAlchemy 2.1). Skips a Python version that
#                                is not installed
#   LEAD_AUDIT_SQLX=1            with this variable, the script also runs the example with sqlx,
#                                which takes minutes to compile
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
setup

"$ROOT/scripts/install.sh"
"$ROOT/scripts/packages.sh" pip pgbouncer jdbc spring ruby go
unset LEAD_AUDIT_PACKAGES_USED # so that use_private_packages finds the new packages
use_private_packages
export LEAD_AUDIT_PACKAGES=$PACKAGES
"$ROOT/scripts/python.sh"
"$ROOT/scripts/python.sh" sqlalchemy-1.4

# Removes the clusters that killed runs have left.
for dir in "$TARGET"/python/cluster-*; do
  if [ -e "$dir" ] && ! kill -0 "${dir##*-}" 2>/dev/null; then
    "$ROOT/scripts/cluster.sh" remove "$dir"
  fi
done

# Runs the tests with each installed version of Python. Fails if the tests fail with one of the
# versions, or if none of the versions is installed.
versions() {
  local version status=0 made run=0
  for version in 3.9 3.10 3.13; do
    made=0
    "$ROOT/scripts/python.sh" "python-$version" || made=$?
    if [ $made -eq 3 ]; then
      note "There is no Python $version: not run with it."
      continue
    fi
    [ $made -eq 0 ] || return $made
    run=1
    step "Python tests: pytest, with Python $version"
    LEAD_AUDIT_DJANGO_PSYCOPG2=$([ $version != 3.10 ] || echo 1) PYTHONDONTWRITEBYTECODE=1 \
      "$TARGET/venv-python-$version/bin/python" -m pytest -q -rs \
      --ignore tests/test_clients_page.py || status=$?
  done
  [ $run -eq 1 ] || die "none of these Pythons is installed"
  return $status
}

cd "$ROOT/clients/python"
if [ "${1:-}" = versions ]; then
  versions
  exit
fi
if [ $# -gt 0 ]; then
  exec "$TARGET/venv/bin/python" -m pytest "$@"
fi
step "Types: mypy --strict"
"$TARGET/venv/bin/python" -m mypy
step "Python tests: pytest, with SQLAlchemy 2"
"$TARGET/venv/bin/python" -m pytest -q -rs
step "Python tests: pytest, with SQLAlchemy 1.4"
LEAD_AUDIT_DJANGO_PSYCOPG2=1 "$TARGET/venv-sqlalchemy-1.4/bin/python" -m pytest -q -rs \
  --ignore tests/test_clients_page.py
