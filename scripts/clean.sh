#!/bin/bash
# clean.sh: stops the demo and deletes everything that the scripts made, behind `make clean`.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ ! -e "$TARGET/demo" ] || "$ROOT/scripts/cluster.sh" remove "$TARGET/demo"
[ "$STATE" = "$TARGET" ] || rm -rf "$STATE"
rm -rf "$TARGET"
