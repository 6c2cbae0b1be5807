#!/usr/bin/env python3
"""compare.py MAJOR DIRECTORY ACCEPTED: compares the results of PostgreSQL's suites.

scripts/postgres_suites.sh calls this script. The head of scripts/postgres_suites.sh describes
DIRECTORY. The result of a test passes if it equals one of PostgreSQL's expected outputs, or the
result of the same test without the library. A result also passes if ACCEPTED accepts each hunk of
its difference. The comparison ignores the width of columns: several spaces or dashes count as one.
The comparison also ignores the row count below a result of a query.

ACCEPTED consists of sections:

    == watched regress/event_trigger regress/alter_table 15-17
    # The reason.
    -a line that the result does not have
    +a line that it has instead

A section names a mode (preloaded, watched, or all for both), tests (* stands for any characters)
and major versions (by default all). A section accepts a hunk that consists of exactly the section's
lines. A section's line that begins with ~ is a regular expression. The expression must match a
whole line of the hunk, including the - or + of the line. If all lines of a section begin with ~,
the section accepts every line, in any hunk, that matches one of its expressions. The names
regress/oracle and isolation/oracle stand for the differences between the entries and the WAL. Each
difference between the entries and the WAL is a line with +.
"""

import fnmatch
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

MODES = {"preloaded": ["preloaded"], "watched": ["watched"], "all": ["preloaded", "watched"]}
# Matches lines of the server's log that are written after a process has died or an assertion has
# failed.
DEATHS = re.compile(
    r"terminated by signal|terminating any other active server processes"
    r"|PANIC:|TRAP:|fatal runtime error|panicked at"
)


@dataclass
class Section:
    """A section of the file ACCEPTED.

    The section accepts one hunk, or certain lines in any hunk.
    """

    line_number: int
    modes: list[str]
    tests: list[str]
    majors: range
    reason: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    used: bool = False

    def is_for(self, mode: str, test: str) -> bool:
        return mode in self.modes and any(
            fnmatch.fnmatchcase(test, pattern) for pattern in self.tests
        )

    @property
    def is_general(self) -> bool:
        return all(line.startswith("~") for line in self.lines)

    def has(self, line: str) -> bool:
        return any(matches(own, line) for own in self.lines)

    def is_hunk(self, hunk: list[str]) -> bool:
        return len(hunk) == len(self.lines) and all(map(matches, self.lines, hunk))


def matches(own: str, line: str) -> bool:
    return re.fullmatch(own[1:], line) is not None if own.startswith("~") else own == line


def read_accepted(path: Path) -> list[Section]:
    sections: list[Section] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith("== "):
            words = line.split()[1:]
            majors = range(1000)
            if re.fullmatch(r"\d+(-\d+)?", words[-1]):
                first, _, last = words.pop().partition("-")
                majors = range(int(first), int(last or first) + 1)
            sections.append(Section(number, MODES[words[0]], words[1:], majors))
        elif not sections or not line:
            continue
        elif line.startswith("# "):
            sections[-1].reason.append(line[2:])
        elif line[0] in "~-+":
            sections[-1].lines.append(line)
        else:
            sys.exit(f"{path}:{number}: neither a reason nor a line of a difference")
    for section in sections:
        if not section.reason or not section.lines:
            sys.exit(f"{path}:{section.line_number}: a section has a reason and lines")
    return sections


def without_widths(path: Path) -> bytes:
    """Returns the text of an output file without row counts and without the width of columns."""
    text = path.read_bytes()
    text = re.sub(rb"^\(\d+ rows?\)$", b"(rows)", text, flags=re.MULTILINE)
    text = re.sub(rb"[ \t]+$", b"", text, flags=re.MULTILINE)
    return re.sub(rb" {2,}", b" ", re.sub(rb"-{2,}", b"--", text))


def hunks(expected: Path, found: Path) -> list[list[str]]:
    """Returns the hunks of the difference between two files.

    A hunk is a list of lines that begin with - or +.
    """
    texts = without_widths(expected), without_widths(found)
    if texts[0] == texts[1]:
        return []
    with tempfile.NamedTemporaryFile() as left, tempfile.NamedTemporaryFile() as right:
        for file, text in ((left, texts[0]), (right, texts[1])):
            file.write(text)
            file.flush()
        diff = subprocess.run(
            ["diff", "--text", "-d", "-U0", left.name, right.name], stdout=subprocess.PIPE
        )
    if diff.returncode > 1:
        sys.exit(f"diff {expected} {found} failed")
    result: list[list[str]] = []
    for line in diff.stdout.decode("utf-8", "backslashreplace").split("\n")[2:]:
        if line.startswith("@@"):
            result.append([])
        elif line[:1] in ("-", "+"):
            result[-1].append(line)
    return result


class Comparison:
    def __init__(self, major: int, directory: Path, accepted: Path):
        self.major, self.directory, self.accepted = major, directory, accepted
        self.sections = [section for section in read_accepted(accepted) if major in section.majors]
        self.faults = 0

    def fault(self, text: str) -> None:
        self.faults += 1
        print(text)

    def tests(self, suite: str) -> list[str]:
        schedule = (
            self.directory
            / suite
            / ("parallel_schedule" if suite == "regress" else "isolation_schedule")
        )
        lines = schedule.read_text().splitlines()
        return [test for line in lines if line.startswith("test:") for test in line.split()[1:]]

    def expected(self, suite: str, test: str) -> list[Path]:
        """Returns the files with expected outputs: test.out and test_0.out to test_9.out."""
        names = [f"{test}.out", *(f"{test}_{number}.out" for number in range(10))]
        return [
            path
            for path in (self.directory / suite / "expected" / name for name in names)
            if path.exists()
        ]

    def remaining(self, mode: str, suite: str, test: str) -> list[list[str]]:
        """Returns the hunks of a test's result that no section accepts.

        Compares the result with each expected output, and returns the hunks of the comparison that
        leaves the fewest lines.
        """
        found = self.directory / mode / suite / "output/results" / f"{test}.out"
        if not found.exists():
            return [["(there is no result)"]]
        candidates = self.expected(suite, test)
        if mode != "plain":
            plain = self.directory / "plain" / suite / "output/results" / f"{test}.out"
            candidates += [plain] if plain.exists() else []
        sections = [section for section in self.sections if section.is_for(mode, f"{suite}/{test}")]
        best = None
        for candidate in candidates:
            left, used = [], []
            for hunk in hunks(candidate, found):
                rest = hunk
                for section in sections:
                    if section.is_general and any(map(section.has, rest)):
                        rest = [line for line in rest if not section.has(line)]
                        used.append(section)
                hunk_of = next((section for section in sections if section.is_hunk(rest)), None)
                if hunk_of is not None:
                    used.append(hunk_of)
                elif rest:
                    left.append(rest)
            size = (sum(map(len, left)), len(used))
            if best is None or size < best[0]:
                best = (size, left, used)
            if size == (0, 0):
                break
        if best is None:
            return [["(PostgreSQL has no expected output)"]]
        for section in best[2]:
            section.used = True
        return best[1]

    def compare_mode(self, mode: str, suite: str) -> None:
        tests = self.tests(suite)
        differing = []
        for test in tests:
            left = self.remaining(mode, suite, test)
            if not left:
                continue
            differing.append(test)
            if mode != "plain":
                self.fault(f"== {mode} {suite}/{test} {self.major}")
                for number, hunk in enumerate(left):
                    print(
                        "\n".join(hunk)
                        if number == 0
                        else "\n".join([f"== {mode} {suite}/{test} {self.major}", *hunk])
                    )
        print(
            f"    {mode}, {suite}: {len(tests)} tests,"
            f" {len(differing)} differ{' because of this machine' if mode == 'plain' else ''}"
            + (f": {' '.join(differing)}" if differing else "")
        )

    def check_server(self, mode: str, suite: str) -> None:
        directory = self.directory / mode / suite
        for line in (directory / "server.log").read_text(errors="replace").splitlines():
            if DEATHS.search(line):
                self.fault(f"{mode}, {suite}: the server's log says: {line}")
        if mode == "plain":
            return
        for fault in (directory / "verify").read_text().splitlines():
            self.fault(f"{mode}, {suite}: verify() found: {fault}")
        not_written = (directory / "entries_not_written").read_text().strip()
        if not_written != "0":
            self.fault(f"{mode}, {suite}: {not_written} entries were not written")
        if mode == "watched":
            self.ask_oracle(suite, (directory / "oracle").read_text().splitlines())

    def ask_oracle(self, suite: str, lines: list[str]) -> None:
        """Reports each difference between the entries and the WAL that no section accepts."""
        sections = [
            section for section in self.sections if section.is_for("watched", f"{suite}/oracle")
        ]
        for line in lines:
            accepting = [section for section in sections if section.has(f"+{line}")]
            for section in accepting:
                section.used = True
            if not accepting:
                self.fault(f"== watched {suite}/oracle\n+{line}")

    def run(self) -> None:
        for mode in ("plain", "preloaded", "watched"):
            for suite in ("regress", "isolation"):
                self.compare_mode(mode, suite)
                self.check_server(mode, suite)
        for section in self.sections:
            if not section.used:
                print(
                    "    note: nothing differs any more as"
                    f" {self.accepted.name}:{section.line_number} accepts it"
                )
        if self.faults:
            sys.exit(
                f"{self.faults} differences that nothing accepts;"
                f" a section of {self.accepted} with a reason would"
            )


if __name__ == "__main__":
    Comparison(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])).run()
