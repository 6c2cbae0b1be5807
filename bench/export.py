#!/usr/bin/env python3
"""Compares the time of `lead-audit verify` with the time of SHA-256 over the same file.

Prints a Markdown table. bench/README.md contains the printed table. The arguments are the number of
entries (default 1,000,000) and the number of runs (default 5). In each run, the commands run one
after the other. For each command, the table shows the shortest time of all runs and the largest
memory. The exported file is in the system's directory for temporary files, so the commands read it
from the page cache.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))


def run(command, **environment):
    """Runs a command.

    Returns its elapsed time and its processor time in seconds, and its memory in kB.
    """
    begun = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | environment)
    _, status, usage = os.wait4(child.pid, 0)
    assert status == 0, command
    return time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss


def sha256(file):
    script = (
        "import hashlib, sys;"
        " print(hashlib.file_digest(open(sys.argv[1], 'rb'), 'sha256').hexdigest())"
    )
    return run([sys.executable, "-c", script, file])


def main():
    entries = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    build = ["cargo", "build", "--release", "-q", "--manifest-path", ROOT / "Cargo.toml"]
    subprocess.run(build + ["-p", "cli"], check=True)
    subprocess.run(build + ["-p", "export", "--example", "synthetic_export"], check=True)
    with tempfile.TemporaryDirectory() as directory:
        plain, packed = (
            os.path.join(directory, "export.ndjson"),
            os.path.join(directory, "export.ndjson.zst"),
        )
        with open(plain, "wb") as out:
            command = [TARGET / "release/examples/synthetic_export", str(entries)]
            key = (
                subprocess.run(command, stdout=out, stderr=subprocess.PIPE, check=True)
                .stderr.decode()
                .strip()
            )
        has_zstd = (
            subprocess.run("command -v zstd", shell=True, stdout=subprocess.DEVNULL).returncode == 0
        )
        if has_zstd:
            subprocess.run(["zstd", "-q", "-3", plain, "-o", packed], check=True)
        verify = [TARGET / "release/lead-audit", "-q", "verify", "--key", key]
        steps = {
            "SHA-256 of the file (Python's hashlib)": lambda: sha256(plain),
            "verify, one thread": lambda: run(verify + [plain], RAYON_NUM_THREADS="1"),
            f"verify, {os.cpu_count()} threads": lambda: run(verify + [plain]),
        }
        if has_zstd:
            steps[f"verify, {os.cpu_count()} threads, zstd"] = lambda: run(verify + [packed])
        figures = {name: [] for name in steps}
        for _ in range(runs):
            for name, step in steps.items():
                figures[name].append(step())
        size = os.path.getsize(plain)
        base = [
            min(column)
            for column in list(zip(*figures["SHA-256 of the file (Python's hashlib)"]))[:2]
        ]
        print(
            f"{entries:,} entries, {size / 1e6:,.0f} MB"
            + (f", {os.path.getsize(packed) / 1e6:,.0f} MB with zstd -3" if has_zstd else "")
        )
        print(
            "\n| what | time | entries/s | MB/s | × SHA-256 | processor time, × SHA-256 | memory |"
        )
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for name, found in figures.items():
            seconds, processor = (min(column) for column in list(zip(*found))[:2])
            memory = max(found, key=lambda one: one[2])[2]
            print(
                f"| {name} | {seconds:.2f} s | {entries / seconds:,.0f} |"
                f" {size / 1e6 / seconds:,.0f} | {seconds / base[0]:.2f} "
                f"| {processor / base[1]:.2f} | {memory / 1024:.0f} MiB |"
            )


main()
