#!/usr/bin/env python3
"""Counts the changes in the output of test_decoding, by transaction, table and operation.

scripts/postgres_suites.sh and scripts/storm.sh call this script. The script reads standard input.
When the input ends, the script writes the counts to standard output. A line contains transaction,
table, operation, statement and count, separated by tabs. For a TRUNCATE, the field "statement" is a
number that all tables of the TRUNCATE share. For other operations, the field "statement" is 0. The
script leaves out the tables of the schema lead_audit, and of the schema `held`, in which watch.sql
stores its notes. After a restart the server sends unconfirmed transactions again, but the script
counts each transaction once.
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
