#!/usr/bin/env python3
"""Prints the examples of docs/FORMAT.md, sections 11 to 18: the fenced blocks.

crates/ledger/tests/format_tree_examples.rs and test_format_page.py check that docs/FORMAT.md
contains each block. This script computes roots and proofs by the recursive definitions of RFC 6962,
section 2.1. The script compares its results with the results of transparency.py, which uses another
algorithm.
"""

import base64
import contextlib
import functools
import hashlib
import io
import json
import sys

import format_examples  # adds lead_audit_verifier to sys.path

from lead_audit_verifier import entries, export
from lead_audit_verifier import transparency as t

NUMBERS = 70_000
SEEDS = {"example.com/crm": 1, "witness.example/alice": 2}
TIME = 1_767_225_600


def b64(data):
    return base64.b64encode(data).decode()


class Tree:
    """A literal implementation of RFC 6962, section 2.1. Indexes count from the first leaf."""

    def __init__(self, leaf):
        self.leaf, self.root = leaf, functools.cache(self.root)

    def root(self, start, end):
        """Returns MTH(D[start:end])."""
        if start == end:
            return hashlib.sha256().digest()
        if end - start == 1:
            return self.leaf(start)
        k = self.middle(start, end)
        return hashlib.sha256(b"\1" + self.root(start, k) + self.root(k, end)).digest()

    def middle(self, start, end):
        return start + (1 << (end - start - 1).bit_length() - 1)

    def path(self, m, start, end):
        """Returns PATH(m, D[start:end])."""
        if end - start == 1:
            return []
        k = self.middle(start, end)
        if m < k:
            return self.path(m, start, k) + [self.root(k, end)]
        return self.path(m, k, end) + [self.root(start, k)]

    def subproof(self, m, start, end, whole=True):
        """Returns SUBPROOF(m, D[start:end], whole)."""
        if m == end:
            return [] if whole else [self.root(start, end)]
        k = self.middle(start, end)
        if m <= k:
            return self.subproof(m, start, k, whole) + [self.root(k, end)]
        return self.subproof(m, k, end, False) + [self.root(start, k)]


def edge(leaves):
    edge = t.Edge()
    for leaf in leaves:
        edge.append(leaf)
    return edge


def number(i):
    """Returns the leaf with the index i of the page's example tree, whose leaves are numbers."""
    return t.leaf_hash(t.sha256(str(i).encode()))


numbers = Tree(number)


def block(info, lines):
    print(f"```{info}\n" + "".join(f"{line}\n" for line in lines) + "```")


def tree():
    block(
        "text leaves",
        [
            f"{i:<5}  {t.sha256(str(i).encode()).hex()}  {number(i).hex()}"
            for i in (0, 1, 2, NUMBERS - 1)
        ],
    )
    sizes = (*range(9), 255, 256, 257, 65_535, 65_536, 65_537, NUMBERS)
    for size in sizes:
        assert edge(map(number, range(size))).root() == numbers.root(0, size)
    block("text roots", [f"{size:<5}  {numbers.root(0, size).hex()}" for size in sizes])
    block("text edge of 13", [node.hex() for node in edge(map(number, range(13))).hashes])


def tiles():
    lines = []
    for size in (1, 255, 256, 257, NUMBERS):
        level = 0
        while size >> 8 * level:
            nodes = size >> 8 * level
            for index in range((nodes + 255) // 256):
                width = min(256, nodes - 256 * index)
                if width == 256 and 0 < index < nodes // 256 - 1:
                    continue  # the page shows only the first and last full tile of a level
                hashes = [
                    numbers.root(n << 8 * level, (n + 1) << 8 * level)
                    for n in range(256 * index, 256 * index + width)
                ]
                lines.append(
                    f"{size:<5}  {level}  {index:>3}  {width:>3}  {t.sha256(*hashes).hex()}"
                )
            level += 1
    block("text tiles", lines)


def proofs():
    for index, size in ((0, 1), (0, 8), (5, 8), (2, 3), (256, 257), (69_999, NUMBERS)):
        hashes = numbers.path(index, 0, size)
        assert t.inclusion_root(number(index), index, size, hashes) == numbers.root(0, size)
        block(f"text inclusion of {index} in {size}", [node.hex() for node in hashes])
    for old, size in ((1, 2), (3, 7), (4, 8), (6, 8), (65_537, NUMBERS)):
        hashes = numbers.subproof(old, 0, size)
        roots = numbers.root(0, old), numbers.root(0, size)
        assert t.consistency_roots(old, roots[0], size, hashes) == roots
        block(f"text consistency of {old} with {size}", [node.hex() for node in hashes])


class SigningKey:
    """A signing key with the computations of RFC 8032, sections 5.1.5 and 5.1.6."""

    def __init__(self, name, algorithm, seed):
        digest = hashlib.sha512(seed).digest()
        self.scalar = int.from_bytes(digest[:32], "little") & (1 << 254) - 8 | 1 << 254
        self.prefix, self.public = digest[32:], t.compress(t.multiply(self.scalar, t.BASE))
        self.name, self.id = name, t.key_id(name, algorithm, self.public)
        self.signing = f"PRIVATE+KEY+{name}+{self.id.hex()}+{b64(bytes([algorithm]) + seed)}"
        self.verifier = f"{name}+{self.id.hex()}+{b64(bytes([algorithm]) + self.public)}"

    def ed25519(self, message):
        def hashed(*parts):
            return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little") % t.L

        r = hashed(self.prefix, message)
        point = t.compress(t.multiply(r, t.BASE))
        return point + ((r + hashed(point, self.public, message) * self.scalar) % t.L).to_bytes(
            32, "little"
        )

    def line(self, signature):
        return f"— {self.name} {b64(self.id + signature)}\n"


def signed():
    log, witness = (
        SigningKey(name, algorithm, bytes([SEEDS[name]]) * 32)
        for name, algorithm in zip(SEEDS, (t.ED25519, t.COSIGNATURE))
    )
    for key in (log, witness):
        block(
            "text key",
            [
                f"name      {key.name}",
                f"seed      {(bytes([SEEDS[key.name]]) * 32).hex()}",
                f"public    {key.public.hex()}",
                f"id        {key.id.hex()}",
                f"signing   {key.signing}",
                f"verifier  {key.verifier}",
            ],
        )
    # The entries of section 10 of docs/FORMAT.md, in the order of their ids. The example tree
    # contains all of these entries except the last.
    preimages = sorted(
        (int(columns["id"]), format_examples.preimage_of(columns))
        for columns in format_examples.EXAMPLES
    )
    preimages = [preimage for _, preimage in preimages]
    sealed = preimages[:-1]
    leaves = [t.leaf_hash(t.sha256(preimage)) for preimage in sealed]
    log_tree = Tree(leaves.__getitem__)
    size, root = len(leaves), log_tree.root(0, len(leaves))

    def signed_note(size):
        text = f"{log.name}\n{size}\n{b64(log_tree.root(0, size))}\n"
        return text + "\n" + log.line(log.ed25519(text.encode()))

    text = signed_note(size).split("\n\n")[0] + "\n"
    note = signed_note(size)
    cosigned = note + witness.line(
        TIME.to_bytes(8, "big") + witness.ed25519(t.cosigned_message(TIME, text))
    )
    keys = [t.VerifierKey(log.verifier), t.VerifierKey(witness.verifier)]
    assert t.Note(cosigned).verified_by(keys) == {log.name: None, witness.name: TIME}
    assert t.Checkpoint(text).root == edge(leaves).root() == root
    block("text checkpoint", text.splitlines())
    block("text signed checkpoint", note.split("\n")[:-1])
    block("text cosigned message", t.cosigned_message(TIME, text).decode().splitlines())
    block("text cosigned checkpoint", cosigned.split("\n")[:-1])
    proof = (
        "\n".join(["c2sp.org/tlog-proof@v1", "index 2", *map(b64, log_tree.path(2, 0, size))])
        + "\n\n"
        + cosigned
    )
    assert t.Proof(proof).proves(leaves[2]) and not t.Proof(proof).proves(leaves[3])
    block("text proof", proof.split("\n")[:-1])
    # Notes that a verifier must refuse, written as JSON strings.
    line = log.line(log.ed25519(text.encode()))
    refuse(
        "json not notes",
        t.Note,
        [
            text,
            text + line,
            text + "\n",
            text + "\n" + line[:-1],
            text + "\n" + line + "\n",
            text.replace("\n", "\r\n") + "\n" + line,
            text + "\n" + line.replace("— ", "- "),
            text + "\n" + line.replace("— ", "—  "),
            text + "\n" + line.replace("example.com/crm", "example.com+crm"),
            text + "\n" + line.replace("\n", "=\n"),
            text + "\n" + line.replace("\n", " \n"),
            text + "\n— example.com/crm AAAAAA==\n",
            "\t" + text + "\n" + line,
        ],
    )
    _, hashed = text.split("\n")[1:3]
    refuse(
        "json not checkpoints",
        t.Checkpoint,
        [
            "",
            text[:-1],
            f"{log.name}\n{size}\n",
            f"\n{size}\n{hashed}\n",
            f"{log.name}\n0{size}\n{hashed}\n",
            f"{log.name}\n+{size}\n{hashed}\n",
            f"{log.name}\n18446744073709551616\n{hashed}\n",
            f"{log.name}\n{size}\n{hashed[:-1]}\n",
            f"{log.name}\n{size}\n{hashed[:40]}\n",
            f"{log.name}\n{size}\n{hashed} \n",
            f"{text}\n",
            f"{text}a\n\nb\n",
            f"{text}a\tb\n",
        ],
    )

    exports(preimages, log_tree, signed_note, [keys[0]])


def exports(preimages, log_tree, signed_note, keys):
    """Prints section 18: checkpoints of three and of two entries, and an unsealed entry."""
    when = "2026-01-01T00:00:00.000000Z"

    def line(**members):
        return entries.emit(entries.parse(json.dumps(members)))

    def entry_line(i, what="entry", **more):
        members = dict(
            entries.parse(json.dumps({"checksum": t.sha256(preimages[i]).hex(), **more}))
        )
        return entries.emit(
            entries.Object([*members.items(), (what, entries.parse(preimages[i].decode()))])
        )

    def header(kind, **more):
        return line(
            export=dict(exported_at=when, kind=kind, origin="example.com/crm", version=1, **more)
        )

    def checkpoint(size, ids):
        return line(
            checkpoint=dict(
                entry_ids=ids,
                note=signed_note(size),
                root=log_tree.root(0, size).hex(),
                sealed_at=when,
                tree_size=size,
            )
        )

    history = [
        header("history"),
        line(start=dict(edge=[], tree_size=0)),
        checkpoint(3, "{[1,4)}"),
        *map(entry_line, range(3)),
        checkpoint(5, "{[4,6)}"),
        *map(entry_line, (3, 4)),
        entry_line(5, "unsealed"),
    ]
    selection = [
        header("selection", selection="entry 3"),
        checkpoint(5, "{[4,6)}"),
        line(
            consistency=dict(
                from_size=3, hashes=[node.hex() for node in log_tree.subproof(3, 0, 5)]
            )
        ),
        entry_line(2, index=2, proof=[node.hex() for node in log_tree.path(2, 0, 5)]),
    ]
    for kind, lines in (("history", history), ("selection", selection)):
        lines.append(line(end=dict(lines=len(lines), tree_size=5)))
        verifier = export.Verifier(keys, {3: (log_tree.root(0, 3), "example.com/crm")}, False)
        with contextlib.redirect_stdout(io.StringIO()) as said:
            verifier.file(kind, io.BytesIO("".join(f"{line}\n" for line in lines).encode()))
            verdict = verifier.verdict()
        assert verdict == ("intact", 0), said.getvalue()
        block(f"json {kind}", lines)


def refuse(info, reader, texts):
    for text in texts:
        try:
            reader(text)
        except ValueError:
            continue
        raise AssertionError(f"accepted: {text!r}")
    block(info, [json.dumps(text, ensure_ascii=False) for text in texts])


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    tree()
    tiles()
    proofs()
    signed()
