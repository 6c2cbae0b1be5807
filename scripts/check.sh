#!/bin/bash
# check.sh: format, lints, and the upgrade script, behind `make check`.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
setup

cd "$ROOT"
step "cargo fmt --check"
cargo fmt --all --check
step "cargo clippy"
cargo clippy --workspace --all-targets -- -D warnings
step "scripts/upgrade_script.py --check"
scripts/upgrade_script.py --check
