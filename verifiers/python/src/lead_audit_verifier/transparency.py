"""The tree, proofs, signed notes, checkpoints and cosignatures: docs/FORMAT.md, sections 11 to 17.

Implements RFC 6962, RFC 8032 and the formats of C2SP. export.py verifies exports with this module.
tests/tree_examples.py makes the examples of docs/FORMAT.md with this module.
"""

import base64
import hashlib
import re

# ---- Section 11: the tree; 13: proofs -----------------------------------------------------------


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def leaf_hash(checksum):
    return sha256(b"\x00", checksum)


def node_hash(left, right):
    return sha256(b"\x01", left, right)


class Edge:
    """The right edge of a tree: the roots of its perfect subtrees, the largest subtree first."""

    def __init__(self, size=0, hashes=()):
        if len(hashes) != bin(size).count("1"):
            raise ValueError(f"the edge of {size} leaves has {len(hashes)} hashes")
        self.size, self.hashes = size, list(hashes)

    def append(self, leaf):
        bits = self.size
        while bits & 1:
            leaf = node_hash(self.hashes.pop(), leaf)
            bits >>= 1
        self.hashes.append(leaf)
        self.size += 1

    def root(self):
        if not self.hashes:
            return sha256()
        root = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            root = node_hash(left, root)
        return root


def inclusion_root(leaf, index, size, proof):
    """Computes the root from a leaf and its inclusion proof (RFC 9162, section 2.1.3.2)."""
    if not 0 <= index < size:
        raise ValueError(f"there is no leaf {index} of {size}")
    node, last, root = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise ValueError("the proof is too long")
        if node & 1 or node == last:
            root = node_hash(sibling, root)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            root = node_hash(root, sibling)
        node, last = node >> 1, last >> 1
    if last:
        raise ValueError("the proof is too short")
    return root


def consistency_roots(old_size, old_root, size, proof):
    """Computes the older and the newer root from a consistency proof (RFC 9162, section 2.1.4.2).

    The tree sizes must satisfy 0 < old_size < size.
    """
    if not 0 < old_size < size:
        raise ValueError(f"no proof is about {old_size} and {size}")
    proof = list(proof) if old_size & (old_size - 1) else [old_root, *proof]
    if not proof:
        raise ValueError("the proof is empty")
    node, last = old_size - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = proof[0]
    for sibling in proof[1:]:
        if last == 0:
            raise ValueError("the proof is too long")
        if node & 1 or node == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        node, last = node >> 1, last >> 1
    if last:
        raise ValueError("the proof is too short")
    return old, new


# ---- Ed25519, RFC 8032, sections 5.1 and 6 ------------------------------------------------------

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)


def add(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def multiply(scalar, point):
    result = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point, scalar = add(point, point), scalar >> 1
    return result


def same_point(p, q):
    return (p[0] * q[2] - q[0] * p[2]) % P == 0 and (p[1] * q[2] - q[1] * p[2]) % P == 0


def decompress(data):
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    if y >= P:
        raise ValueError("not a point of Ed25519")
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT_OF_MINUS_ONE % P
    if (x * x - square) % P or (x == 0 and sign):
        raise ValueError("not a point of Ed25519")
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


def compress(point):
    inverse = pow(point[2], P - 2, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


BASE = decompress((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def ed25519_verify(public, message, signature):
    if len(public) != 32 or len(signature) != 64:
        return False
    try:
        key, r = decompress(public), decompress(signature[:32])
    except ValueError:
        return False
    s = int.from_bytes(signature[32:], "little")
    if s >= L or same_point(
        multiply(8, key), (0, 1, 1, 0)
    ):  # for a key of small order, anyone can make signatures
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % L
    return same_point(multiply(s, BASE), add(r, multiply(h, key)))


# ---- Section 14: signed notes and keys ----------------------------------------------------------

MAX_NOTE_BYTES, MAX_SIGNATURES = 1_000_000, 100
ED25519, COSIGNATURE = 0x01, 0x04


def from_base64(text):
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("base64 that is not canonical")
    return data


def check_name(name):
    if not name or any(c.isspace() or c == "+" or c < " " for c in name):
        raise ValueError(f"{name!r} cannot be the name of a key")


def key_id(name, algorithm, public):
    return sha256(name.encode(), b"\n", bytes([algorithm]), public)[:4]


class VerifierKey:
    def __init__(self, text):
        self.text = text.removesuffix("\n")
        name, key, data = self.text.split("+", 2)
        check_name(name)
        data = from_base64(data)
        self.name, self.algorithm, self.public = name, data[0], data[1:]
        self.id = key_id(name, self.algorithm, self.public)
        if self.id.hex() != key:
            raise ValueError("the key's text is damaged: its id is not that of name and key")
        if self.algorithm not in (ED25519, COSIGNATURE) or len(self.public) != 32:
            raise ValueError("a key of an unknown type")

    def verifies(self, text, signature):
        """Returns True for a good signature, (time,) for a good cosignature, otherwise False."""
        if self.algorithm == ED25519:
            return ed25519_verify(self.public, text.encode(), signature)
        time = int.from_bytes(signature[:8], "big")
        good = len(signature) == 72 and time < 1 << 63
        return (
            good
            and ed25519_verify(self.public, cosigned_message(time, text), signature[8:])
            and (time,)
        )


class Note:
    """A note of C2SP: a text and its signatures, which are [(name, key id, bytes)].

    The list of signatures is empty for an unsigned note. Some sections of FORMAT.md allow unsigned
    notes.
    """

    def __init__(self, note, allow_unsigned=False):
        if isinstance(note, bytes):
            note = note.decode()
        if len(note.encode()) > MAX_NOTE_BYTES:
            raise ValueError("the note is too long")
        if any(c < " " and c != "\n" for c in note) or not note.endswith("\n"):
            raise ValueError("the note has a control character, or no newline at its end")
        if "\n\n" not in note and allow_unsigned:
            self.text, self.signatures = note, []
            return
        blank = note.rindex("\n\n")
        self.text, lines = note[: blank + 1], note[blank + 2 :].split("\n")[:-1]
        if not 0 < len(lines) <= MAX_SIGNATURES:
            raise ValueError("the note has no signature, or too many")
        self.signatures = []
        for line in lines:
            dash, name, data = line.split(" ")
            check_name(name)
            data = from_base64(data)
            if dash != "—" or len(data) < 5:
                raise ValueError("not a signature line")
            self.signatures.append((name, data[:4], data[4:]))

    def verified_by(self, keys):
        """Returns the keys that have signed the note, as {name: time of a cosignature or None}.

        Raises ValueError if a signature has the name and id of one of the keys, but is bad.
        """
        found = {}
        for name, key, signature in self.signatures:
            for known in keys:
                if (known.name, known.id) == (name, key):
                    good = known.verifies(self.text, signature)
                    if not good:
                        raise ValueError(f"the signature by {name} is bad")
                    found[name] = None if good is True else good[0]
        return found


# ---- Section 15: checkpoints; 16: cosignatures; 17: tlog-proof ----------------------------------


def decimal(text):
    if not re.fullmatch("0|[1-9][0-9]{0,19}", text) or int(text) >= 1 << 64:
        raise ValueError(f"{text!r} is not a number, or not written as one")
    return int(text)


class Checkpoint:
    def __init__(self, text):
        self.origin, size, root, *extensions = text.split("\n")[:-1]
        self.size, self.root = decimal(size), from_base64(root)
        if (
            not text.endswith("\n")
            or not self.origin
            or "" in extensions
            or any(c < " " and c != "\n" for c in text)
        ):
            raise ValueError("not a checkpoint")
        if len(self.root) != 32:
            raise ValueError("the root is not 32 bytes long")


def cosigned_message(time, text):
    return f"cosignature/v1\ntime {time}\n{text}".encode()


class Proof:
    def __init__(self, text):
        head, note = text.split("\n\n", 1)
        header, *lines = head.split("\n")
        if header != "c2sp.org/tlog-proof@v1":
            raise ValueError("not a tlog-proof")
        self.extra = None
        if lines[0].startswith("extra "):
            self.extra = from_base64(lines.pop(0).removeprefix("extra "))
            if not self.extra:
                raise ValueError("empty extra data")
        if not lines.pop(0).startswith("index "):
            raise ValueError("the proof has no index")
        self.index = decimal(head.split("\nindex ", 1)[1].split("\n")[0])
        self.hashes = [from_base64(line) for line in lines]
        if any(len(node) != 32 for node in self.hashes) or len(self.hashes) > 64:
            raise ValueError("hashes that are none, or too many")
        self.note = Note(note, allow_unsigned=True)
        self.checkpoint = Checkpoint(self.note.text)

    def proves(self, leaf):
        return (
            inclusion_root(leaf, self.index, self.checkpoint.size, self.hashes)
            == self.checkpoint.root
        )
