#!/usr/bin/env python3
"""upgrade_script.py: generates the upgrade script of the next version from the SQL files.

  upgrade_script.py            writes sql/lead_audit--OLD--NEW.sql
  upgrade_script.py --check    ends with exit code 1 if the existing file is not up to date

NEW is the default_version of lead_audit.control. OLD is the newest version with an install script
in sql/released/. The upgrade script has every statement of sql/*.sql that the install script of OLD
lacks, in the order of the files. CREATE FUNCTION, VIEW and TRIGGER become CREATE OR REPLACE if OLD
has the object. A changed event trigger is dropped and created again.

upgrade_script.py cannot derive the following statements. Write them manually in
sql/upgrade/OLD--NEW.sql:
* ALTER TABLE for a table of OLD
* DROP for an object that NEW lacks, or for a function that gets other arguments or another result.
  upgrade_script.py adds the statements that create the function again, with its privileges and
  comments
* ALTER ... SET SCHEMA for an object that moves to another schema
* statements that move data
The line "-- GENERATED" divides sql/upgrade/OLD--NEW.sql. In the upgrade script, the part above "--
GENERATED" stands before the generated statements, and the part below "-- GENERATED" stands after
the generated statements.

crates/acceptance/tests/upgrade.rs compares the catalogs of a new database and of an upgraded
database. So the comparison finds statements that the upgrade script lacks.
docs/decisions/004-upgrade-scripts.md gives the reasons for this design.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MARK = "-- GENERATED"
TOKEN = re.compile(
    r"(?P<comment>--[^\n]*|/\*.*?\*/)|(?P<quoted>'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|(?P<tag>\$\w*\$).*?(?P=tag))|(?P<end>;)|(?P<other>[^-/'\"$;]+|.)",
    re.DOTALL,
)
# Matches a CREATE statement, and finds the kind and the name of the created object. EVENT TRIGGER
# stands before TRIGGER in the expression, because the expression tries the kinds in its order.
MAKES = re.compile(
    r"CREATE (?:OR REPLACE )?(?:UNIQUE )?(?P<kind>EVENT"
    r" TRIGGER|TRIGGER|FUNCTION|VIEW|TABLE|SEQUENCE|INDEX|TYPE|DOMAIN|ROLE)"
    r" (?:IF NOT EXISTS )?(?P<name>[\w.\"]+)(?:.*? ON (?P<on>[\w.]+))?",
    re.DOTALL,
)
MOVES = re.compile(
    r"\bALTER (FUNCTION|VIEW|TABLE|SEQUENCE|TYPE) (?:IF EXISTS )?([\w.]+)\s*(?:\([^)]*\))?\s+SET"
    r" SCHEMA (\w+)"
)
REPLACEABLE = ("FUNCTION", "VIEW", "TRIGGER")


def fail(message):
    sys.exit(f"upgrade_script.py: {message}")


def statements(text):
    """Returns the statements of an SQL script, without comments and final semicolons."""
    found, current = [], []
    for token in TOKEN.finditer(text):
        if token["end"]:
            found.append("".join(current).strip())
            current = []
        elif token["comment"] is None:
            current.append(token.group())
    if "".join(current).strip():
        fail(f"a statement does not end: {''.join(current).strip()[:80]}")
    return [statement for statement in found if statement]


def key(statement):
    """Returns the statement with single spaces, so that comparisons ignore line breaks."""
    return " ".join(statement.split())


def made(statement):
    """Returns the kind and the name of the object that a CREATE statement creates, or None.

    The returned name of a trigger includes the trigger's table.
    """
    match = MAKES.match(statement)
    if not match:
        return None
    kind, name = match["kind"], match["name"]
    return kind, f"{name} ON {match['on']}" if kind == "TRIGGER" else name


def mentions(statement, kind, name):
    """Returns whether a REVOKE, GRANT, COMMENT or ALTER names the object."""
    if kind == "EVENT TRIGGER":
        return re.search(rf"\bEVENT TRIGGER {re.escape(name)}\b", statement) is not None
    if kind == "TRIGGER":
        trigger, table = name.split(" ON ")
        return (
            re.search(rf"\bTRIGGER {re.escape(trigger)}\b", statement) is not None
            and table in statement
        )
    if kind == "FUNCTION" and " FUNCTION " not in statement:
        return False
    return re.search(rf"{re.escape(name)}(?![\w])", re.split(r"\sIS\s+'", statement)[0]) is not None


def after_moves(statement, moves):
    """Returns the statement with the new names of moved objects.

    Returns a statement with a dollar-quoted function body unchanged.
    """
    if re.search(r"\$\w*\$", statement):
        return statement
    for _, name, schema in moves:
        statement = re.sub(
            rf"(?<![\w.]){re.escape(name)}(?!\w)", f"{schema}.{name.split('.')[-1]}", statement
        )
    return statement


def difference(old, new, by_hand):
    """Returns the statements that only `new` has, without the manual statements of `by_hand`."""
    moves = MOVES.findall(by_hand)
    had_text = {key(after_moves(statement, moves)) for statement in old} | {
        key(statement) for statement in statements(by_hand)
    }
    had = {made(statement) for statement in old} - {None}
    for kind, name, schema in moves:
        had.discard((kind, name))
        had.add((kind, f"{schema}.{name.split('.')[-1]}"))
    dropped = {
        (kind, name)
        for kind, name in had
        if re.search(rf"\bDROP {kind} (?:IF EXISTS )?{re.escape(name)}(?![\w])", by_hand)
    }
    anew, result = set(dropped), []
    for statement in new:
        what = made(statement)
        if what is None:
            if statement.startswith("DO ") or statement.startswith(
                ("SELECT lead_audit.", "SELECT lead_audit_internal.")
            ):
                continue  # runs at installation only
            about_anew = statement.startswith(("REVOKE", "GRANT", "COMMENT", "ALTER")) and any(
                mentions(statement, *w) for w in anew
            )
            if key(statement) not in had_text or about_anew:
                result.append(statement)
            continue
        kind, name = what
        if key(statement) in had_text and what not in dropped:
            continue
        if what not in had or what in dropped:
            anew.add(what)
        if kind in REPLACEABLE and what in had:  # DROP can drop one of several overloads
            statement = re.sub(r"^CREATE (OR REPLACE )?", "CREATE OR REPLACE ", statement)
        elif what in anew:
            pass
        elif kind == "EVENT TRIGGER":
            anew.add(what)
            result.append(f"DROP EVENT TRIGGER {name}")
        elif name.removeprefix("lead_audit.") not in by_hand:
            fail(
                f"{kind} {name} is not what it was: write into sql/upgrade/ what makes the old"
                " one the same"
            )
        else:
            continue
        result.append(statement)
    gone = had - {made(statement) for statement in new} - dropped
    if gone:
        fail(
            "no more there, and not dropped in sql/upgrade/: "
            + ", ".join(f"{kind} {name}" for kind, name in sorted(gone))
        )
    return result


def version_order(path):
    return [int(part) for part in path.stem.split("--")[1].split(".")]


def main():
    control = (ROOT / "lead_audit.control").read_text()
    new_version = re.search(r"default_version = '([^']+)'", control)[1]
    released = max(ROOT.glob("sql/released/lead_audit--*.sql"), key=version_order)
    old_version = released.stem.split("--")[1]
    source = ROOT / f"sql/upgrade/{old_version}--{new_version}.sql"
    by_hand = source.read_text()
    if by_hand.count(f"\n{MARK}\n") != 1:
        fail(f"{source.relative_to(ROOT)} must have one line {MARK!r}")
    before, after = by_hand.split(f"\n{MARK}\n")

    old = statements(released.read_text())
    new = [
        statement
        for path in sorted(ROOT.glob("sql/[0-9][0-9]_*.sql"))
        for statement in statements(path.read_text())
    ]
    steps = difference(old, new, "".join(f"{statement};\n" for statement in statements(by_hand)))
    text = (
        f"-- From {old_version} to {new_version}. Written by scripts/upgrade_script.py from"
        " sql/upgrade/ and sql/*.sql: do not edit.\n"
        f'\\echo Run "ALTER EXTENSION lead_audit UPDATE" instead of this file. \\quit\n\n'
        f"{before.strip()}\n\n"
        + "".join(f"{statement};\n\n" for statement in steps)
        + after.strip()
    ).rstrip() + "\n"

    target = ROOT / f"sql/lead_audit--{old_version}--{new_version}.sql"
    if sys.argv[1:] == ["--check"]:
        if not target.exists() or target.read_text() != text:
            fail(f"{target.relative_to(ROOT)} is not up to date: run scripts/upgrade_script.py")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        target.write_text(text)


main()
