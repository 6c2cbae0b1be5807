# The doors to this project. Everything they make lives under target/; see scripts/ for what is behind each.
.PHONY: help demo psql demo-url demo-stop example example-stop test test-upgrade test-valgrind bench check clean

help:
	@echo 'make demo       builds lead_audit, starts a private PostgreSQL with it, and tells its story'
	@echo 'make psql       psql on the demo; also: echo "SELECT ..." | make -s psql'
	@echo 'make demo-url   prints the connection URL of the demo'
	@echo 'make demo-stop  stops the demo'
	@echo 'make example    starts the example application (examples/leads-api) and prints its URL; PORT=... if it matters'
	@echo 'make example-stop  stops it'
	@echo 'make test       all tests'
	@echo 'make test-valgrind  tests against a server under valgrind, half an hour'
	@echo 'make test-upgrade  pg_upgrade to PostgreSQL 17, which is downloaded for it'
	@echo 'make bench      cost of the audit beside others, about 10 minutes; ARGUMENTS=--full: hours. See bench/README.md'
	@echo 'make check      format and lints'
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

test-upgrade:
	@scripts/test.sh upgrade

test-valgrind:
	@scripts/valgrind.sh

bench:
	@bench/compare.sh $(ARGUMENTS)

check:
	@scripts/check.sh

clean:
	@scripts/clean.sh
