#!/usr/bin/env python3
"""Counts what test_decoding says, line by line from standard input, by transaction, table and operation.

Called by scripts/postgres_suites.sh. When the input ends, writes lines of transaction, table, operation, statement and count with tabs
between them to standard output. The statement is a number for each TRUNCATE, which can be of several tables, and else 0. Tables of
the schemas lead_audit and held, in which watch.sql takes notes, are left out.
"""

import re
import sys
from collections import Counter

BEGIN = re.compile(rb"BEGIN (\d+)\n")
CHANGE = re.compile(rb'table ((?:"[^"]*"|[^":])+): (INSERT|UPDATE|DELETE|TRUNCATE):')
NAME = re.compile(rb'(?:"[^"]*"|[^",])+')

changes: Counter[tuple[bytes, bytes, bytes, int]] = Counter()
xid = b""
for number, line in enumerate(sys.stdin.buffer, 1):
    if begin := BEGIN.fullmatch(line):
        xid = begin[1]
    elif line.startswith((b"table lead_audit.", b"table held.")):
        continue
    elif change := CHANGE.match(line):
        operation = change[2]
        for name in NAME.findall(change[1]):
            changes[xid, name.strip(), operation, number if operation == b"TRUNCATE" else 0] += 1
for (xid, name, operation, statement), count in changes.items():
    sys.stdout.buffer.write(b"\t".join((xid, name.replace(b"\\", b"\\\\"), operation, b"%d" % statement, b"%d\n" % count)))
