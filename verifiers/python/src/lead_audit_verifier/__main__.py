"""The command: `lead-audit-verifier entries` or `lead-audit-verifier export FILE…`.

The command also runs without installation: `python3 verifiers/python/src/lead_audit_verifier
entries`.
"""

import os
import sys

if not __package__:
    sys.dont_write_bytecode = True
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from lead_audit_verifier import entries, export

USAGE = """usage: lead-audit-verifier entries            verifies entries, read from standard input
       lead-audit-verifier export [--help]    verifies exports
"""


def main():
    command, arguments = sys.argv[1:2], sys.argv[2:]
    if command == ["entries"] and not arguments:
        return entries.main()
    if command == ["export"]:
        return export.main(arguments)
    sys.stderr.write(USAGE)
    return 2


if __name__ == "__main__":
    sys.exit(main())
