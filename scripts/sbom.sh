#!/bin/bash
# sbom.sh: lists the crates of the extension and of the command in the format CycloneDX 1.5 (JSON).
# `make sbom` calls this script. The script writes two files to target/sbom:
#
#   lead_audit.cdx.json   lists the crates of the extension
#   lead-audit.cdx.json   lists the crates of the command
#
# Each file lists the crates that a build on this kind of machine compiles, with the versions in
# Cargo.lock. The files also list crates that run only during the build. The same commit gives the
# same files. The first run compiles cargo-cyclonedx, which takes about a minute.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

cyclonedx_version=0.5.9
out=$TARGET/sbom

get_cargo_cyclonedx() {
  local wanted="cargo-cyclonedx-cyclonedx $cyclonedx_version"
  [ "$(cargo-cyclonedx cyclonedx --version 2>/dev/null)" != "$wanted" ] || return 0
  step "Building cargo-cyclonedx $cyclonedx_version"
  run_logged cargo-cyclonedx env CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off \
    CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
    cargo install --locked cargo-cyclonedx --version "=$cyclonedx_version" --force \
    --root "$TOOLS" --target-dir "$TOOLS/build-cyclonedx"
  rm -rf "$TOOLS/build-cyclonedx"
}

# Makes the files. cargo-cyclonedx writes a file beside each Cargo.toml, so the function runs
# cargo-cyclonedx on a copy of the sources.
describe() {
  local work=$out/work
  rm -rf "$out"
  mkdir -p "$work"
  (cd "$ROOT" && find Cargo.toml Cargo.lock src crates \
    \( -name Cargo.toml -o -name Cargo.lock -o -name '*.rs' \) -exec cp --parents -t "$work" {} +)
  (cd "$work" && run_logged sbom cargo cyclonedx --format json --spec-version 1.5 \
    --override-filename sbom)
  # Replaces the path of the copy in the files, because this path differs between machines.
  local remove="s|path+file://$work|path+file:///lead_audit|g"
  sed "$remove" "$work/sbom.json" >"$out/lead_audit.cdx.json"
  sed "$remove" "$work/crates/cli/sbom.json" >"$out/lead-audit.cdx.json"
  rm -rf "$work"
}

get_cargo_cyclonedx
step "The crates of the extension and of the command"
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(
  git -C "$ROOT" log -1 --format=%ct 2>/dev/null || stat -c %Y "$ROOT/Cargo.lock"
)}
export SOURCE_DATE_EPOCH
describe
for file in "$out"/*.cdx.json; do
  note "${file#"$ROOT/"}: $(grep -c '"purl": "pkg:cargo/[^?]*"' "$file") crates"
done
