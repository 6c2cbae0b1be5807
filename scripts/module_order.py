#!/usr/bin/env python3
"""Checks that the modules of src/ depend on each other in one direction only.

The head of src/lib.rs lists the folders in order: a folder may use only those above it. Files of one folder may not use
each other in a circle. A name that a folder's module file re-exports counts as a use of the file that defines it.
"""
import re
import sys
from pathlib import Path

SRC = Path(__file__).resolve().parent.parent / "src"


def expand(tree):
    """The paths of a use declaration: `a::{b, c::d}` is a::b and a::c::d."""
    start = tree.find("{")
    if start < 0:
        return [tree.split(" as ")[0].strip()]
    depth, part, parts = 0, "", []
    for char in tree[start + 1:tree.rindex("}")] + ",":
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            parts.append(part.strip())
            part = ""
        else:
            part += char
    return [path for part in parts if part for path in expand(tree[:start] + part)]


def uses(text):
    code = re.sub(r"//.*", "", text.split("#[cfg(test)]\nmod tests")[0])
    declared = re.findall(r"\buse ((?:crate|super)::[^;]+);", code)
    return [path for tree in declared for path in expand(" ".join(tree.split()))] + re.findall(r"\bcrate(?:::\w+)+", code)


def main():
    texts = {tuple(path.relative_to(SRC).with_suffix("").parts): path.read_text() for path in sorted(SRC.rglob("*.rs"))}
    reexports = {module: [path for tree in re.findall(r"\bpub use ((?!crate|super|pgrx)[^;]+);", text) for path in expand(" ".join(tree.split()))]
                 for module, text in texts.items()}

    def resolve(path):
        """The module that defines what a path names."""
        module = path
        while module and module not in texts:
            module = module[:-1]
        rest = path[len(module):]
        for exported in reexports.get(module, ()):
            if rest and exported.split("::")[-1] == rest[0] and module + tuple(exported.split("::"))[:-1] in texts:
                return resolve(module + tuple(exported.split("::")))
        return module

    order = re.findall(r"^//! \d+\. `(\w+)`", texts[("lib",)], re.M)
    problems = [f"src/lib.rs does not list {m[0]}" for m in texts if len(m) == 1 and m[0] not in (*order, "lib")]
    graph = {}
    for module, text in texts.items():
        if module == ("lib",):
            continue
        found = {resolve(tuple(path.replace("super", "::".join(("crate", *module[:-1])), 1).split("::")[1:])) for path in uses(text)}
        graph[module] = found = {other for other in found if other and other != module and other != module[:-1]}
        problems += [f"{'::'.join(module)} uses {'::'.join(other)}, which is below it" for other in found
                     if other[0] in order and module[0] in order and order.index(other[0]) > order.index(module[0])]

    def visit(module, path):
        if module in path:
            return problems.append("circle: " + " -> ".join("::".join(m) for m in path[path.index(module):] + [module]))
        for other in sorted(graph.pop(module, ())):
            visit(other, path + [module])
    for module in list(graph):
        visit(module, [])
    print("\n".join(sorted(set(problems))) or f"{len(texts)} files: each uses only what is above it")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
