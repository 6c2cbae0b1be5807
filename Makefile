# The doors to this project. Everything they make lives under target/; see scripts/ for what is behind each.
.PHONY: help demo psql demo-url demo-stop example example-stop test test-all test-upgrade test-postgres test-storm test-assertions test-valgrind test-python-stress bench coverage package test-package sbom check clean

help:
	@echo 'make demo       builds lead_audit, starts a private PostgreSQL with it, and tells its story'
	@echo 'make psql       psql on the demo; also: echo "SELECT ..." | make -s psql'
	@echo 'make demo-url   prints the connection URL of the demo'
	@echo 'make demo-stop  stops the demo'
	@echo 'make example    starts the example application (examples/leads-api) and prints its URL; PORT=... if it matters'
	@echo 'make example-stop  stops it'
	@echo 'make test       all tests with PostgreSQL 15; PG=17 (16, 18): those that depend on the server, with 17, which is downloaded'
	@echo 'make test-all   all tests with 15, 16, 17 and 18; PG_CONFIG_17=... if there is one to be used'
	@echo 'make test-postgres  PostgreSQL'"'"'s own suites, with the library and every table watched; PG=17 (18; 16 with PG_SOURCE_16=...)'
	@echo 'make test-storm  everything at random and at once, for half an hour: no restart, one entry for each change; SECONDS=60'
	@echo 'make test-assertions  in-database tests on a server with assertions, and some with debug_discard_caches = 1'
	@echo 'make test-valgrind  tests against a server under valgrind, half an hour'
	@echo 'make test-python-stress  the Python client through PgBouncer, with everything at once, for a minute: no entry with a wrong user'
	@echo 'make test-upgrade  pg_upgrade to PostgreSQL 17, which is downloaded for it; the update from the library of 1.0'
	@echo 'make bench      cost of the audit beside others, about 10 minutes; ARGUMENTS=--full: hours. See bench/README.md'
	@echo 'make coverage   which lines the tests run: target/coverage/summary.txt, html/index.html, lcov.info'
	@echo 'make package    Debian packages of the extension and of the lead-audit command, in target/deb'
	@echo 'make test-package  installs them in a clean Debian (debootstrap; as root), and plays the docs there'
	@echo 'make sbom       what crates the packages are made of (CycloneDX), in target/sbom'
	@echo 'make check      format, lints, licences and sources of dependencies'
	@echo 'make clean      stops demo and example and deletes target/'

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

test:
	@scripts/test.sh

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

check:
	@scripts/check.sh

clean:
	@scripts/clean.sh
