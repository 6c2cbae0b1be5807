#!/bin/bash
# install.sh: builds the extension (release) and installs it into the private server that the demo and the acceptance tests
# use. cargo decides what has to be compiled again.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
setup

cd "$ROOT"
step "Building and installing the extension (the first time about 3 minutes)"
(
  flock 9
  run_logged install cargo pgrx install --release --pg-config "$BIN/pg_config"
) 9>"$TARGET/install.lock"
