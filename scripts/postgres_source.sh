#!/bin/bash
# postgres_source.sh: prints the directory with the sources of PostgreSQL for the major version PG.
# Downloads the sources if they are missing. Only the sources contain PostgreSQL's test suites. No
# binary package of Debian contains the suites.
#
#   PG_SOURCE_16=/path/to/sources   uses the unpacked sources in this directory, and does not
#              change them
#   otherwise  downloads Debian's source package and unpacks it into target/source17. The mirror's
#              list of source packages can name a version whose files the mirror lacks. So the
#              script takes the newest version whose files the mirror has. The script does not
#              apply Debian's patches, because with them the server would load libraries from the
#              directories of the system
#
# The script changes nothing outside of target/.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# The Debian releases that have a source package of each major version. No release has PostgreSQL
# 16. `stable` is a fallback for trixie. The list of trixie can name a version that the mirror
# lacks. In this case, the list of stable can name an earlier version that the mirror has.
declare -A suites=(
  [15]="bookworm bookworm-security"
  [17]="trixie trixie-security stable"
  [18]=forky
)
source=$TARGET/source$PG_MAJOR work=$TARGET/source$PG_MAJOR-download
variable=PG_SOURCE_$PG_MAJOR

if [ -n "${!variable:-}" ]; then
  [ -e "${!variable}/src/test/regress/parallel_schedule" ] ||
    die "$variable: ${!variable} does not hold the sources of PostgreSQL"
  realpath "${!variable}"
  exit
fi

prepare_apt() {
  local mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg suite site
  # shellcheck disable=SC2016 # apt's own variable
  mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' |
    grep -v security | head -n 1)
  [ -n "$mirror" ] && [ -e "$keyring" ] ||
    die "the sources are taken from Debian's mirror, and none is configured here:" \
      "$variable says where they are"
  command -v dpkg-source >/dev/null || die "dpkg-source is missing: apt-get install dpkg-dev"
  rm -rf "$work"
  mkdir -p "$work"/{sources.list.d,lists/partial,archives/partial}
  for suite in ${suites[$PG_MAJOR]}; do
    [[ $suite != *-security ]] && site=$mirror || site=$mirror-security
    echo "deb-src [signed-by=$keyring] $site $suite main"
  done >"$work/sources.list.d/suites.list"
  : >"$work/status"
  private_apt_conf "$work" >"$work/apt.conf"
  cat >>"$work/apt.conf" <<CONF
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$work/sources.list.d";
CONF
}

download() {
  local version versions name=postgresql-$PG_MAJOR log=$TARGET/logs/source$PG_MAJOR
  versions=$(
    apt-cache -c "$work/apt.conf" showsrc "$name" | sed -n 's/^Version: //p' | sort -Vru
  ) || true
  for version in $versions; do
    if (cd "$work" && apt-get -q -c "$work/apt.conf" source --download-only "$name=$version") \
      >"$log-$version.log" 2>&1; then
      (cd "$work" && dpkg-source --no-check --skip-patches -x "${name}_$version.dsc" unpacked) \
        >"$log-unpacked.log" 2>&1 || die "see $log-unpacked.log"
      return
    fi
    note "The mirror does not have the sources of version $version." >&2
  done
  die "Debian's mirror has no sources of PostgreSQL $PG_MAJOR:" \
    "$variable=/path/to/sources says where they are"
}

if [ ! -d "$source" ]; then
  [ -n "${suites[$PG_MAJOR]:-}" ] ||
    die "Debian has no sources of PostgreSQL $PG_MAJOR:" \
      "$variable=/path/to/sources says where they are"
  step "Downloading the sources of PostgreSQL $PG_MAJOR" >&2
  prepare_apt
  mkdir -p "$TARGET/logs"
  run_logged "source$PG_MAJOR-lists" apt-get -q -c "$work/apt.conf" update >&2
  download
  mv "$work/unpacked" "$source"
  rm -rf "$work"
fi
echo "$source"
