#!/bin/bash
# python.sh: makes a Python environment with pinned packages, for what is written in Python: the tests of clients/python and
# the examples. Quick and silent when nothing is missing.
#
#   python.sh                  makes target/venv, from clients/python/requirements/sqlalchemy-2.0.txt
#   python.sh sqlalchemy-1.4   makes target/venv-sqlalchemy-1.4 from the file of that name, and so on
#   python.sh python-3.9       the same with Python 3.9; exit status 3 if there is none, on the PATH or in pyenv
#   python.sh examples/leads-api/requirements.txt   makes target/venv-leads-api from that file, and so on
#
# The package clients/python is part of each of them: as it is in the checkout, without installation.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

name=${1:-}
folder=$ROOT/clients/python/requirements
requirements=$folder/${name:-sqlalchemy-2.0}.txt
if [[ $name == */*.txt ]]; then
  requirements=$ROOT/$name
  folder=$(dirname "$requirements")
  name=$(basename "$requirements" .txt)
  name=$(basename "$folder")${name#requirements}
fi
venv=$TARGET/venv${name:+-$name}
[ -e "$requirements" ] || die "there is no ${requirements#"$ROOT/"}"

# The interpreter: python3, or for python-X.Y the first of that version that works (pyenv's stand-ins on the PATH may not).
interpreter() {
  local candidate
  [[ $name == python-* ]] || { echo python3; return; }
  for candidate in "python${name#python-}" "${PYENV_ROOT:-${HOME:-/nonexistent}/.pyenv}/versions/${name#python-}".*/bin/python3; do
    if "$candidate" -c '' 2>/dev/null; then echo "$candidate"; return; fi
  done
  exit 3
}
python=$(interpreter)

# What the environment is made from: when this changes, it is made anew.
stamp() { cat "$folder"/*.txt "${BASH_SOURCE[0]}" && "$python" --version && command -v "$python"; }

make_venv() {
  local wheel=(/usr/share/python-wheels/pip-*.whl "$PACKAGES"/usr/share/python-wheels/pip-*.whl) candidate pip=()
  step "Making ${venv#"$ROOT/"} from ${requirements#"$ROOT/"}"
  rm -rf "$venv"
  if "$python" -c 'import ensurepip' 2>/dev/null; then
    run_logged venv "$python" -m venv "$venv"
    pip=("$venv/bin/python" -m pip)
  else # Debian's Python without the package python3-venv
    run_logged venv "$python" -m venv --without-pip "$venv"
    for candidate in "${wheel[@]}"; do [ ! -e "$candidate" ] || pip=("$venv/bin/python" "$candidate/pip"); done
  fi
  run_logged "pip${name:+-$name}" "${pip[@]}" install --disable-pip-version-check --no-input --only-binary :all: -r "$requirements"
  echo "$ROOT/clients/python/src" >"$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/lead_audit.pth"
  stamp >"$venv/made-from"
}

(
  flock 9
  command -v python3 >/dev/null && python3 -c 'import ensurepip' 2>/dev/null || "$ROOT/scripts/packages.sh" pip
  use_private_packages
  [ "$(cat "$venv/made-from" 2>/dev/null)" = "$(stamp)" ] || make_venv
) 9>"$TARGET/python.lock"
