#!/usr/bin/env python3
"""Counts the changes in the output of test_decoding, by transaction, table and operation.

scripts/postgres_suites.sh and scripts/storm.sh call this script. It reads standard input. When the
input ends, it writes lines to standard output. A line contains transaction, table, operation,
statement and count, separated by tabs. The statement is 0, except for TRUNCATE. All tables of one
TRUNCATE have the same number there. Tables of the schemas lead_audit and held are left out, because
watch.sql stores its notes in held. After a restart the server sends unconfirmed transactions again.
The script counts each transaction once.
"""

import re
import sys
from collections import Counter

BEGIN = re.compile(rb"BEGIN (\d+)\n")
CHANGE = re.compile(rb'table ((?:"[^"]*"|[^":])+): (INSERT|UPDATE|DELETE|TRUNCATE):')
NAME = re.compile(rb'(?:"[^"]*"|[^",])+')

transactions: dict[bytes, Counter[tuple[bytes, bytes, int]]] = {}
changes: Counter[tuple[bytes, bytes, int]] = Counter()
for number, line in enumerate(sys.stdin.buffer, 1):
    if begin := BEGIN.fullmatch(line):
        transactions[begin[1]] = changes = Counter()
    elif line.startswith((b"table lead_audit.", b"table held.")):
        continue
    elif change := CHANGE.match(line):
        operation = change[2]
        for name in NAME.findall(change[1]):
            changes[name.strip(), operation, number if operation == b"TRUNCATE" else 0] += 1
for xid, changes in transactions.items():
    for (name, operation, statement), count in changes.items():
        sys.stdout.buffer.write(
            b"\t".join(
                (xid, name.replace(b"\\", b"\\\\"), operation, b"%d" % statement, b"%d\n" % count)
            )
        )
