#!/bin/bash
# cargo.sh: runs cargo in the environment of this project, which has pgrx's configuration and the
# private packages.
#   scripts/cargo.sh clippy
#   scripts/cargo.sh test -p ledger
# The in-database tests need more than this environment. Run them with scripts/test.sh.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
setup
exec cargo "$@"
