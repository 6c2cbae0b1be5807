"""Tests that the examples of docs/FORMAT.md verify, and equal the output of their generators."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "src"), str(HERE)]

from lead_audit_verifier import entries, export  # noqa: E402
from lead_audit_verifier import transparency as t  # noqa: E402

PAGE = (HERE.parents[2] / "docs/FORMAT.md").read_text(encoding="utf-8")
PACKAGE = HERE.parent / "src/lead_audit_verifier"


def blocks(info: str) -> list[str]:
    """Returns the contents of the page's fenced blocks with the info string `info`."""
    found = re.findall(rf"^```{info}\n(.*?)^```$", PAGE, flags=re.S | re.M)
    assert found, f"no block {info!r} in FORMAT.md"
    return found


def run(command: list[str], text: str | bytes = "") -> tuple[str, int]:
    data = text if isinstance(text, bytes) else text.encode()
    done = subprocess.run([sys.executable, *command], input=data, capture_output=True, timeout=600)
    return (done.stdout + done.stderr).decode(), done.returncode


class Entries(unittest.TestCase):
    def rows(self) -> list[dict[str, object]]:
        rows = [json.loads(block) for block in blocks("json entry")]
        for row, hashes in zip(rows, blocks("text hashes")):
            row["checksum"] = dict(line.split() for line in hashes.splitlines())["checksum"]
        return rows

    def test_each_example_is_sound(self) -> None:
        rows = self.rows()
        self.assertGreater(len(rows), 5)
        for row, preimage in zip(rows, blocks("text preimage")):
            self.assertEqual(entries.faults(row), [])
            self.assertEqual(entries.preimage(row).decode() + "\n", preimage)

    def test_each_change_of_an_example_is_found(self) -> None:
        for row in self.rows():
            for name, value in row.items():
                if name in ("checksum", "format") or value is None:
                    continue
                changed = {**row, name: value + 1 if isinstance(value, int) else f"{value}1"}
                with self.subTest(id=row["id"], column=name):
                    try:
                        self.assertNotEqual(entries.faults(changed), [])
                    except ValueError:
                        pass

    def test_the_command(self) -> None:
        rows = self.rows()
        text = "".join(json.dumps(row) + "\n" for row in rows)
        self.assertEqual(
            run([str(PACKAGE), "entries"], text), (f"{len(rows)} entries, 0 faults\n", 0)
        )
        rows[1]["user_id"] = "eve"
        text = "".join(json.dumps(row) + "\n" for row in rows)
        said = (
            f"entry {rows[1]['id']}: the checksum does not match\n{len(rows)} entries, 1 faults\n"
        )
        self.assertEqual(run([str(PACKAGE), "entries"], text), (said, 1))
        unknown = json.dumps({**rows[0], "other_columns": "color"}) + "\n"
        self.assertEqual(run([str(PACKAGE), "entries"], unknown)[1], 2)
        self.assertEqual(run([str(PACKAGE)])[1], 2)
        self.assertEqual(run([str(PACKAGE), "entries", "more"])[1], 2)

    def test_values_may_be_nested_deeply(self) -> None:
        depth = 100_000
        text = '{"a":[' * depth + "1.10" + "]}" * depth
        self.assertEqual(entries.emit(entries.parse(text)), text)
        with self.assertRaises(ValueError):
            entries.parse(text + "}")

    def test_values_that_are_no_canonical_object(self) -> None:
        for text in (
            "[]",
            '{"b":1,"a":2}',
            '{"a":1,"a":2}',
            '{"a": 1}',
            '{"a":-0}',
            '{"a":1e3}',
            '{"a":NaN}',
            '{"a":"\\u0041"}',
        ):
            with self.subTest(text):
                self.assertFalse(entries.is_canonical_object(text))
        self.assertTrue(entries.is_canonical_object('{"\U0001f600":1.10,"\ue000":null}'))

    def test_values_that_are_not_text(self) -> None:
        for line in "".join(blocks("text bytes")).splitlines():
            value, stand_in = line.split(" ", 1)
            self.assertEqual(entries.json_bytes(entries.parse(stand_in.strip())).hex(), value)


class Notes(unittest.TestCase):
    def test_what_is_to_be_refused(self) -> None:
        for info, reader in (("json not notes", t.Note), ("json not checkpoints", t.Checkpoint)):
            for line in "".join(blocks(info)).splitlines():
                with self.subTest(line), self.assertRaises(ValueError):
                    reader(json.loads(line))

    def test_ed25519(self) -> None:
        """Verifies test 2 of RFC 8032, section 7.1. A change of any bit makes the signature bad."""
        public = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
        signature = bytes.fromhex(
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        )
        self.assertTrue(t.ed25519_verify(public, b"\x72", signature))
        self.assertFalse(t.ed25519_verify(public, b"\x73", signature))
        for bit in (0, 200, 256, 511):
            changed = bytearray(signature)
            changed[bit // 8] ^= 1 << bit % 8
            self.assertFalse(t.ed25519_verify(public, b"\x72", bytes(changed)))


class Exports(unittest.TestCase):
    def verdict(self, text: str) -> tuple[str, int]:
        size, root = 3, None
        for line in blocks("json history")[0].splitlines():
            record = json.loads(line)
            if record.get("checkpoint", {}).get("tree_size") == size:
                root = bytes.fromhex(record["checkpoint"]["root"])
        verifier = export.Verifier([], {size: (root, "example.com/crm")}, False)
        with contextlib.redirect_stdout(io.StringIO()):
            verifier.file("export", io.BytesIO(text.encode()))
            return verifier.verdict()

    def test_the_examples_are_intact(self) -> None:
        for kind in ("history", "selection"):
            self.assertEqual(self.verdict(blocks(f"json {kind}")[0]), ("intact", 0))

    def test_a_changed_line_is_found(self) -> None:
        for kind in ("history", "selection"):
            lines = blocks(f"json {kind}")[0].splitlines(keepends=True)
            for at, line in enumerate(lines):
                for old, new in (
                    ('"example.com/crm"', '"example.com/crn"'),
                    ("lead_app", "lead_apq"),
                    (":5", ":6"),
                ):
                    if old not in line:
                        continue
                    with self.subTest(kind=kind, line=at, old=old):
                        changed = [*lines[:at], line.replace(old, new), *lines[at + 1 :]]
                        self.assertNotEqual(self.verdict("".join(changed))[1], 0)
            for at in range(len(lines)):
                self.assertNotEqual(
                    self.verdict("".join(lines[:at] + lines[at + 1 :]))[1],
                    0,
                    f"{kind} without line {at + 1}",
                )

    def test_the_command(self) -> None:
        said, status = run([str(PACKAGE), "export", "-"], blocks("json history")[0])
        self.assertEqual(status, 2, said)  # the command gets no key and no kept checkpoint
        self.assertIn("could not tell", said)
        self.assertIn("zstd -dc", run([str(PACKAGE), "export", "-"], b"\x28\xb5\x2f\xfd\x00")[0])
        self.assertEqual(run([str(PACKAGE), "export", "--help"])[1], 0)


class Generators(unittest.TestCase):
    """Tests that docs/FORMAT.md contains each block that the generators print."""

    def test_entries(self) -> None:
        self.assert_in_page(run([str(HERE / "format_examples.py")]))

    def test_trees(self) -> None:
        self.assert_in_page(run([str(HERE / "tree_examples.py")]))

    def assert_in_page(self, printed: tuple[str, int]) -> None:
        text, status = printed
        self.assertEqual(status, 0, text)
        found = re.findall(r"^```[a-z].*?^```$", text, flags=re.S | re.M)
        self.assertGreater(len(found), 10)
        for block in found:
            self.assertIn(block, PAGE)


if __name__ == "__main__":
    unittest.main()
