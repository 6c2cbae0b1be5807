#!/bin/bash
# example.sh: runs the example application examples/leads-api. `make example` calls this script.
#
#   example.sh run    builds and installs the extension, and starts a cluster in target/example.
#                     Then starts the application on 127.0.0.1, and prints the application's URL.
#                     The application uses the port $PORT, or a free port. The first run adds the
#                     data of leads_api/walkthrough.py. The cluster keeps its data until `make
#                     clean`. If SIGNED=1 is set in the first run, lead_audit signs checkpoints
#                     with a key that the lead-audit command makes
#   example.sh stop   stops the application and its cluster
#   example.sh test [ARGUMENT...]   runs the tests of the application in a separate cluster. The
#                     ARGUMENTs go to pytest
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

folder=$ROOT/examples/leads-api
dir=$TARGET/example
pid_file=$TARGET/example.pid
log=$TARGET/logs/example.log
cluster() { "$ROOT/scripts/cluster.sh" "$@"; }

# start_cluster CLUSTER [LINE...]: starts a cluster that preloads the library. Without preloading,
# lead_audit neither records failed statements nor seals entries by itself.
start_cluster() { cluster start "$1" "shared_preload_libraries = 'lead_audit'" "${@:2}"; }

# make_key CLUSTER: makes a signing key that the server can read, and a directory to which the
# server can write checkpoints.
make_key() {
  local home public
  home=$(realpath "$1")
  [ ! -e "$home/signing.key" ] || return 0
  step "Building the lead-audit command, which makes the key"
  (cd "$ROOT" && run_logged cli cargo build --release -p cli)
  public=$("$TARGET/release/lead-audit" --quiet keygen \
    --name example.com/leads --output "$home/signing.key")
  as_server mkdir -p "$home/checkpoints"
  printf '%s\n' "$public" >"$home/signing.pub"
  [ -z "$SERVER_USER" ] || chown "$SERVER_USER:" "$home/signing.key"
}

# Prints the pid of the application if the application runs. The function checks the process's
# command line, because the pid in an old pid file can belong to another process.
server_pid() {
  local pid
  pid=$(cat "$pid_file" 2>/dev/null) &&
    [[ $(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline") == *" -m leads_api "* ]] &&
    echo "$pid"
}

wait_for_url() {
  local tries=0
  until grep -q '^http' "$log" 2>/dev/null; do
    if ! server_pid >/dev/null && [ $tries -gt 20 ] || [ $tries -gt 600 ]; then
      cat "$log" >&2
      die "the application did not start"
    fi
    tries=$((tries + 1))
    sleep 0.1
  done
}

run() {
  local python=$TARGET/venv-leads-api/bin/python superuser socket made signing=()
  step "Looking for what the example needs"
  setup
  "$ROOT/scripts/install.sh"
  "$ROOT/scripts/python.sh" examples/leads-api/requirements.txt
  stop_application
  step "Starting a private PostgreSQL (Unix socket only) in target/example"
  # Stops a running server, because the server must restart to load the new library.
  cluster stop "$dir"
  start_cluster "$dir"
  superuser=$(cluster url "$dir")
  socket=${superuser#*\?}
  cd "$folder"
  export PYTHONDONTWRITEBYTECODE=1
  if [ "${SIGNED:-}" = 1 ]; then
    make_key "$dir"
    signing=("$(realpath "$dir")/signing.key" "$(realpath "$dir")/checkpoints")
  fi
  made=$("$python" -m leads_api.setup_database "$superuser" "${signing[@]}")
  step "Starting the application (examples/leads-api)"
  export LEADS_DATABASE_URL="postgresql+psycopg://leads_app@/leads?$socket"
  export LEADS_AUDITOR_URL="postgresql+psycopg://leads_auditor@/leads?$socket"
  mkdir -p "$(dirname "$log")"
  : >"$log" # removes the URL of an earlier run
  # shellcheck disable=SC2086 # no PORT, no argument
  setsid "$python" -m leads_api ${PORT:-} >"$log" 2>&1 </dev/null &
  echo $! >"$pid_file"
  wait_for_url
  if [ "$made" = made ]; then "$python" -m leads_api.walkthrough "$(grep -m 1 '^http' "$log")"; fi
  step "The example is running:"
  note "$(grep -m 1 '^http' "$log")     open it in two browsers, and be two people"
  note "make example-stop          stops it"
  [ ! -e "$dir/signing.pub" ] ||
    note "Its checkpoints are signed; the public key: $(cat "$dir/signing.pub")"
}

stop_application() {
  local pid
  if pid=$(server_pid); then
    kill "$pid"
    while server_pid >/dev/null; do sleep 0.1; done
  fi
  rm -f "$pid_file"
}

# Installs Debian's Chromium for the browser tests. Only root can install Chromium. Without
# Chromium, pytest skips the browser tests.
get_chromium() {
  command -v chromium >/dev/null && return
  if [ "$(id -u)" -ne 0 ] || [ "${LEAD_AUDIT_PRIVATE_PACKAGES:-}" = 1 ] ||
    ! command -v apt-get >/dev/null; then
    note "Chromium is missing and cannot be installed: the browser tests are skipped."
    return
  fi
  step "Installing Debian's Chromium, for the tests in a browser"
  local apt=(env DEBIAN_FRONTEND=noninteractive
    apt-get -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
  (
    run_logged apt-update "${apt[@]}" update &&
      run_logged apt-chromium "${apt[@]}" install --no-install-recommends chromium
  ) ||
    note "Chromium could not be installed: the browser tests are skipped."
}

run_tests() {
  local python=$TARGET/venv-leads-api-test/bin/python status=0
  setup
  "$ROOT/scripts/install.sh"
  "$ROOT/scripts/python.sh" examples/leads-api/requirements-test.txt
  get_chromium
  step "Tests of the example: examples/leads-api"
  cluster remove "$dir-test"
  start_cluster "$dir-test" "fsync = off"
  (
    cd "$folder"
    export PYTHONDONTWRITEBYTECODE=1 LEADS_TEST_URL
    LEADS_TEST_URL=$(cluster url "$dir-test")
    # The test of signed checkpoints needs the command lead-audit. `make test` and `make example
    # SIGNED=1` build this command.
    export LEAD_AUDIT_COMMAND=$TARGET/debug/lead-audit
    [ -e "$LEAD_AUDIT_COMMAND" ] || LEAD_AUDIT_COMMAND=$TARGET/release/lead-audit
    "$python" -m mypy
    "$python" -m pytest -p no:cacheprovider "$@"
  ) || status=$?
  cluster remove "$dir-test"
  return $status
}

case ${1:-} in
  run) run ;;
  stop)
    stop_application
    cluster stop "$dir"
    note "The example is stopped. 'make example' starts it again."
    ;;
  test) run_tests "${@:2}" ;;
  *) sed -n '2,/^source/{/^source/d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
