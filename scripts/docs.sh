#!/bin/bash
# docs.sh: builds the documentation as a searchable site in target/site. `make docs` calls this
# script. mdBook makes the site from the pages of the repository, in the order of docs/SUMMARY.md.
# The script fails if a page is missing in docs/SUMMARY.md, or if a link is broken.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

mdbook_version=0.5.4
work=$TARGET/book site=$TARGET/site

get_mdbook() {
  [ "$(mdbook --version 2>/dev/null)" != "mdbook v$mdbook_version" ] || return 0
  step "Building mdBook $mdbook_version (once; about 3 minutes)"
  # mdBook runs for only a second, so a short compilation of mdBook matters more than its speed.
  run_logged mdbook env CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off \
    CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
    cargo install --locked mdbook --version "=$mdbook_version" \
    --no-default-features --features search --force --root "$TOOLS" --target-dir "$TOOLS/build"
  rm -rf "$TOOLS/build"
}

get_mdbook
step "Building the site"
python3 "$ROOT/scripts/site.py" pages "$work"
mdbook build "$work" --dest-dir "$site"
python3 "$ROOT/scripts/site.py" links "$site"
note "file://$site/index.html"
