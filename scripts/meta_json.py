#!/usr/bin/env python3
"""meta_json.py: checks META.json against the PGXN Meta Spec 1.0.0 and Cargo.toml.

Prints the faults. Ends with exit code 1 if there are faults.
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SEMVER = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-?[0-9A-Za-z-]+)?")
TERM = re.compile(r"[^\s/\\\x00-\x1f\x7f]{2,}")
LICENSES = {
    "agpl_3",
    "apache_1_1",
    "apache_2_0",
    "artistic_1",
    "artistic_2",
    "bsd",
    "freebsd",
    "gfdl_1_2",
    "gfdl_1_3",
    "gpl_1",
    "gpl_2",
    "gpl_3",
    "lgpl_2_1",
    "lgpl_3_0",
    "mit",
    "mozilla_1_0",
    "mozilla_1_1",
    "openssl",
    "perl_5",
    "postgresql",
    "qpl_1_0",
    "ssleay",
    "sun",
    "zlib",
    "open_source",
    "restricted",
    "unrestricted",
    "unknown",
}
KNOWN = {
    "name",
    "abstract",
    "description",
    "version",
    "maintainer",
    "license",
    "provides",
    "meta-spec",
    "generated_by",
    "no_index",
    "prereqs",
    "release_status",
    "resources",
    "tags",
}


def faults(meta):
    text = (ROOT / "Cargo.toml").read_text(encoding="utf-8")
    version = re.search(r'^version = "(.*)"$', text, re.M)[1]
    for name in ("name", "abstract", "version", "maintainer", "license", "provides", "meta-spec"):
        if not meta.get(name):
            yield f"{name} is required"
    yield from (
        f"{name} is none of the spec's"
        for name in meta
        if name not in KNOWN and not name.lower().startswith("x_")
    )
    if not TERM.fullmatch(meta["name"]) or not all(
        TERM.fullmatch(name) for name in meta["provides"]
    ):
        yield "a name is no term"
    for what, found in [
        ("version", meta["version"]),
        *((f"provides {name}", it["version"]) for name, it in meta["provides"].items()),
    ]:
        if not SEMVER.fullmatch(found):
            yield f"{what}: {found} is no semantic version"
        if found != version:
            yield f"{what} is {found}, and {version} in Cargo.toml"
    for it in meta["provides"].values():
        yield from (
            f"there is no {it[key]}"
            for key in ("file", "docfile")
            if key in it and not (ROOT / it[key]).exists()
        )
        if "file" not in it:
            yield "what is provided needs a file"
    license = meta["license"]
    if license != re.search(r'^license = "(.*)"$', text, re.M)[1].lower():
        yield f"the license is {license}, and another one in Cargo.toml"
    if not (
        license in LICENSES
        if isinstance(license, str)
        else all(url.startswith("http") for url in license.values())
    ):
        yield f"{license} is no license that the spec knows"
    if meta.get("release_status", "stable") not in ("stable", "testing", "unstable"):
        yield "release_status is stable, testing or unstable"
    if meta["meta-spec"]["version"] != "1.0.0":
        yield "meta-spec is 1.0.0"
    if not all(
        isinstance(tag, str) and 0 < len(tag) <= 255 and "/" not in tag
        for tag in meta.get("tags", [])
    ):
        yield "a tag is none"
    for phase, relations in meta.get("prereqs", {}).items():
        if phase not in ("configure", "runtime", "build", "test", "develop"):
            yield f"there is no phase {phase}"
        for relation, needs in relations.items():
            if relation not in ("requires", "recommends", "suggests", "conflicts"):
                yield f"there is no relation {relation}"
            yield from (
                f"{name} {found} is no version"
                for name, found in needs.items()
                if found != 0 and not SEMVER.fullmatch(str(found))
            )


found = list(faults(json.loads((ROOT / "META.json").read_text(encoding="utf-8"))))
if found:
    sys.exit("\n".join(["META.json:", *found]))
