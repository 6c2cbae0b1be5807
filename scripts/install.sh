#!/bin/bash
# install.sh: makes a release build of the extension, and installs it into the private PostgreSQL
# server of the demo and the acceptance tests. cargo compiles only the parts of the code that have
# changed.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
setup

cd "$ROOT"
step "Building and installing the extension for PostgreSQL $PG_MAJOR" \
  "(the first time about 3 minutes)"
(
  flock 9
  run_logged install cargo pgrx install --release --pg-config "$BIN/pg_config" "${PG_FEATURES[@]}"
  # The upgrade tests need the install scripts of earlier versions for CREATE EXTENSION lead_audit
  # VERSION '1.0'.
  cp "$ROOT"/sql/released/lead_audit--*.sql "$("$BIN/pg_config" --sharedir)/extension/"
) 9>"$TARGET/install.lock"
