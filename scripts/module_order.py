#!/usr/bin/env python3
"""Checks that two modules of src/ never depend on each other in both directions.

The head of src/lib.rs lists the modules in their order. A module may use only modules that stand
above it in this list. The files of one module must not use each other in a circle. A `use` of a
re-exported name counts as a use of the file that defines the name.
"""

import re
import sys
from pathlib import Path

SRC = Path(__file__).resolve().parent.parent / "src"
TEXTS = {
    path.relative_to(SRC).with_suffix("").parts: path.read_text() for path in SRC.rglob("*.rs")
}


def expand(tree):
    """Returns the paths of a `use` declaration.

    For `a::{b, c::d}`, returns the paths a::b and a::c::d.
    """
    if (start := tree.find("{")) < 0:
        return [tree.split(" as ")[0].strip()]
    parts = re.findall(r"(?:[^{},]|\{(?:[^{}]|\{[^{}]*\})*\})+", tree[start + 1 : tree.rindex("}")])
    return [path for part in parts if part.strip() for path in expand(tree[:start] + part.strip())]


def declared(text, keyword):
    return [
        path.split("::")
        for tree in re.findall(rf"\b{keyword} ([^;]+);", text)
        for path in expand(" ".join(tree.split()))
    ]


def resolve(path):
    """Returns the module that defines the item at `path`, a path from the crate root."""
    module = next((path[:end] for end in range(len(path), 0, -1) if path[:end] in TEXTS), ())
    for exported in declared(TEXTS.get(module, ""), "pub use"):
        if (
            path[len(module) :]
            and exported[-1] == path[len(module)]
            and module + tuple(exported[:-1]) in TEXTS
        ):
            return resolve(module + tuple(exported))
    return module


def uses(module, text):
    code = re.sub(r"//.*", "", text.split("#[cfg(test)]\nmod tests")[0])
    paths = declared(code, "use") + [
        path.split("::") for path in re.findall(r"\bcrate(?:::\w+)+", code)
    ]
    roots = {"crate": (), "super": module[:-1]}
    found = {resolve(roots[path[0]] + tuple(path[1:])) for path in paths if path[0] in roots}
    return found - {(), module, module[:-1]}


def main():
    order = re.findall(r"^//! \d+\. `(\w+)`", TEXTS.pop(("lib",)), re.M)
    graph = {module: uses(module, text) for module, text in TEXTS.items()}
    problems = {
        f"{module[0]} is not in the list of src/lib.rs"
        for module in graph
        if module[0] not in order
    }
    problems |= {
        f"{'::'.join(module)} uses {'::'.join(other)}, which is below it"
        for module in graph
        for other in graph[module]
        if {module[0], other[0]} <= set(order) and order.index(other[0]) > order.index(module[0])
    }

    def visit(module, path):
        if module in path:
            problems.add(
                "circle: "
                + " -> ".join("::".join(m) for m in path[path.index(module) :] + [module])
            )
        for other in sorted(graph.pop(module, ())):
            visit(other, path + [module])

    for module in sorted(graph):
        visit(module, [])
    print("\n".join(sorted(problems)) or f"{len(TEXTS)} files: each uses only what is above it")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
