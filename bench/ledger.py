#!/usr/bin/env python3
"""Runs the benchmarks of crates/ledger. Prints their results as the table of bench/README.md.

The script passes its arguments to criterion, for example the name of a benchmark or
--measurement-time 5.

Each time in the table is the time of criterion's fastest sample, because other load can only slow a
sample down. The ratio of a benchmark is its time divided by the time of SHA-256 over the same
bytes, measured in the same run.
"""

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "criterion"


def results():
    """Returns {group: {name: (seconds, throughput)}} in the order of the benchmarks."""
    found = {}
    files = sorted(RESULTS.glob("*/*/new/benchmark.json"), key=lambda file: file.stat().st_mtime)
    for file in files:
        benchmark = json.loads(file.read_text())
        sample = json.loads((file.parent / "sample.json").read_text())
        seconds = min(time / count for time, count in zip(sample["times"], sample["iters"])) / 1e9
        throughput = benchmark.get("throughput")
        group = found.setdefault(benchmark["group_id"], {})
        group[benchmark["function_id"]] = (seconds, throughput)
    return found


def time(seconds):
    for unit, size in (("s", 1), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def rate(seconds, throughput):
    for what, amount in (throughput or {}).items():
        millions = amount / seconds / 1e6
        return f"{millions:,.0f} MB/s" if what == "Bytes" else f"{millions:.2f} M leaves/s"
    return ""


def main():
    for file in RESULTS.glob("*/*/new/benchmark.json"):
        file.unlink()
    options = sys.argv[1:] or ["--warm-up-time", "0.5", "--measurement-time", "1"]
    command = ["cargo", "bench", "-p", "ledger", "--bench", "ledger", "--", "--noplot", *options]
    run = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if run.returncode != 0:
        sys.exit(run.stdout)
    groups = results()
    hashes = groups.get("hashes of the tree", {})
    print("| what | step | time | rate | × SHA-256 |\n| --- | --- | --- | --- | --- |")
    for group, steps in groups.items():
        baseline = None
        for name, (seconds, throughput) in steps.items():
            if name.startswith("SHA-256"):
                baseline = seconds
            ratio = seconds / baseline if baseline else None
            if name.startswith("append") and "SHA-256 of 65 bytes" in hashes:
                # To append a leaf to the tree costs the hash of the leaf and, on average, the hash
                # of one inner node.
                hashed = hashes["SHA-256 of 33 bytes"][0] + hashes["SHA-256 of 65 bytes"][0]
                ratio = seconds / throughput["Elements"] / hashed
            ratio = "" if ratio is None or ratio == 1 else f"{ratio:.2f}"
            print(f"| {group} | {name} | {time(seconds)} | {rate(seconds, throughput)} | {ratio} |")


if __name__ == "__main__":
    main()
