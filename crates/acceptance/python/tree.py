"""Checks the tables of the Merkle tree with functions of the Python verifier.

Each line of standard input is a JSON array with the kind of a row and the row's columns. The query
`ROWS` in src/tree.rs returns these lines. The program prints one line for each fault.
"""

import base64
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "verifiers/python/src"))

from lead_audit_verifier import transparency as t
from lead_audit_verifier.export import id_ranges

TILE = 256  # number of hashes in a full tile (docs/FORMAT.md, section 12)

rows = defaultdict(list)
for line in sys.stdin:
    kind, *columns = json.loads(line)
    rows[kind].append(columns)

checksums = {int(id): bytes.fromhex(checksum) for id, checksum in rows["entry"]}
edge, leaves, ids = t.Edge(), [], []
for size, root, note, entry_ids in sorted(rows["checkpoint"], key=lambda row: int(row[0])):
    size = int(size)
    for first, last in id_ranges(entry_ids):
        for id in range(first, last + 1):
            ids.append(id)
            if id not in checksums:
                print(f"id {id} is sealed and has no entry")
                continue
            leaves.append(t.leaf_hash(checksums[id]))
            edge.append(leaves[-1])
    if len(ids) != size:
        print(f"the checkpoint of size {size} has other ids")
    if edge.root().hex() != root:
        print(f"the checkpoint of size {size} has another root")
    if note.split("\n")[1:3] != [str(size), base64.b64encode(bytes.fromhex(root)).decode()]:
        print(f"the note of size {size} says something else")
for id, count in Counter(ids).items():
    if count > 1:
        print(f"id {id} is sealed more than once")

ranges = sorted(
    (int(id), int(leaf) + id - int(first))
    for first, last, leaf in rows["leaf_range"]
    for id in range(int(first), int(last) + 1)
)
if ranges != sorted(zip(ids, range(len(ids)))):
    print("leaf_range leads elsewhere")

# Level 0 of the tiles contains the leaves. Each higher level contains the roots of the full tiles
# of the level below.
expected, level, hashes = {}, 0, leaves
while hashes:
    for at in range(0, len(hashes), TILE):
        expected[level, at // TILE] = b"".join(hashes[at : at + TILE])
    complete = range(0, len(hashes) - TILE + 1, TILE)
    above = []
    for at in complete:
        nodes = hashes[at : at + TILE]
        while len(nodes) > 1:
            nodes = [t.node_hash(*pair) for pair in zip(nodes[::2], nodes[1::2])]
        above += nodes
    level, hashes = level + 1, above
found = {(int(level), int(index)): bytes.fromhex(hashes) for level, index, hashes in rows["tile"]}
for place in sorted(expected.keys() | found.keys()):
    if found.get(place, b"") != expected.get(place, b""):
        print("tile {} of level {} is another".format(*reversed(place)))
if [[str(len(ids))]] != rows["tree"]:
    print(f"lead_audit.tree has another size: {rows['tree']}, and not {len(ids)}")
