# The commands of this project. They call scripts in scripts/, which write everything to target/.
.PHONY: help build install fmt check test docs demo psql demo-url demo-stop example example-stop \
  test-all test-upgrade test-postgres test-storm test-assertions test-valgrind \
  test-python-stress bench coverage package test-package sbom clean

help:
	@echo 'Try it:'
	@echo '  make demo          build lead_audit, start a private PostgreSQL, show what it records'
	@echo '  make psql          open psql on the demo; also: echo "SELECT ..." | make -s psql'
	@echo '  make demo-url      print the connection URL of the demo'
	@echo '  make demo-stop     stop the demo'
	@echo '  make example       start the example application and print its URL; PORT=...'
	@echo '  make example-stop  stop it'
	@echo
	@echo 'Build:'
	@echo '  make build         build the extension and the lead-audit command (release)'
	@echo '  make install       install the extension into the server of PG_CONFIG=/path/to/pg_config'
	@echo '  make package       build the Debian packages: target/deb'
	@echo '  make docs          build the documentation as a searchable site: target/site'
	@echo '  make sbom          list the crates in the packages (CycloneDX): target/sbom'
	@echo '  make clean         stop demo and example, and delete target/'
	@echo
	@echo 'Change it (CONTRIBUTING.md):'
	@echo '  make fmt           format the Rust code'
	@echo '  make check         check format, lints, spelling, prose and dependencies'
	@echo '  make test          run all tests with PostgreSQL 15; PG=17: those that need a server'
	@echo '  make test NAME=x   run the tests of any kind that have x in their name'
	@echo '  make test-all      run all tests with 15, 16, 17 and 18'
	@echo '  make coverage      measure which lines the tests run: target/coverage'
	@echo '  make bench         measure the cost of the audit, 10 minutes; ARGUMENTS=--full: hours'
	@echo
	@echo 'Longer tests:'
	@echo '  make test-postgres      run the suites of PostgreSQL with every table watched; PG=17, 18'
	@echo '  make test-storm         write, change tables, kill processes for 30 minutes; SECONDS=60'
	@echo '  make test-assertions    run tests on a server with assertions'
	@echo '  make test-valgrind      run tests against a server under valgrind, 30 minutes'
	@echo '  make test-upgrade       run pg_upgrade to PostgreSQL 17, and the update from version 1.0'
	@echo '  make test-package       install the packages in a clean Debian, as root'
	@echo '  make test-python-stress run the Python client through PgBouncer under load, 1 minute'

build:
	@scripts/build.sh

install:
	@scripts/build.sh install

fmt:
	@scripts/cargo.sh fmt --all

check:
	@scripts/check.sh

test:
	@scripts/test.sh $(if $(NAME),named $(NAME))

docs:
	@scripts/docs.sh

demo:
	@scripts/demo.sh run

psql:
	@scripts/demo.sh psql

demo-url:
	@scripts/demo.sh url

demo-stop:
	@scripts/demo.sh stop

example:
	@scripts/example.sh run

example-stop:
	@scripts/example.sh stop

test-all:
	@scripts/test.sh majors

test-upgrade:
	@scripts/test.sh upgrade
	@scripts/test.sh released

test-postgres:
	@scripts/postgres_suites.sh

test-storm:
	@scripts/storm.sh $(SECONDS)

test-assertions:
	@scripts/assertions.sh

test-python-stress:
	@scripts/test_python_stress.sh

test-valgrind:
	@scripts/valgrind.sh

bench:
	@bench/compare.sh $(ARGUMENTS)

coverage:
	@scripts/coverage.sh

package:
	@scripts/package.sh

test-package:
	@scripts/test_package.sh

sbom:
	@scripts/sbom.sh

clean:
	@scripts/clean.sh
