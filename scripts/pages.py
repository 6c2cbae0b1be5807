#!/usr/bin/env python3
"""pages.py: runs the examples on pages of the documentation, and compares the output with the page.

  pages.py [--fill] [--system] [--user USER] PAGE...

Runs the blocks of these kinds, in the order in which they are on the page:

  ```console   a session with psql or the shell. A line that begins with "crm=# " is input of the
               superuser in the database crm. A line that begins with "crm=> " is input of the role
               app. "crm-# " continues a statement, and "$ " is input of the shell. All other lines
               are output. In output, "…" matches any text within a line. A line that is only "…"
               matches any number of lines
  ```sql       statements of the superuser in the database crm. The statements must succeed
  ```sh        commands of the shell. The commands must succeed

A word after the kind limits where a block runs. A "system" block needs a server that Debian's
pg_ctlcluster manages, and runs only with --system. An "elsewhere" block never runs. Two kinds of
comments control the run:

  <!-- before …SQL… -->    statements that the superuser runs at this point. The page hides them
  <!-- until SELECT … -->  waits until the query returns t

If they are missing, creates the role `app`, and the database `crm`, which `app` owns. psql finds
the server through variables such as PGHOST. With --user, psql runs as the user USER of the system.
With --fill, the script writes changed output into the page.
"""

import argparse
import atexit
import difflib
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MARK = "--- end of output ---"
BLOCK = re.compile(
    r"^```(?P<kind>console|sql|sh)(?P<where>[^\n]*)\n(?P<body>.*?)^```$"
    r"|<!-- (?P<hidden>before|until)\s(?P<code>.*?)-->",
    re.M | re.S,
)
PROMPT = re.compile(r"^(?:(?P<database>\w+)(?P<kind>[=\-('\"])(?P<role>[#>])|\$) (?P<text>.*)$")


def strip_end(lines):
    """Removes empty lines at the end and spaces at the ends of lines."""
    return "\n".join(line.rstrip() for line in lines).rstrip("\n").splitlines()


class Psql:
    """A psql session that stays open from one example of a page to the next."""

    def __init__(self, database, role, user):
        command = ["psql", "-X", "-d", database, "-U", role, "-v", "VERBOSITY=default"]
        if user:
            command = ["runuser", "-u", user, "--", *command]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
        )
        atexit.register(self.process.kill)
        self.run("\\pset pager off")

    def run(self, text):
        self.process.stdin.write(f"{text}\n\\echo '{MARK}'\n")
        self.process.stdin.flush()
        lines = []
        for line in self.process.stdout:
            if line.rstrip("\n") == MARK:
                return lines
            lines.append(line.rstrip())
        return lines


class Runner:
    def __init__(self, options):
        self.options, self.sessions = options, {}
        self.directory = tempfile.TemporaryDirectory()

    def psql(self, database, role, text):
        """Runs `text` in the psql session of the role `role`, and returns the output.

        The role name "waiting" stands for a second session of the superuser.
        """
        key = (database, role)
        if key not in self.sessions:
            self.sessions[key] = Psql(
                database, "postgres" if role == "waiting" else role, self.options.user
            )
        return self.sessions[key].run(text)

    def must(self, text, database="crm"):
        """Runs statements as the superuser, and fails if one of them fails."""
        found = self.psql(database, "postgres", text)
        if any(re.match("(ERROR|FATAL|PANIC):|psql: error", line) for line in found):
            raise SystemExit(f"{text}\n" + "\n".join(found))
        return found

    def shell(self, text):
        done = subprocess.run(
            ["bash", "-c", text],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=self.options.directory or self.directory.name,
        )
        return done.returncode, [line.rstrip() for line in done.stdout.splitlines()]

    def make_database(self):
        self.must(
            "SELECT 'CREATE ROLE app LOGIN'"
            " WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'app') \\gexec",
            "postgres",
        )
        self.must(
            "SELECT 'CREATE DATABASE crm OWNER app'"
            " WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'crm') \\gexec",
            "postgres",
        )

    def page(self, path):
        text = path.read_text(encoding="utf-8")
        self.path, self.wrong, changed, at = path, 0, [], 0
        for block in BLOCK.finditer(text):
            self.line = text.count("\n", 0, block.start()) + 1
            changed.append(
                text[at : block.start("body")]
                if block["body"] is not None
                else text[at : block.end()]
            )
            at = block.end()
            if block["hidden"] == "before":
                self.must(block["code"].strip())
            elif block["hidden"] == "until":
                self.until(block["code"].strip().rstrip(";"))
            else:
                changed.append(self.block(block) + "```")
        if self.wrong and self.options.fill:
            path.write_text("".join(changed) + text[at:], encoding="utf-8")
        for session in self.sessions.values():
            session.process.stdin.close()
            session.process.wait()
        self.sessions = {}
        print(
            f"{path}: "
            f"{'every example matches' if not self.wrong else f'{self.wrong} examples differ'}"
        )
        return self.wrong

    def block(self, block):
        where, body = block["where"].split(), block["body"]
        if "elsewhere" in where or ("system" in where and not self.options.system):
            return body
        if "system" in where:
            body_to_run = re.sub(r"\b15\b", os.environ.get("PG_MAJOR", "15"), body)
        else:
            body_to_run = body
        if block["kind"] == "sql":
            self.must(body)
        elif block["kind"] == "sh":
            status, found = self.shell("set -eu\n" + body_to_run)
            if status:
                raise SystemExit(
                    f"{self.path}:{self.line}: exit status {status}\n" + "\n".join(found)
                )
        else:
            return self.console(body_to_run)
        return body

    def console(self, body):
        typed, said, out = [], [], []
        for line in [*body.splitlines(), None]:
            prompt = PROMPT.match(line) if line is not None else None
            goes_on = prompt and prompt["kind"] not in ("=", None)
            if goes_on and not said:
                typed.append((prompt, line))
            elif line is None or prompt:
                if typed:
                    out += self.example(typed, said)
                typed, said = [(prompt, line)], []
            else:
                said.append(line)
        return "".join(f"{line}\n" for line in out)

    def example(self, typed, said):
        first, text = typed[0][0], "\n".join(prompt["text"] for prompt, _ in typed)
        if first["database"]:
            found = self.psql(
                first["database"], "postgres" if first["role"] == "#" else "app", text
            )
        else:
            found = self.shell(text)[1]
        lines = [line for _, line in typed]
        expected, found = strip_end(said), strip_end(found)
        pattern = "\n".join(
            "(?s:.*)" if line == "…" else "[^\n]*".join(map(re.escape, line.split("…")))
            for line in expected
        )
        if re.fullmatch(pattern, "\n".join(found)):
            return lines + said
        self.wrong += 1
        if not self.options.fill:
            print(
                f"{self.path}: in the block of line {self.line}:\n" + "\n".join(lines),
                file=sys.stderr,
            )
            print(
                "\n".join(
                    difflib.unified_diff(expected, found, "the page", "the output", lineterm="")
                ),
                file=sys.stderr,
            )
        return lines + found + ([""] if found and found[-1].endswith((" row)", " rows)")) else [])

    def until(self, query):
        end = time.monotonic() + 60
        self.psql("crm", "waiting", "\\pset tuples_only on\n\\pset format unaligned")
        while self.psql("crm", "waiting", f"{query};") != ["t"]:
            if time.monotonic() > end:
                raise SystemExit(f"{self.path}:{self.line}: {query} was not true within a minute")
            time.sleep(0.05)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--fill", action="store_true")
    parser.add_argument("--system", action="store_true")
    parser.add_argument("--user")
    parser.add_argument("--directory")
    parser.add_argument("pages", nargs="+", type=Path)
    options = parser.parse_args()
    runner = Runner(options)
    runner.make_database()
    sys.exit(1 if sum([runner.page(page) for page in options.pages]) and not options.fill else 0)


if __name__ == "__main__":
    main()
