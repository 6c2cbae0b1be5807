#!/usr/bin/env python3
"""coverage_summary.py ROOT ALL.LCOV OUT.LCOV: counts the covered lines of each folder.

Reads ALL.LCOV and writes it to OUT.LCOV without the lines of unit tests. Prints the percentage of
each folder. Ends with exit code 1 if the percentage of a folder is below the folder's minimum.

Several measured programs can contain the same line of code. The line is covered if at least one of
the programs ran it.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

# The minimum percentage of covered lines for each folder.
WANTED = {
    "src/capture": 90,
    "src/entries": 90,
    "src/seal": 90,
    "src/verify": 90,
    "src/failures": 90,
}
WANTED_IN_ALL = 85


def test_lines(path):
    """Returns the number of the line `#[cfg(test)]` that stands above `mod tests`.

    All lines from this number on are test code, because the tests are the last part of a file in
    this project.
    """
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        if line.startswith("#[cfg(test)]") and any(
            re.match(r"(pub )?mod \w+ \{", later) for later in lines[number : number + 2]
        ):
            return number
    return len(lines) + 1


def main(root, source, target):
    counts = defaultdict(lambda: defaultdict(int))
    name = None
    for line in Path(source).read_text().splitlines():
        if line.startswith("SF:"):
            name = line[3:]
        elif line.startswith("DA:"):
            number, count = line[3:].split(",")[:2]
            counts[name][int(number)] += int(count)
    covered, total = defaultdict(int), defaultdict(int)
    with open(target, "w") as out:
        for name in sorted(counts):
            path = Path(name)
            if not path.is_relative_to(root) or not path.exists():
                continue
            end = test_lines(path)
            lines = {number: count for number, count in counts[name].items() if number < end}
            parts = path.relative_to(root).parts
            folder = "/".join(parts[:2]).removesuffix(".rs")
            covered[folder] += sum(count > 0 for count in lines.values())
            total[folder] += len(lines)
            out.write(f"SF:{'/'.join(parts)}\n")
            out.writelines(f"DA:{number},{count}\n" for number, count in sorted(lines.items()))
            out.write(
                f"LF:{len(lines)}\nLH:{sum(count > 0 for count in lines.values())}\nend_of_record\n"
            )
    short = []

    def show(what, hit, of, wanted=None):
        percent = 100 * hit / of
        print(
            f"{what:20} {hit:6} of {of:6} lines  {percent:6.2f} %"
            + (f"  (at least {wanted} %)" if wanted else "")
        )
        if wanted and percent < wanted:
            short.append(what)

    for folder in sorted(total):
        if total[folder]:
            show(folder, covered[folder], total[folder], WANTED.get(folder))
    show("in all", sum(covered.values()), sum(total.values()), WANTED_IN_ALL)
    if short:
        sys.exit("less than wanted: " + ", ".join(short))


main(*sys.argv[1:])
