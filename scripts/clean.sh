#!/bin/bash
# clean.sh: stops the demo and the example, and deletes target/. `make clean` calls this script.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ ! -e "$TARGET/demo" ] || "$ROOT/scripts/cluster.sh" remove "$TARGET/demo"
[ ! -e "$TARGET/example" ] || {
  "$ROOT/scripts/example.sh" stop >/dev/null && "$ROOT/scripts/cluster.sh" remove "$TARGET/example"
}
[ "$STATE" = "$TARGET" ] || rm -rf "$STATE"
for state in "$TARGET"/*/target/state; do
  [ ! -L "$state" ] || rm -rf "$(readlink "$state")" # deletes files of assertions.sh
done
rm -rf "$TARGET"
