"""Verifies exports without the database (docs/FORMAT.md, section 18).

Several files form one history, in the given order. The name "-" stands for standard input. A KEY is
a verifier key or a file that contains a verifier key. A CHECKPOINT is a file with a checkpoint that
the user has kept: a signed note, or the text of a checkpoint.

Prints each fault as "FILE:LINE: ...", then a summary, and then "intact", "tampered" or "could not
tell". The exit code is 0 for intact, 1 for tampered, and 2 for could not tell. The result is "could
not tell" if no known key and no kept checkpoint vouches for the export, or if the verifier cannot
read the export.
"""

import argparse
import bisect
import calendar
import os
import re
import sys

from . import entries
from .transparency import (
    COSIGNATURE,
    Checkpoint,
    Edge,
    Note,
    VerifierKey,
    consistency_roots,
    inclusion_root,
    leaf_hash,
    sha256,
)

MAX_LINE = 268_435_456
ZSTD = b"\x28\xb5\x2f\xfd"


# ---- The values of records ----------------------------------------------------------------------


def number(value, low=0, high=(1 << 64) - 1):
    if (
        type(value) is not entries.Number
        or not re.fullmatch("-?[0-9]+", value)
        or not low <= int(value) <= high
    ):
        raise ValueError(f"{value!r} is no number between {low} and {high}")
    return int(value)


def bigint(value):
    return number(value, -(1 << 63), (1 << 63) - 1)


def string(value):
    if type(value) is not str:
        raise ValueError(f"{value!r} is no string")
    return value


def one_of(*allowed):
    def check(value):
        if value not in allowed or type(value) is not type(allowed[0]):
            raise ValueError(f"{value!r} is none of {', '.join(allowed)}")
        return value

    return check


def hash_(value):
    if not re.fullmatch("[0-9a-f]{64}", string(value)):
        raise ValueError(f"{value!r} is no hash")
    return bytes.fromhex(value)


def hashes(value):
    if type(value) is not list:
        raise ValueError("no array of hashes")
    return [hash_(item) for item in value]


def instant(value):
    """Checks the text of a timestamp (FORMAT.md, section 4), and returns the text."""
    if string(value) in ("infinity", "-infinity"):
        return value
    match = re.fullmatch(
        r"(-?[0-9]{4,6})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})\.[0-9]{6}Z", value
    )
    year, month, day, hour, minute, second = map(int, match.groups()) if match else [0] * 6
    spelt = match and match[1] == f"{'-' * (year < 0)}{abs(year):04}"
    # Python's calendar does not accept every year. The calendar repeats every 400 years, so the
    # check uses the year modulo 400.
    if not (
        spelt
        and 1 <= month <= 12
        and 1 <= day <= calendar.monthrange(year % 400 + 400, month)[1]
        and hour < 24
        and minute < 60
        and second < 60
        and -4713 <= year <= 294276
    ):
        raise ValueError(f"{value!r} is no instant")
    return value


def id_ranges(value):
    """Returns the ranges of an int8multirange as [(first id, last id)], both included."""
    if not re.fullmatch(r"\{(\[-?[0-9]+,-?[0-9]+\)(,\[-?[0-9]+,-?[0-9]+\))*)?\}", string(value)):
        raise ValueError(f"{value!r} is no set of ids")
    bounds = [int(bound) for bound in re.findall("-?[0-9]+", value)]
    if any(low >= high for low, high in zip(bounds, bounds[1:])) or any(
        not -(1 << 63) <= bound < 1 << 63 for bound in bounds
    ):
        raise ValueError(f"{value!r} is not in order")
    if (
        value
        != "{" + ",".join(f"[{low},{high})" for low, high in zip(bounds[::2], bounds[1::2])) + "}"
    ):
        raise ValueError(f"{value!r} is not written as it has to be")
    return [(low, high - 1) for low, high in zip(bounds[::2], bounds[1::2])]


def preimage(value):
    if type(value) is not entries.Object:
        raise ValueError("the entry is no object")
    return value


def flat(what, optional="", **members):
    """Describes an export's record {what: {members}}. `optional` names the optional members."""
    return what, None, members, set(optional.split())


def entry_record(what, **more):
    """Describes a record {"checksum": …, what: preimage, …} with optional members `more`."""
    return what, {"checksum": hash_, what: preimage, **more}, None, set(more)


RECORDS = {
    record[0]: record
    for record in (
        flat(
            "export",
            "origin selection",
            exported_at=instant,
            kind=one_of("history", "selection"),
            origin=string,
            selection=string,
            version=number,
        ),
        flat("start", "note", edge=hashes, note=string, tree_size=number),
        flat("consistency", from_size=number, hashes=hashes),
        flat(
            "checkpoint",
            "edge",
            edge=hashes,
            entry_ids=id_ranges,
            note=string,
            root=hash_,
            sealed_at=instant,
            tree_size=number,
        ),
        entry_record("entry", index=number, leaf=hash_, proof=hashes),
        flat(
            "missing",
            "id leaf",
            id=bigint,
            leaf=hash_,
        ),
        flat(
            "damaged",
            "id leaf",
            fault=string,
            id=bigint,
            leaf=hash_,
        ),
        flat(
            "unknown",
            "id leaf",
            column=string,
            id=bigint,
            leaf=hash_,
        ),
        entry_record("unsealed"),
        entry_record("inserted"),
        flat("end", lines=number, tree_size=number),
    )
}


def read_record(line):
    """Returns (kind, {member: value}) for the record in a line of an export."""
    text = line.decode()
    value = entries.parse(text)
    if type(value) is not entries.Object or entries.emit(value) != text:
        raise ValueError("the line is not a canonical JSON object")
    value = dict(value)
    what = next((name for name in value if name in RECORDS), None)
    if what is None:
        raise ValueError("the line is no record of an export")
    _, outer, inner, optional = RECORDS[what]
    if inner is not None:
        if value.keys() != {what}:
            raise ValueError(f"{what} has members beside it")
        outer, value = inner, dict(preimage(value[what]))
        if (
            what == "export"
            and type(value.get("version")) is entries.Number
            and value["version"] != "1"
        ):
            raise entries.Unknown(
                f"the export has version {value['version']}, which this verifier does not know"
            )
    if not outer.keys() - optional <= value.keys() <= outer.keys():
        raise ValueError(
            f"{what} has not the members that it has to have: {', '.join(sorted(value))}"
        )
    return what, {name: outer[name](item) for name, item in value.items()}


# ---- Entries ------------------------------------------------------------------------------------


def between(bits, unsigned=False):
    low, high = (0, (1 << bits) - 1) if unsigned else (-(1 << bits - 1), (1 << bits - 1) - 1)
    return lambda value: number(value, low, high)


def uuid(value):
    if not re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", string(value)):
        raise ValueError(f"{value!r} is no UUID")


COLUMN_TYPES = {
    **dict.fromkeys(entries.STRINGS, string),
    **dict.fromkeys(entries.JSONS, preimage),
    "id": between(64),
    "format": between(16),
    "txid": between(64, True),
    "occurred_at": instant,
    "watch_id": uuid,
    "key_hash": between(64),
    "previous_key_hash": between(64),
    "relation": between(32, True),
    "backend_pid": between(32),
}
NEVER_NULL = {"id", "format", "txid", "occurred_at", "operation", "outcome"}


def entry_id(columns):
    return number(dict(columns).get("id"), -(1 << 63), (1 << 63) - 1)


def entry_faults(columns, checksum):
    """Returns the faults of an entry, from its preimage and checksum (FORMAT.md, 5 to 7)."""
    if sha256(entries.emit(columns).encode()) != checksum:
        return ["the checksum does not match"]
    row = dict(columns)
    if type(row.get("format")) is entries.Number and row["format"] != "1":
        raise entries.Unknown(f"unknown format {row['format']}")
    try:
        if not NEVER_NULL <= row.keys():
            raise ValueError(f"it has no {', '.join(sorted(NEVER_NULL - row.keys()))}")
        for name, value in row.items():
            if name not in COLUMN_TYPES:
                continue
            COLUMN_TYPES[name](value)
            if name in entries.JSONS:
                row[name] = entries.emit(value)
        return entries.faults({**row, "checksum": checksum.hex()})
    except entries.Unknown:
        raise
    except ValueError as error:
        return [str(error)]


def key_change(columns):
    """Returns the change of the log's key or origin in an entry (section 15), or None."""
    row = dict(columns)
    if row.get("operation") != "KEY":
        return None
    details = dict(row.get("details") or ())
    for name in ("new_key", "new_origin", "old_key", "old_origin"):
        if type(details.get(name, 0)) is not str and not (
            name.endswith("_key") and details.get(name, 0) is None
        ):
            return None
    return details


# ---- Exports ------------------------------------------------------------------------------------


class Ids:
    """A set of ids of entries, stored as ranges."""

    def __init__(self):
        self.firsts, self.lasts = [], []

    def add(self, first, last):
        """Adds a range, or returns False if the set already contains an id of the range."""
        at = bisect.bisect_right(self.firsts, last)
        if at and self.lasts[at - 1] >= first:
            return False
        if at and self.lasts[at - 1] == first - 1:
            self.lasts[at - 1] = last
        else:
            self.firsts.insert(at, first)
            self.lasts.insert(at, last)
        return True

    def has(self, number):
        at = bisect.bisect_right(self.firsts, number)
        return at > 0 and self.lasts[at - 1] >= number


class Unreadable(Exception):
    """Raised if the verifier cannot judge the rest of a file."""


class Verifier:
    def __init__(self, keys, kept, older):
        self.keys, self.kept, self.older = keys, kept, older  # kept: {tree size: (root, origin)}
        self.origin = self.size = self.root = self.where = None
        self.vouched = self.first_size = None
        self.origins, self.unexplained = (
            [],
            [],
        )  # the origins in the export; changes of origin without an entry, as (where, size, what)
        self.was_signed = self.may_have_successor = False
        self.last_signed = self.signed_to = self.key_unknown_from = None
        self.changes = []  # the changes of key or origin in the entries of the current checkpoint
        self.matched = set()  # tree sizes of the kept checkpoints that the history contains
        self.judged = set()  # tree sizes of the kept checkpoints that were compared
        self.sealed = Ids()
        self.faults = self.entries = self.unsealed = self.checkpoints = self.signed = (
            self.not_judged
        ) = self.histories = 0

    def fault(self, what):
        self.faults += 1
        print(f"{self.where}: {what}")

    def file(self, name, stream):
        lines, exports = self.records(name, stream), 0
        try:
            for what, record in lines:
                if what != "export":
                    raise Unreadable(f"{what} outside of an export")
                self.export(record, lines)
                exports += 1
            if exports == 0:
                raise Unreadable("there is no export in it")
        except Unreadable as error:
            self.fault(str(error))

    def records(self, name, stream):
        for line_number in range(1, 1 << 63):
            self.where = f"{name}:{line_number}"
            line = stream.readline(MAX_LINE + 2)
            if not line:
                return
            if line_number == 1 and line.startswith(ZSTD):
                raise ValueError(
                    f"{name} is compressed: zstd -dc {name} | lead-audit-verifier export … -"
                )
            if not line.endswith(b"\n") or len(line) > MAX_LINE + 1:
                raise Unreadable("the line is too long, or the file ends in it")
            try:
                record = read_record(line[:-1])
            except entries.Unknown:
                raise
            except ValueError as error:
                raise Unreadable(f"the line cannot be judged: {error}") from None
            self.lines += 1
            yield record

    lines = 0

    def export(self, header, lines):
        self.lines, self.last_unsealed, self.origins = 1, None, []
        records = Lookahead(lines)
        if header["kind"] == "history":
            self.histories, self.unsealed = self.histories + 1, 0
            self.history(records)
        else:
            self.selection(records)
        self.rest(records)
        what, end = records.take("end")
        if end["lines"] != self.lines - 1:
            self.fault(
                f"the export has {self.lines - 1} lines, and says that it has {end['lines']}"
            )
        if end["tree_size"] != self.size:
            self.fault(
                f"the export ends with {self.size} leaves, and says that it ends with "
                f"{end['tree_size']}"
            )
        if header.get("origin") not in (None, *self.origins):
            self.fault(
                f"the export says that it is of {header['origin']!r}, and its checkpoints are of "
                f"{self.origins}"
            )

    def note(self, text, size, root=None):
        """Checks a note.

        Returns (root, origin, signers), or None if the note is no valid checkpoint. signers is
        (own, former, stranger). own: whether a known key with the name of the origin has signed.
        former: the known keys with other names that have signed. stranger: whether an unknown key
        with the name of the origin has signed. The caller judges the signers.
        """
        try:
            note = Note(text, allow_unsigned=True)
            checkpoint = Checkpoint(note.text)
            note.verified_by(self.keys)
        except ValueError as error:
            self.fault(f"checkpoint {size}: {error}")
            return None
        if checkpoint.size != size or root not in (None, checkpoint.root):
            self.fault(f"checkpoint {size}: what is stored beside the note is not what it says")
        known = [
            key
            for name, key_id, _ in note.signatures
            for key in self.keys
            if (key.name, key.id) == (name, key_id)
        ]
        own = any(key.name == checkpoint.origin for key in known)
        former = {key.text for key in known if key.name != checkpoint.origin}
        ids = {(key.name, key.id) for key in known}
        stranger = any(
            name == checkpoint.origin and (name, key_id) not in ids
            for name, key_id, _ in note.signatures
        )
        return checkpoint.root, checkpoint.origin, (own, former, stranger)

    def note_origin(self, origin, size):
        self.origins.append(origin)
        if size in self.kept and self.kept[size][1] != origin:
            self.fault(
                f"checkpoint {size} is of the log {origin!r}, and the kept one of "
                f"{self.kept[size][1]!r}"
            )
        self.origin = origin

    def judge_alone(self, said, size, goes_on):
        """Judges the note of a checkpoint at the start of a history or in a selection."""
        _, origin, (own, former, stranger) = said
        if goes_on and self.origin is not None and self.origin != origin:
            self.fault(f"checkpoint {size} is of the log {origin!r}, not of {self.origin!r}")
        self.note_origin(origin, size)
        if not self.keys:
            return
        self.may_have_successor = own and stranger
        if own:
            self.key_unknown_from = None
        elif stranger:  # the log can have changed its key before this note
            self.key_unknown_from = size
        elif former:
            self.last_signed = None
            return self.fault(
                f"checkpoint {size}: the log {origin!r} is not the name of the key that has "
                "signed it"
            )
        self.last_signed = own
        self.was_signed |= own
        if own:
            self.signed += 1
            self.signed_to = max(size, self.signed_to or 0)
            self.vouch(size)

    def judge_note(self, said, size):
        """Judges the origin and the signers of a checkpoint whose entries have been read."""
        _, origin, (own, former, _) = said
        before = self.origin
        change = next(
            (
                change
                for change in reversed(self.changes)
                if change["new_origin"] == origin and before in (None, change["old_origin"])
            ),
            None,
        )
        if before not in (None, origin) and change is None:
            self.unexplained.append(
                (
                    self.where,
                    size,
                    f"checkpoint {size} is of the log {origin!r}, not of {before!r}, and no "
                    "entry says that it changed",
                )
            )
        self.note_origin(origin, size)
        if not self.keys:
            return
        by_former = change is not None and change["old_key"] in former
        if not own and former and not by_former:
            self.last_signed = None
            return self.fault(
                f"checkpoint {size}: the log {origin!r} is not the name of the key that has "
                "signed it"
            )
        signed = own or by_former
        was_known = self.was_signed and self.key_unknown_from is None
        may_have_changed, self.may_have_successor = self.may_have_successor, False
        if change is not None and change["new_key"] not in {key.text for key in self.keys}:
            if was_known or signed:
                self.key_unknown_from = size
        elif signed:
            self.key_unknown_from = None
        elif was_known and may_have_changed:
            self.key_unknown_from = size
        elif was_known:
            self.fault(f"checkpoint {size} is not signed with a known key, and one before it is")
        self.was_signed |= signed
        self.last_signed = self.was_signed
        if own:
            self.signed_to = max(size, self.signed_to or 0)
        if signed:
            self.signed += 1
            self.vouch(size)

    def vouch(self, size):
        self.vouched = max(size, self.vouched or 0)

    def tree(self, size, root):
        """Compares the root with the kept checkpoint of the tree size `size`, if there is one."""
        if size in self.kept:
            self.judged.add(size)
            if self.kept[size][0] == root:
                self.matched.add(size)
                self.vouch(size)
            else:
                self.fault(
                    f"history has forked: the kept checkpoint of {size} leaves has another root"
                )

    def consistency(self, records, size, root):
        while records.is_next("consistency"):
            _, proof = records.take("consistency")
            old = proof["from_size"]
            if old not in self.kept or old >= size or old == 0:
                continue
            self.judged.add(old)
            try:
                roots = consistency_roots(old, self.kept[old][0], size, proof["hashes"])
            except ValueError as error:
                self.fault(f"the consistency proof from {old} leaves does not hold: {error}")
                continue
            if roots == (self.kept[old][0], root):
                self.matched.add(old)
                self.vouch(old)
            else:
                self.fault(
                    f"history has forked: the kept checkpoint of {old} leaves is not part of it"
                )

    def history(self, records):
        _, start = records.take("start")
        size, edge = start["tree_size"], None
        if self.first_size is None:
            self.first_size = size
        try:
            edge = Edge(size, start["edge"])
        except ValueError as error:
            raise Unreadable(str(error)) from None
        if size == 0 and "note" in start or size > 0 and "note" not in start:
            self.fault("the start has a note and no tree, or a tree and no note")
        if "note" in start:
            said = self.note(start["note"], size)
            if said is not None:
                self.judge_alone(said, size, self.size is not None)
                if said[0] != edge.root():
                    self.fault(
                        f"the edge at the start is not that of the checkpoint of {size} leaves"
                    )
        if self.size is not None and (self.size, self.root) != (size, edge.root()):
            self.fault(
                f"the export starts with {size} leaves, where the one before it ended with "
                f"{self.size}, or with another tree"
            )
        self.tree(size, edge.root())
        self.size, self.root = size, edge.root()
        self.consistency(records, size, edge.root())
        while records.is_next("checkpoint"):
            edge = self.checkpoint(records, edge)

    def checkpoint(self, records, edge):
        """Reads a checkpoint and its entries.

        Returns the right edge of the tree with these entries.

        edge: the right edge of the tree before the entries. edge and the result are None if the
        right edge is not known.
        """
        _, checkpoint = records.take("checkpoint")
        self.checkpoints += 1
        size, ids = checkpoint["tree_size"], checkpoint["entry_ids"]
        said = self.note(checkpoint["note"], size, checkpoint["root"])
        root, self.changes = said and said[0], []
        if size <= self.size:
            self.fault(f"checkpoint {size} comes after one of {self.size} leaves")
        if sum(last - first + 1 for first, last in ids) != size - self.size:
            self.fault(f"checkpoint {size} has not as many ids as leaves")
        for first, last in ids:
            if not self.sealed.add(first, last):
                self.fault(
                    f"checkpoint {size} takes ids between {first} and {last} that one before it "
                    "took"
                )
        for number in (number for first, last in ids for number in range(first, last + 1)):
            leaf = self.sealed_entry(records, number, size)
            if leaf is None:
                edge = None
            elif edge is not None:
                edge.append(leaf)
                self.tree(edge.size, edge.root()) if edge.size in self.kept else None
        if records.is_next("entry"):
            self.fault(
                f"there are more entries than checkpoint {size} took: the next is "
                f"{entry_id(records.value[1]['entry'])}"
            )
            raise Unreadable("what follows is in no order")
        if said is not None:
            self.judge_note(said, size)
        if edge is not None and root is not None and (edge.size, edge.root()) != (size, root):
            self.fault(
                f"the entries do not give the root of checkpoint {size}: one of them was changed "
                "together with its "
                "checksum, removed, inserted or moved, or the checkpoint was changed"
            )
            edge = None
        if edge is None and root is not None:
            self.tree(size, root)  # the checkpoint's root, because the tree is not known
        if "edge" in checkpoint:
            try:
                stored = Edge(size, checkpoint["edge"])
                if root is not None and stored.root() != root:
                    raise ValueError("the edge is that of another tree")
                edge = edge or stored
            except ValueError as error:
                self.fault(f"checkpoint {size}: {error}")
        self.size, self.root = size, root
        return edge

    def sealed_entry(self, records, number, size):
        """Reads the entry with the id `number`.

        Returns its leaf, or None if the leaf is not known.
        """
        if records.is_next("missing", "damaged", "unknown"):
            what, record = records.take("missing", "damaged", "unknown")
            if what == "unknown":
                self.cannot_judge(number, record)
            else:
                self.fault(
                    f"entry {number} is {what}"
                    + (f": {record['fault']}" if "fault" in record else "")
                )
            if record.get("id", number) != number:
                self.fault(f"entry {number} was to come, and not {record['id']}")
            return record.get("leaf")
        if not records.is_next("entry"):
            raise Unreadable(f"entry {number} of checkpoint {size} is missing")
        _, record = records.take("entry")
        if "index" in record or "proof" in record:
            self.fault("an entry of a history has a proof")
        self.entry(record)
        found = entry_id(record["entry"])
        if found != number:
            raise Unreadable(
                f"entry {number} of checkpoint {size} was to come, and not {found}: entries are "
                "missing, inserted or moved"
            )
        return self.leaf(record)

    def cannot_judge(self, number, record):
        self.not_judged += 1
        print(
            f"{self.where}: entry {number} cannot be judged: it has a value in the unknown "
            f"column {record['column']!r}"
        )

    def entry(self, record, what="entry"):
        self.entries += what == "entry"
        try:
            number = entry_id(record[what])
        except ValueError as error:
            raise Unreadable(f"an entry without an id: {error}") from None
        try:
            faults = entry_faults(record[what], record["checksum"])
        except entries.Unknown as error:
            self.not_judged += 1
            print(f"{self.where}: entry {number} cannot be judged: {error}")
            return number
        for fault in faults:
            self.fault(f"entry {number}: {fault}")
        if what == "entry" and not faults and key_change(record[what]):
            self.changes.append(key_change(record[what]))
        return number

    def leaf(self, record):
        if "leaf" in record:
            self.fault(f"entry {entry_id(record['entry'])} is another one than was sealed")
            return record["leaf"]
        return leaf_hash(record["checksum"])

    def selection(self, records):
        self.size, self.root, last = 0, Edge().root(), -1
        if records.is_next("checkpoint"):
            _, checkpoint = records.take("checkpoint")
            self.checkpoints += 1
            self.size = checkpoint["tree_size"]
            said = self.note(checkpoint["note"], self.size, checkpoint["root"])
            self.root = said and said[0]
            if said is not None:
                self.judge_alone(said, self.size, self.origin is not None)
            if "edge" in checkpoint and Edge(self.size, checkpoint["edge"]).root() != self.root:
                self.fault(f"checkpoint {self.size}: the edge is that of another tree")
            self.tree(self.size, self.root)
            self.consistency(records, self.size, self.root)
            while records.is_next("entry", "damaged", "unknown"):
                what, record = records.take("entry", "damaged", "unknown")
                if what == "unknown":
                    self.cannot_judge(record.get("id"), record)
                    continue
                if what == "damaged":
                    self.fault(f"entry {record.get('id')} is damaged: {record['fault']}")
                    continue
                number = self.entry(record)
                if "index" not in record or "proof" not in record or record["index"] <= last:
                    raise Unreadable(f"entry {number} has no proof, or is out of order")
                last = record["index"]
                try:
                    if (
                        inclusion_root(self.leaf(record), last, self.size, record["proof"])
                        != self.root
                    ):
                        raise ValueError("it leads to another root")
                except ValueError as error:
                    self.fault(f"entry {number}: the proof does not hold: {error}")
        if self.first_size is None:
            self.first_size = 0

    def rest(self, records):
        while records.is_next("inserted", "unsealed", "damaged", "unknown"):
            what, record = records.take("inserted", "unsealed", "damaged", "unknown")
            if what == "unknown":
                self.cannot_judge(record.get("id"), record)
                continue
            if what == "damaged":
                self.fault(f"entry {record.get('id')} is damaged: {record['fault']}")
                continue
            number = self.entry(record, what)
            if what == "inserted":
                self.fault(f"entry {number} was inserted")
                continue
            self.unsealed += 1
            if (
                self.sealed.has(number)
                or self.last_unsealed is not None
                and number <= self.last_unsealed
            ):
                self.fault(f"unsealed entry {number} is there twice, or out of order")
            self.last_unsealed = number

    def verdict(self):
        for where, size, what in self.unexplained:
            self.where = where
            if (
                self.signed_to is not None and self.signed_to > size
            ):  # before version 1.1, lead_audit wrote no entry for a change of the origin
                print(f"{self.where}: {what}; a later one is signed")
            else:
                self.fault(what)
        self.where = "at the end"
        if self.keys and self.last_signed is False and self.key_unknown_from is None:
            self.fault("the last checkpoint is not signed with a known key")
        for size in sorted(self.kept.keys() - self.judged):
            if self.size is not None and size > self.size and not self.older:
                self.fault(
                    f"history has gone back: it ends with {self.size} leaves, and a checkpoint "
                    f"of {size} was kept"
                )
            else:
                print(f"nothing can be said of the kept checkpoint of {size} leaves")
        root = self.root.hex() if self.root else "unknown"
        print(
            f"log {self.origin!r}: {self.checkpoints} checkpoints, {self.signed} signatures, "
            f"{self.entries} sealed and "
            f"{self.unsealed} unsealed entries, {self.faults} faults; {self.size} leaves, root "
            f"{root}"
        )
        if self.faults:
            return "tampered", 1
        if self.not_judged:
            return (
                f"could not tell: {self.not_judged} entries have something that this verifier "
                "does not know",
                2,
            )
        if not self.histories and not self.entries:
            return "could not tell: no sealed entry is in it", 2
        if (
            self.key_unknown_from is not None
            and max(self.matched, default=0) < self.key_unknown_from
        ):
            return (
                f"could not tell: from tree size {self.key_unknown_from} on the log has a key "
                "that is not known; something "
                f"vouches up to {self.vouched}"
            ), 2
        if (
            self.size is None
            or self.vouched is None
            or not (self.vouched > self.first_size or self.size == self.first_size)
        ):
            return "could not tell: no known key and no kept checkpoint vouches for it", 2
        if self.vouched < self.size:
            print(f"nothing vouches for what comes after leaf {self.vouched}")
        return "intact", 0


class Lookahead:
    """An iterator over records that can also show the next record without taking it."""

    def __init__(self, records):
        self.records, self.value = records, None

    def is_next(self, *wanted):
        if self.value is None:
            self.value = next(self.records, None)
            if self.value is None:
                raise Unreadable("the export is truncated: it has no end")
        return self.value[0] in wanted

    def take(self, *wanted):
        if not self.is_next(*wanted):
            raise Unreadable(f"{self.value[0]} where {' or '.join(wanted)} was to come")
        value, self.value = self.value, None
        return value


def read_key(text):
    if os.path.exists(text):
        with open(text, encoding="utf-8") as file:
            text = file.read()
    key = VerifierKey(text)
    if key.algorithm == COSIGNATURE:
        raise ValueError("a witness's key where the log's is wanted")
    return key


def main(arguments):
    given = arguments
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")
    arguments = argparse.ArgumentParser(
        prog="lead-audit-verifier export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arguments.add_argument(
        "--key", action="append", default=[], help="verifier key of the log, or a file with it"
    )
    arguments.add_argument(
        "--checkpoint", action="append", default=[], help="file with a checkpoint that was kept"
    )
    arguments.add_argument(
        "--older", action="store_true", help="the export may end before a checkpoint that was kept"
    )
    arguments.add_argument("files", nargs="+", metavar="FILE")
    arguments = arguments.parse_args(given)
    verifier, kept = None, {}
    try:
        keys = [read_key(text) for text in arguments.key]
        for name in arguments.checkpoint:
            with open(name, "rb") as file:
                note = Note(file.read(), allow_unsigned=True)
            note.verified_by(keys)
            checkpoint = Checkpoint(note.text)
            if (
                kept.setdefault(checkpoint.size, (checkpoint.root, checkpoint.origin))[0]
                != checkpoint.root
            ):
                raise ValueError("the kept checkpoints contradict each other")
        verifier = Verifier(keys, kept, arguments.older)
        for name in arguments.files:
            with sys.stdin.buffer if name == "-" else open(name, "rb") as stream:
                verifier.file(name, stream)
        verdict, status = verifier.verdict()
    except (OSError, ValueError) as error:
        verdict, status = (
            ("tampered", 1) if verifier and verifier.faults else (f"could not tell: {error}", 2)
        )
    print(verdict)
    return status
