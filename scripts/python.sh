#!/bin/bash
# python.sh: makes a virtual environment of Python with pinned packages. The tests of
# clients/python, the examples and the programs of `make check` use such environments. If the
# environment exists and is up to date, the script is quick and prints nothing.
#
#   python.sh                  makes target/venv from
#                              clients/python/requirements/sqlalchemy-2.0.txt
#   python.sh sqlalchemy-1.4   makes target/venv-sqlalchemy-1.4 from sqlalchemy-1.4.txt in
#                              clients/python/requirements. The argument can be the name of any
#                              file in this directory, without .txt
#   python.sh python-3.9       makes target/venv-python-3.9 from python-3.9.txt, with Python 3.9
#                              from the PATH or from pyenv. The script ends with exit code 3 if it
#                              finds no Python 3.9
#   python.sh examples/leads-api/requirements.txt   makes target/venv-leads-api from the file
#                              examples/leads-api/requirements.txt. The argument can be the path of
#                              any file with requirements
#
# Each virtual environment also contains the package of clients/python, directly from the checkout.
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

# Prints the interpreter for the environment, by default python3. For python-X.Y, the function
# prints the first interpreter of version X.Y that works, because pyenv can put interpreters on the
# PATH that do not work.
interpreter() {
  local candidate version=${name#python-} pyenv=${PYENV_ROOT:-${HOME:-/nonexistent}/.pyenv}
  [[ $name == python-* ]] || { echo python3; return; }
  for candidate in "python$version" "$pyenv/versions/$version".*/bin/python3; do
    if "$candidate" -c '' 2>/dev/null; then echo "$candidate"; return; fi
  done
  exit 3
}
python=$(interpreter)

# Prints everything on which the virtual environment depends. If the printed text has changed since
# the last run, the script makes the environment again.
stamp() {
  echo "$ROOT" && cat "$folder"/*.txt "${BASH_SOURCE[0]}" &&
    "$python" --version && command -v "$python"
}

make_venv() {
  local wheel=(/usr/share/python-wheels/pip-*.whl "$PACKAGES"/usr/share/python-wheels/pip-*.whl)
  local candidate packages pip=()
  step "Making ${venv#"$ROOT/"} from ${requirements#"$ROOT/"}"
  rm -rf "$venv"
  if "$python" -c 'import ensurepip' 2>/dev/null; then
    run_logged venv "$python" -m venv "$venv"
    pip=("$venv/bin/python" -m pip)
  else # Debian's Python can lack the package python3-venv
    run_logged venv "$python" -m venv --without-pip "$venv"
    for candidate in "${wheel[@]}"; do
      [ ! -e "$candidate" ] || pip=("$venv/bin/python" "$candidate/pip")
    done
  fi
  run_logged "pip${name:+-$name}" "${pip[@]}" install --disable-pip-version-check --no-input \
    --only-binary :all: -r "$requirements"
  packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  echo "$ROOT/clients/python/src" >"$packages/lead_audit.pth"
  stamp >"$venv/made-from"
}

(
  flock 9
  command -v python3 >/dev/null && python3 -c 'import ensurepip' 2>/dev/null ||
    "$ROOT/scripts/packages.sh" pip
  use_private_packages
  [ "$(cat "$venv/made-from" 2>/dev/null)" = "$(stamp)" ] || make_venv
) 9>"$TARGET/python.lock"
