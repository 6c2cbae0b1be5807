"""Verifies entries from standard input: one JSON object on each line (FORMAT.md, section 9).

Prints each fault, and then "N entries, M faults". The exit code is 0 without faults, and 1 with
faults. The exit code is 2 if there is no fault, but an entry has a format or value that the
verifier does not know.
"""

import hashlib
import json
import re
import sys
from urllib.parse import unquote_to_bytes

INTEGERS = {"id", "format", "txid", "key_hash", "previous_key_hash", "relation", "backend_pid"}
JSONS = {"row_key", "row_values", "changed_values", "details"}
STRINGS = set(
    """occurred_at watch_id table_schema table_name operation outcome soft_delete user_id user_ip
    user_agent request_id db_session_user db_current_user client_addr application_name error_code
    error_message error_detail statement""".split()
)
NUMBER = re.compile(r"(?!-0(\.0+)?\Z)-?(0|[1-9][0-9]*)(\.[0-9]+)?")


class Number(str):
    """A number of a JSON text, kept as text because a float would lose digits."""


class Object(list):
    """The members of a JSON object in their original order, including duplicates."""


class Unknown(ValueError):
    """Raised for a format or value that this verifier does not know and therefore cannot judge."""


class Text(str):
    """A JSON text that emit() copies unchanged."""


def emit(value):
    """Returns the canonical JSON of a parsed value (FORMAT.md, section 3).

    Values can be nested to any depth for which the memory is large enough.
    """
    out, stack = [], [value]
    while stack:
        value = stack.pop()
        if isinstance(value, Text):
            out.append(value)
        elif isinstance(value, Object):
            if len({key for key, _ in value}) < len(value):
                raise ValueError("duplicate key")
            members = sorted(value, key=lambda member: member[0].encode("utf-16-be"), reverse=True)
            out.append("{")
            stack.append(Text("}"))
            for place, (key, item) in enumerate(members, 1):
                comma = "," if place < len(members) else ""
                stack += item, Text(f"{comma}{json.dumps(key, ensure_ascii=False)}:")
        elif isinstance(value, list):
            out.append("[")
            stack.append(Text("]"))
            for place, item in enumerate(reversed(value), 1):
                stack += [item, Text(",")] if place < len(value) else [item]
        elif isinstance(value, Number):
            if not NUMBER.fullmatch(value):
                raise ValueError(f"number {value}")
            out.append(value)
        else:
            out.append(json.dumps(value, ensure_ascii=False))  # a string, True, False or None
    return "".join(out)


DECODER = json.JSONDecoder(
    parse_int=Number, parse_float=Number, parse_constant=Number, object_pairs_hook=Object
)


def parse(text):
    try:
        return DECODER.decode(text)
    except RecursionError:
        return parse_deep(text)


def parse_deep(text):
    """Parses JSON that is nested too deeply for the parser of Python's library."""
    space = re.compile(r"[ \t\n\r]*").match
    opened, keys = [], []  # arrays and objects that are open; keys whose values are not read yet
    at = space(text, 0).end()

    def expect(token):
        nonlocal at
        if not text.startswith(token, at):
            raise ValueError(f"no {token!r} at {at}")
        at = space(text, at + 1).end()

    def key():
        nonlocal at
        if not text.startswith('"', at):
            raise ValueError(f"no key at {at}")
        name, at = json.decoder.scanstring(text, at + 1, True)
        at = space(text, at).end()
        expect(":")
        keys.append(name)

    while True:
        begins = text[at : at + 1]
        if begins in ("{", "["):
            opened.append(Object() if begins == "{" else [])
            at = space(text, at + 1).end()
            if not text.startswith("}" if begins == "{" else "]", at):
                if begins == "{":
                    key()
                continue
            value, at = opened.pop(), at + 1
        else:
            try:
                value, at = DECODER.scan_once(text, at)
            except StopIteration:
                raise ValueError(f"no value at {at}") from None
        while True:
            at = space(text, at).end()
            if not opened:
                if at < len(text):
                    raise ValueError(f"something follows at {at}")
                return value
            inner = opened[-1]
            inner.append((keys.pop(), value) if isinstance(inner, Object) else value)
            if text.startswith(",", at):
                at = space(text, at + 1).end()
                if isinstance(inner, Object):
                    key()
                break
            expect("}" if isinstance(inner, Object) else "]")
            value = opened.pop()


def json_bytes(value):
    """Returns the JSON bytes that an object in an entry stands for (FORMAT.md, section 3.1).

    value: the parsed object that stands for the JSON bytes. The verifier itself does not use this
    function. The function is for a reader who wants the original value of a column that
    details.invalid_bytes lists.
    """
    ((kind, text),) = value
    if kind == "$json_bytes":
        return unquote_to_bytes(text)
    if kind != "$bytes":
        raise ValueError(f"{kind} stands in for nothing")
    escape = lambda match: (
        json.dumps(match[0].decode()).strip('"').encode() if match[0] != b'"' else b'\\"'
    )
    return b'"' + re.sub(rb'[\x00-\x1f"\\]', escape, unquote_to_bytes(text)) + b'"'


def is_canonical_object(text):
    try:
        value = parse(text)
        return isinstance(value, Object) and emit(value) == text
    except ValueError:
        return False


def key_hash(watch_id, key):
    """Returns the key hash (FORMAT.md, section 6), or None if an argument is None."""
    if watch_id is None or key is None:
        return None
    digest = hashlib.sha256(bytes.fromhex(watch_id.replace("-", "")) + key.encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def previous_key(row):
    """Returns the row key before an UPDATE (FORMAT.md, section 6), or None for an unchanged key.

    The JSON columns of `row`, an entry, must be canonical JSON.
    """
    if row["operation"] != "UPDATE" or row.get("row_key") is None or row.get("row_values") is None:
        return None
    values = dict(parse(row["row_values"]))
    names = [name for name, _ in parse(row["row_key"])]
    if not values.keys() >= set(names):
        return None
    return emit(Object((name, values[name]) for name in names))


def preimage(row):
    """Returns the bytes from which the checksum is computed (FORMAT.md, section 5)."""
    members = []
    for name in sorted(row):  # the names of the columns are ASCII
        value = row[name]
        if name in ("checksum", "other_columns") or value is None:
            continue
        if name not in INTEGERS | STRINGS | JSONS:
            raise Unknown(f"column {name} is not in format 1")
        if name in INTEGERS:
            if str(int(value)) != str(value):
                raise ValueError(f"{name} {value}")
        elif not isinstance(value, str):
            raise ValueError(f"{name} is not text")
        elif name in STRINGS:
            value = emit(value)
        members.append(f'"{name}":{value}')
    return ("{" + ",".join(members) + "}").encode()


def faults(row):
    if row.get("other_columns") is not None:
        raise Unknown(f"it has a value in {row['other_columns']}, which format 1 does not have")
    if hashlib.sha256(preimage(row)).hexdigest() != row.get("checksum"):
        return ["the checksum does not match"]
    if row.get("format") not in (1, "1"):
        raise Unknown(f"unknown format {row.get('format')}")
    found = [
        f"{name} is not a canonical JSON object"
        for name in sorted(JSONS)
        if row.get(name) is not None and not is_canonical_object(row[name])
    ]
    if found:
        return found  # the further checks need valid columns
    watch_id, stored, previous = (
        row.get(name) for name in ("watch_id", "key_hash", "previous_key_hash")
    )
    if (None if stored is None else int(stored)) != key_hash(watch_id, row.get("row_key")):
        found.append("the key hash is not that of watch_id and row_key")
    if previous is not None and int(previous) != key_hash(watch_id, previous_key(row)):
        found.append("the previous key hash is not that of watch_id and the key in row_values")
    return found


def main():
    entries = bad = unknown = 0
    for number, line in enumerate(sys.stdin.buffer, 1):
        entries += 1
        name, found = f"line {number}", []
        try:
            row = json.loads(line)
            name = f"entry {row['id']}"
            found = faults(row)
        except Unknown as error:
            print(f"{name}: cannot be judged: {error}")
            unknown += 1
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            found = [f"cannot be judged: {error!r}"]
        for fault in found:
            print(f"{name}: {fault}")
        bad += len(found)
    print(f"{entries} entries, {bad} faults")
    return 1 if bad else 2 if unknown else 0
