#!/bin/bash
# cargo.sh: runs cargo in the environment of this project, which contains the configuration of pgrx
# and the packages that packages.sh has unpacked.
#   scripts/cargo.sh clippy           runs cargo clippy
#   scripts/cargo.sh test -p ledger   runs the tests of the crate ledger
# Run the in-database tests with scripts/test.sh, because the in-database tests need more than this
# environment.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
setup
exec cargo "$@"
