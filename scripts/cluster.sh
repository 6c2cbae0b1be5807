#!/bin/bash
# cluster.sh: manages private PostgreSQL clusters for the demo and for tests. A cluster listens
# only on a Unix socket, in a directory that only its owner and root can enter. The superuser is
# postgres. The roles of a cluster have no passwords. If root runs this script, the server runs as
# the user postgres or nobody. Run scripts/install.sh first.
#
#   cluster.sh start DIR [LINE...]      creates the cluster in DIR if it does not exist, and starts
#                                       the server. Each LINE is a line of postgresql.conf, for
#                                       example "fsync = off". Lines of earlier starts have no
#                                       effect. Returns when the server accepts connections. If the
#                                       server already runs, nothing changes. The command also
#                                       works after a crash or kill -9 of the server.
#   cluster.sh stop DIR [MODE]          stops the server. MODE is fast (the default), immediate
#                                       (like a crash) or smart
#   cluster.sh remove DIR               stops the server and deletes DIR
#   cluster.sh status DIR               returns exit code 0 if the server runs
#   cluster.sh url DIR [DATABASE]       prints the superuser's connection URL for the database
#                                       DATABASE, by default postgres
#   cluster.sh psql DIR [ARGUMENT...]   runs psql with these arguments, as the superuser unless -U
#                                       is given
#   cluster.sh socket DIR               prints the directory of the server's socket. The directory
#                                       can change at each start
#   cluster.sh log DIR                  prints the path of the server's log
#
# DIR contains the data directory data/, the server's log, and run/, the directory of the socket.
# If the path of run/ is too long for a socket, run is a link to a directory in /tmp. DIR can be a
# link to a directory outside of target/ (see STATE in lib.sh). After a failure, the script prints
# a message and the end of the server's log on standard error, and returns exit code 1.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# If the server's environment has one of these variables, pgrx adds a location in the library's
# source code to the DETAIL of errors.
unset RUST_BACKTRACE RUST_LIB_BACKTRACE

usage() { sed -n '2,/^source/{/^source/d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2; }

socket_limit=$((107 - 16)) # the maximum length of a socket's directory

# Sets the variables home (the real path of DIR), data, run and log.
locate() {
  home=$(realpath -m "$1")
  if [ ! -e "$home" ] && [ "$STATE" != "$TARGET" ] && [[ $home == "$TARGET"/* ]]; then
    # If the server's user cannot enter target/, the cluster is in STATE, and make_home makes DIR a
    # link to the cluster.
    home=$STATE/${home#"$TARGET"/}
  fi
  data=$home/data run=$home/run log=$home/log
}

# Creates the directory $home, which the server's user owns.
make_home() {
  mkdir -p "$(dirname "$home")" "$(dirname "$1")"
  [ -d "$home" ] || mkdir -m 0700 "$home"
  [ -z "$SERVER_USER" ] || chown "$SERVER_USER:" "$home"
  [ "$(realpath -m "$1")" = "$home" ] || ln -sfn "$home" "$1"
  as_server test -w "$home" ||
    die "the user ${SERVER_USER:-$USER} cannot write to $home:" \
      "choose a directory that it can enter"
}

initialise() {
  rm -rf "$data.new"
  as_server "$BIN/initdb" --no-sync -U postgres -E UTF8 --locale=C.UTF-8 \
    --auth-local=trust --auth-host=reject -D "$data.new" >"$home/initdb.log" 2>&1 ||
    { cat "$home/initdb.log" >&2; die "initdb failed"; }
  echo "include_if_exists = 'cluster.conf'" >>"$data.new/postgresql.conf"
  mv "$data.new" "$data"
}

# Prints the server's pid if the server runs. The function checks the process's directory, because
# after a kill the pid in postmaster.pid can belong to another process.
server_pid() {
  local pid
  pid=$(head -n 1 "$data/postmaster.pid" 2>/dev/null) || return 1
  [ -n "$pid" ] && [ "$(readlink "/proc/$pid/cwd")" = "$data" ] || return 1
  echo "$pid"
}

make_socket_directory() {
  if [ ! -d "$run" ]; then
    if [ ${#run} -le $socket_limit ]; then
      as_server mkdir -m 0700 "$run"
    else
      ln -sfn "$(as_server mktemp -d /tmp/lead_audit-XXXXXX)" "$run"
    fi
  fi
  rm -f "$run"/.s.PGSQL.*
}

write_configuration() {
  {
    echo "listen_addresses = ''"
    echo "unix_socket_directories = '\"$(realpath "$run")\"'"
    echo "port = 5432"
    echo "log_line_prefix = '%m [%p] '"
    printf '%s\n' "$@"
  } >"$data/cluster.conf"
  chmod 0644 "$data/cluster.conf" # only the owner can enter the directory
}

start() {
  local dir=$1 tries=0 logged=0
  shift
  [ -x "$BIN/postgres" ] || die "there is no server yet: run scripts/install.sh first"
  make_home "$dir"
  [ -d "$data" ] || initialise
  ! server_pid >/dev/null || return 0
  rm -f "$data/postmaster.pid"
  make_socket_directory
  write_configuration "$@"
  [ ! -e "$log" ] || logged=$(stat -c %s "$log")
  # After a kill -9 of the postmaster, the server's other processes need time to end and release
  # the shared memory.
  until as_server "$BIN/pg_ctl" -s -w -t 120 -D "$data" -l "$log" start \
    </dev/null >/dev/null 2>"$home/pg_ctl.log"; do
    tries=$((tries + 1))
    if [ $tries -lt 20 ] && tail -n 5 "$log" | grep -q 'pre-existing shared memory block'; then
      sleep 0.5
      continue
    fi
    cat "$home/pg_ctl.log" >&2
    [ ! -e "$log" ] || tail -c "+$((logged + 1))" "$log" | tail -n 20 >&2
    die "the server in $home did not start"
  done
}

stop() {
  local link
  if server_pid >/dev/null; then
    as_server "$BIN/pg_ctl" -s -w -t 120 -D "$data" -m "${1:-fast}" stop ||
      die "the server in $home did not stop"
  fi
  if [ -L "$run" ]; then
    link=$(readlink "$run")
    rm -rf "$link" "$run"
  fi
}

running() { server_pid >/dev/null || die "no server runs in $home"; }

# libpq, Rust's postgres and sqlx, psycopg, asyncpg and SQLAlchemy all accept this form of the URL.
url() {
  local host
  host=$(realpath "$run")
  host=${host//%/%25}
  host=${host// /%20}
  host=${host//#/%23}
  host=${host//&/%26}
  host=${host//+/%2B}
  host=${host//\?/%3F}
  echo "postgresql://postgres@/$1?host=$host"
}

[ $# -ge 2 ] || usage
command=$1
shift
dir=$1
shift
locate "$dir"
case $command in
  start) start "$dir" "$@" ;;
  stop) stop "$@" ;;
  remove)
    stop immediate
    rm -rf "$home"
    [ ! -L "$dir" ] || rm -f "$dir"
    ;;
  status) server_pid >/dev/null ;;
  url) running && url "${1:-postgres}" ;;
  psql)
    running
    PGHOST=$(realpath "$run") PGUSER=postgres exec "$BIN/psql" "$@"
    ;;
  socket) running && realpath "$run" ;;
  log) echo "$log" ;;
  *) usage ;;
esac
