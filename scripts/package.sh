#!/bin/bash
# package.sh: builds the Debian packages in target/deb. `make package` calls this script. The
# packages are:
#
#   postgresql-15-lead-audit   the extension for PostgreSQL $PG, by default 15
#   lead-audit                 the command, its manual, and the systemd unit of a witness
#
# dpkg-deb packs the files that install.sh has installed, so a debian/rules is not necessary.
# dpkg-shlibdeps computes the dependencies of the packages. A package needs at least the version of
# the C library with which it was built. So run the script on the oldest Debian release that the
# packages have to support.
#
#   package.sh             builds both packages. If lintian is installed, the script checks the
#                          packages with lintian, and fails if lintian reports an error
#   package.sh extension   builds only the package of the extension
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
"$ROOT/scripts/install.sh"

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$ROOT/Cargo.toml" | head -n 1)-1
maintainer='lead_audit maintainers <maintainers@lead-audit.invalid>'
arch=$(dpkg --print-architecture)
out=$TARGET/deb
# The time stamp in the packages is the time of the last commit, so that the same sources give the
# same packages. The script does not export SOURCE_DATE_EPOCH, because cargo would then compile C
# code again after each commit.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(
  git -C "$ROOT" log -1 --format=%ct 2>/dev/null || stat -c %Y "$ROOT/CHANGELOG.md"
)}
mkdir -p "$out"

# begin PACKAGE: makes the directory $stage for the files of the package, and adds the copyright
# file and the changelogs that every Debian package has.
begin() {
  package=$1 stage=$out/stage/$1
  rm -rf "$stage"
  mkdir -p "$stage/DEBIAN"
  local doc=$stage/usr/share/doc/$package
  install -Dm 0644 "$ROOT/packaging/copyright" "$doc/copyright"
  gzip -9n <"$ROOT/CHANGELOG.md" >"$doc/changelog.gz"
  gzip -9n >"$doc/changelog.Debian.gz" <<LOG
$package ($version) unstable; urgency=medium

  * As changelog.gz says.

 -- $maintainer  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
LOG
}

# libraries FILE: prints the Debian packages that contain the libraries of FILE, which is a program
# or a library.
libraries() {
  local work=$out/shlibdeps
  rm -rf "$work"
  mkdir -p "$work/debian"
  printf 'Source: %s\n\nPackage: %s\nArchitecture: any\n' "$package" "$package" \
    >"$work/debian/control"
  (
    cd "$work" && dpkg-shlibdeps -O -xpostgresql "$1" 2>"$work/log" ||
      { cat "$work/log" >&2; exit 1; }
  ) | sed 's/^shlibs:Depends=//'
  rm -rf "$work"
}

# finish DEPENDS SHORT [FIELD...]: builds the package. DEPENDS lists the dependencies of the
# package, SHORT is its short description, and FIELDs are further lines of its control file. The
# function reads the long description from standard input.
finish() {
  local deb=$out/${package}_${version}_$arch.deb
  {
    printf '%s\n' "Package: $package" "Version: $version" "Architecture: $arch" \
      "Maintainer: $maintainer" \
      "Installed-Size: $(du -sk --apparent-size "$stage" | cut -f 1)" \
      "Depends: $1" "${@:3}" "Section: database" "Priority: optional" "Description: $2"
    sed 's/^$/./; s/^/ /'
  } >"$stage/DEBIAN/control"
  (
    cd "$stage" &&
      find . -path ./DEBIAN -prune -o -type f -printf '%P\n' | sort | xargs -d '\n' md5sum
  ) >"$stage/DEBIAN/md5sums"
  chmod -R u=rwX,go=rX "$stage"
  find "$stage" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
  rm -f "$out/$package"_*.deb
  SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH \
    dpkg-deb --root-owner-group -Zxz --build "$stage" "$deb" >/dev/null
  rm -rf "$stage"
  built+=("$deb")
}

extension() {
  local from share library page default
  step "Packaging postgresql-$PG_MAJOR-lead-audit"
  begin "postgresql-$PG_MAJOR-lead-audit"
  share=$stage/usr/share/postgresql/$PG_MAJOR/extension
  library=$stage/usr/lib/postgresql/$PG_MAJOR/lib/lead_audit.so
  from=$("$BIN/pg_config" --sharedir)/extension
  install -d "$share"
  install -Dm 0644 "$("$BIN/pg_config" --pkglibdir)/lead_audit.so" "$library"
  strip --strip-unneeded "$library"
  install -m 0644 "$from/lead_audit.control" "$ROOT"/sql/lead_audit--*--*.sql "$share"
  default=$(sed -n "s/^default_version = '\(.*\)'/\1/p" "$from/lead_audit.control")
  install -m 0644 "$from/lead_audit--$default.sql" "$share"
  install -Dm 0644 "$ROOT/README.md" "$stage/usr/share/doc/$package/README.md"
  for page in "$ROOT"/docs/*.md; do
    install -Dm 0644 "$page" "$stage/usr/share/doc/$package/docs/$(basename "$page")"
  done
  finish "postgresql-$PG_MAJOR, $(libraries "$library")" \
    "audit trail of watched tables for PostgreSQL $PG_MAJOR" "Suggests: lead-audit" <<'TEXT'
lead_audit turns every write to a watched table into an entry of an audit
trail inside the database: who changed which row, from what to what, when,
and from where. With the library preloaded it also records failed statements.

Entries have a SHA-256 checksum and are sealed in one Merkle tree, whose
checkpoints leave the database, so that a change of the trail can be proved.
TEXT
}

command_line() {
  local manual=$out/manual page
  step "Building the lead-audit command and its manual"
  cd "$ROOT"
  run_logged cli cargo build --release -p cli
  rm -rf "$manual"
  run_logged manual cargo run -p cli --example manual -- "$manual"
  step "Packaging lead-audit"
  begin lead-audit
  install -Dm 0755 "$TARGET/release/lead-audit" "$stage/usr/bin/lead-audit"
  strip "$stage/usr/bin/lead-audit"
  for page in "$manual"/*.1; do
    install -d "$stage/usr/share/man/man1"
    gzip -9nc "$page" >"$stage/usr/share/man/man1/${page##*/}.gz"
  done
  install -Dm 0644 "$manual/lead-audit.bash" \
    "$stage/usr/share/bash-completion/completions/lead-audit"
  install -Dm 0644 "$manual/lead-audit.fish" \
    "$stage/usr/share/fish/vendor_completions.d/lead-audit.fish"
  install -Dm 0644 "$manual/_lead-audit" "$stage/usr/share/zsh/vendor-completions/_lead-audit"
  install -Dm 0644 "$ROOT/packaging/lead-audit-witness@.service" \
    "$stage/lib/systemd/system/lead-audit-witness@.service"
  for page in lead-audit FORMAT; do
    install -Dm 0644 "$ROOT/docs/$page.md" "$stage/usr/share/doc/$package/$page.md"
  done
  rm -rf "$manual"
  finish "$(libraries "$stage/usr/bin/lead-audit")" \
    "exports, verifies and witnesses lead_audit trails" "Recommends: ca-certificates" <<'TEXT'
The command exports the audit trail of the PostgreSQL extension lead_audit. It
verifies exports without the database, and databases over a connection. It
witnesses the checkpoints of a log. Install it on a machine that the
administrators of the database cannot reach.
TEXT
}

built=()
case ${1:-all} in
  all)
    extension
    command_line
    ;;
  extension) extension ;;
  *) sed -n '2,/^source/{/^source/d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
if command -v lintian >/dev/null; then
  step "lintian"
  lintian --fail-on error --allow-root "${built[@]}" || die "lintian found errors"
else
  note "lintian is not installed: the packages are not checked"
fi
for deb in "${built[@]}"; do note "${deb#"$ROOT/"}"; done
