#!/bin/bash
# cargo.sh: cargo in this project's environment (pgrx's configuration, private packages), for work by hand:
#   scripts/cargo.sh clippy
#   scripts/cargo.sh test -p ledger
# For the in-database tests use scripts/test.sh: they need more than the environment.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
setup
exec cargo "$@"
