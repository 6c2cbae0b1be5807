#!/usr/bin/env python3
"""prose.py: checks the style of Markdown pages.

Also checks that the paths in the pages exist. Prints its findings. Ends with exit code 1 if there
are findings.

  prose.py [PAGE...]          checks the pages, by default all pages of the project
  prose.py --wrap PAGE...     wraps paragraphs and lists at 100 columns, then checks the pages

CONTRIBUTING.md ("Prose") contains the rules in plain words. The rules do not apply to code blocks
and `code`.
"""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = 100
WORDS = 35
# Regular expressions for words and constructions that are hard to understand. Each has a
# replacement.
AVOID = {
    r"\bwhoever\b": "name the role: a superuser, an application, you",
    r"\bwhatever\b|\bhowever many\b": "name the things",
    r"\bit is that\b|\bthere is that\b": "subject, verb, object",
    r"\b(?:is|are) had\b": "have",
    r"\b(?:is|are|was|were) said\b": "say who says it",
    r"\bsays so\b": "documents, reports, states",
    r"\b(?:goes|go|going|went) on\b": "continue",
    r"\bplay(?:s|ed)? (?:the|a) (?:page|story)": "run the examples",
    r"\bof before\b": "earlier, former",
    r"\bbegin(?:s)? anew\b|\banew\b": "again, reconnect, restart",
    r"\btakes? (?:them |it |that )?over\b": "apply, adopt",
    r"\bby hand\b": "manually",
    r"\ba moment later\b": "later, asynchronously",
    r"\bworked? out\b|\bworks out\b": "compute, derive, infer",
    r"\bmakes way\b|\bmake way\b": "is dropped, is renamed",
    r"\bslip(?:s|ped)? in\b": "insert",
    r"\bjournal\b": "entries, the writer",
    r"\bfailing row\b": "rejected row",
    r"\bnewcomer\b": "new partition, new user",
}
# Matches the first words of a sentence whose subject is hard to find.
OPENERS = re.compile(r"(?:What|Whoever|Whatever|Of|That|Those that|Who)\s(?!is\b.*\?)")
FENCE = re.compile(r"^(\s*)(```|~~~)")
# Matches a path of a file or folder of this project in code style.
PATH = re.compile(
    r"`((?:bench|clients|crates|demo|docs|examples|pgrx-tests|scripts|sql|src|verifiers)/[\w./-]*)`"
)


def prose(text):
    """Returns the paragraphs and list items of a page, as pairs of line number and text."""
    found, fenced, comment = [], False, False
    block, start = [], 0

    def end():
        if block:
            found.append((start, " ".join(block)))
            block.clear()

    for number, line in enumerate(text.splitlines(), 1):
        if FENCE.match(line):
            fenced = not fenced
        comment = (comment or "<!--" in line) and "-->" not in line
        stripped = line.strip()
        code = not block and line.startswith("    ") or re.match(r"\[[^\]]+\]: ", line)
        if (
            fenced
            or comment
            or code
            or "-->" in line
            or FENCE.match(line)
            or not stripped
            or stripped[0] in "|#<>"
        ):
            end()
            if stripped.startswith("|"):
                found += [
                    (number, cell.replace(";", "."))
                    for cell in re.split(r"(?<!\\)\|", stripped)
                    if re.search(r"\w", cell)
                ]
            continue
        if re.match(r"(?:[-*]|\d+\.) ", stripped):
            end()
            stripped = re.sub(r"^(?:[-*]|\d+\.) +", "", stripped)
        if not block:
            start = number
        block.append(stripped)
    end()
    return found


def sentences(text):
    text = re.sub(r"`` .*? ``|`[^`]*`", "CODE", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"\*+|__", "", text)
    return [
        it.strip()
        for it in re.split(r"(?<=[.!?])\s+(?=[A-Z\"(])|(?<=:)\s+(?=[A-Z][a-z]+ )", text)
        if it.strip()
    ]


def wrap(text):
    """Wraps the paragraphs and list items of a page, and changes nothing else in the page."""
    lines, block, fenced, comment = [], [], False, False

    def end():
        if block:
            indent = re.match(r" *", block[0])[0]
            mark = re.match(r"(?:[-*]|\d+\.) +", block[0].lstrip())
            hanging = indent + " " * len(mark[0]) if mark else indent
            # The wrapping must not put the mark of a Markdown list, heading or quotation at the
            # beginning of a line.
            words = re.sub(r"\s+", " ", " ".join(block).strip())
            words = re.sub(r" (?=(?:[-+*#>]|\d+\.)(?: |$))", "\0", words) if not mark else words
            words = re.sub(r"`[^`]*`(?!`)", lambda code: code[0].replace(" ", "\0"), words)
            wrapped = textwrap.wrap(
                words,
                COLUMNS,
                initial_indent=indent,
                subsequent_indent=hanging,
                break_long_words=False,
                break_on_hyphens=False,
            )
            lines.extend(line.replace("\0", " ") for line in wrapped)
            block.clear()

    for line in text.splitlines():
        starts = re.match(r"(?:[-*]|\d+\.) ", line.lstrip())
        special = (
            not line.strip()
            or line.lstrip()[0] in "|#<>`\\!"
            and not re.match(r"`[^`]+`[^`→]*$|`[^`]+`.*[.,;:]", line.lstrip())
        )
        if FENCE.match(line):
            fenced = not fenced
        comment = (comment or "<!--" in line) and "-->" not in line
        special = (
            special
            or "` → `" in line
            or re.match(r"\[[^\]]+\]: ", line)
            or (not block and line.startswith("    "))
        )
        if (
            fenced
            or comment
            or FENCE.match(line)
            or "-->" in line
            or special
            or line.endswith("\\")
        ):
            end()
            lines.append(line)
            continue
        if starts:
            end()
        block.append(line)
    end()
    return "\n".join(lines) + "\n"


def faults(path):
    text = path.read_text(encoding="utf-8")
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        if FENCE.match(line):
            fenced = not fenced
        # A line can be longer than 100 columns if it cannot be broken: the row of a table, a link,
        # a signature, or the output of a program.
        if (
            len(line) > COLUMNS
            and not fenced
            and not line.lstrip().startswith(("|", "[", "!", "<", "`"))
        ):
            yield number, f"{len(line)} columns, {COLUMNS} at most"
        if path.name != "CHANGELOG.md":
            yield from (
                (number, f"no file {name}")
                for name in PATH.findall(line)
                if "OLD--NEW" not in name
                and not any((base / name).exists() for base in (ROOT, path.parent))
            )
    for number, block in prose(text):
        for sentence in sentences(block):
            words = len(re.findall(r"[\w'’/-]+", sentence.replace("CODE", "")))
            start = sentence[:50]
            if words > WORDS:
                yield number, f"{words} words in one sentence, {WORDS} at most: {start}…"
            if sentence.count(";") > 1:
                yield number, f"more than two clauses joined by semicolons: {start}…"
            if OPENERS.match(sentence):
                yield number, f"begin with the subject: {start}…"
            for pattern, instead in AVOID.items():
                if found := re.search(pattern, sentence, re.I):
                    yield number, f'"{found[0]}": {instead}'


def main():
    listed = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    arguments = [name for name in sys.argv[1:] if name != "--wrap"]
    if len(arguments) < len(sys.argv) - 1:
        for page in map(Path, arguments):
            page.write_text(wrap(page.read_text(encoding="utf-8")), encoding="utf-8")
    pages = [Path(name) for name in arguments] or [ROOT / name for name in listed.stdout.split()]
    found = [
        f"{page.resolve().relative_to(ROOT)}:{number}: {what}"
        for page in pages
        for number, what in faults(page)
    ]
    if found:
        sys.exit("\n".join([*found, f"{len(found)} findings"]))


if __name__ == "__main__":
    main()
