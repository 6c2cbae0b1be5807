#!/usr/bin/env python3
"""Finds functions that PostgreSQL can call and that have no guard.

A panic in a function without a guard would end the server. A function with a C calling convention
passes the check if it meets one of these conditions:
* It has the attribute #[pgrx::pg_guard], which turns a panic into an error of the statement.
* It is a hook in src/hooks that calls the next hook with `next::`, `.run(` or `previous(`. The hook
  calls a guarded function before the next hook, and another guarded function after it.
* A comment `// Unguarded: ...` stands above the function and states why the function needs no
  guard.
* Its name begins with pg_finfo_. A pg_finfo_ function only returns the address of a static.

The script also reports hooks and callbacks that are registered outside of src/hooks.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEFINITION = re.compile(
    r'^\s*(?:pub(?:\([a-z]+\))? )?(?:unsafe )?extern "C(?:-unwind)?" fn (\$?\w+)'
)
BLOCK = re.compile(r'^\s*unsafe extern "C(?:-unwind)?" \{')
NEXT = re.compile(r"next::\w+\(|\.run\(|previous\(|\$work\(")


def body(lines, start):
    """Returns the lines of the function that begins at `start`."""
    depth, seen = 0, False
    for number in range(start, len(lines)):
        depth += lines[number].count("{") - lines[number].count("}")
        seen = seen or "{" in lines[number]
        if seen and depth <= 0:
            return lines[start : number + 1]
    return lines[start:]


def unguarded(path):
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines):
        match = DEFINITION.match(line)
        if not match or match[1].startswith("pg_finfo_"):
            continue
        above = []
        for earlier in reversed(lines[:number]):
            if not earlier.strip().startswith(("#[", "//")):
                break
            above.append(earlier.strip())
        if any(
            text.startswith(("#[pgrx::pg_guard]", "#[pg_guard]", "// Unguarded:")) for text in above
        ):
            continue
        if path.parent.name == "hooks" and NEXT.search("\n".join(body(lines, number))):
            continue
        yield f"{path.relative_to(ROOT)}:{number + 1}: {match[1]}() has no guard"


def registrations(path):
    """Finds hooks and callbacks that are registered outside of src/hooks."""
    if path.parent.name == "hooks":
        return
    pattern = re.compile(
        r"Register(?:Xact|SubXact)Callback\(|CacheRegister\w+Callback\(|pg_sys::\w+_hook = "
    )
    for number, line in enumerate(path.read_text().splitlines()):
        if pattern.search(line):
            yield f"{path.relative_to(ROOT)}:{number + 1}: is registered outside of src/hooks"


def main():
    files = sorted((ROOT / "src").rglob("*.rs"))
    found = [line for path in files for check in (unguarded, registrations) for line in check(path)]
    print("\n".join(found) or f"{len(files)} files: every entry point has its guard")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
