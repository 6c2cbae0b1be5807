#!/bin/bash
# cargo.sh: runs cargo in the environment of this project, which contains the configuration of pgrx
# and the packages that packages.sh has unpacked.
#   scripts/cargo.sh clippy
#   scripts/cargo.sh test -p ledger
# Run the in-database tests with scripts/test.sh, because they need more than this environment.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
setup
exec cargo "$@"
