"""Runs the comparison in rounds. In each round, every measurement runs for all systems in turn."""

import argparse
import json
import os
import pathlib
import platform
import sys
import time

from . import extremes, report, sessions, statements
from .systems import BENCH, Cluster, System, make_table


def arguments():
    parser = argparse.ArgumentParser(prog="bench/compare.sh", description=__doc__)
    parser.add_argument(
        "--full",
        action="store_true",
        help="every load, setting and size; without it about 5 minutes",
    )
    parser.add_argument("--rounds", type=int, help="by default 3, full 7")
    parser.add_argument(
        "--rows",
        type=int,
        help="rows of the table and of one statement; by default 20000, full 100000",
    )
    parser.add_argument(
        "--seconds", type=float, help="of each run with sessions; by default 0.7, full 3"
    )
    parser.add_argument(
        "--largest",
        type=int,
        help="entries in the largest log;"
        " by default 1000000, full 10000000 (which needs 50 GB of disk)",
    )
    parser.add_argument(
        "--add", nargs="*", default=[], metavar="FILE", help="SQL files that set up further systems"
    )
    parser.add_argument(
        "--only",
        nargs="*",
        metavar="NAME",
        help="systems by name (of bench/systems); none and empty_trigger are always there",
    )
    parser.add_argument(
        "--parts",
        nargs="*",
        default=["sessions", "statements", "extremes"],
        help="sessions, statements, extremes",
    )
    for hidden in ("bin", "plain", "preloaded", "library", "output"):
        parser.add_argument(f"--{hidden}", required=True, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    for name, quick, full in (
        ("rounds", 3, 7),
        ("rows", 20_000, 100_000),
        ("seconds", 0.7, 3.0),
        ("largest", 1_000_000, 10_000_000),
    ):
        if getattr(chosen, name) is None:
            setattr(chosen, name, full if chosen.full else quick)
    return chosen


def chosen_systems(chosen):
    found = [System.read(file) for file in sorted((BENCH / "systems").glob("*.sql"))]
    found = [
        s
        for s in found
        if s.name in ("none", "empty_trigger")
        or (s.name in chosen.only if chosen.only else chosen.full or not s.full)
    ]
    found += [System.read(pathlib.Path(file)) for file in chosen.add]
    if len({s.name for s in found}) < len(found):
        raise SystemExit(
            "two systems have the same file name, which is what their databases are named after"
        )
    tools = pathlib.Path(chosen.bin)
    clusters = {
        False: Cluster(chosen.plain, tools, chosen.library),
        True: Cluster(chosen.preloaded, tools, chosen.library),
    }
    for system in found:
        system.cluster = clusters[system.preloaded]
    return sorted(found, key=lambda s: s.name != "none"), clusters.values()


def progress(text):
    print(f"    [{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def rotated(systems, by):
    """Returns the systems, rotated to the left by `by`.

    So each system is the first in some round.
    """
    by %= len(systems)
    return systems[by:] + systems[:by]


def run_sessions(chosen, systems, clusters):
    loads = sessions.FULL if chosen.full else sessions.QUICK
    runner = sessions.Runner(chosen.rows, chosen.seconds)
    unaudited, audited = systems[0], next((s for s in systems if s.name == "lead_audit"), None)
    for load in loads:
        runner.calibrate(unaudited, load)
    if audited:
        audited.connection("leads").execute(sessions.FLOOR)
    found = {
        str(load): {name: [] for name in [system.name for system in systems] + ["floor"]}
        for load in loads
    }
    for turn in range(chosen.rounds):
        for cluster in clusters:
            cluster.run("psql", "-Xqc", "CHECKPOINT", "-d", "postgres")
        for number, load in enumerate(loads):
            progress(f"round {turn + 1} of {chosen.rounds}: {load}")
            series = f"{turn}.{load.sessions}.{int(load.durable)}"
            for system in rotated(systems, turn + number):
                found[str(load)][system.name].append(runner.tps(system, load, series))
                if system is audited and (floor := runner.floor(system, load)):
                    found[str(load)]["floor"].append(floor)
    for system in systems:
        statements.unaudited(system.connection("leads"), "DELETE FROM leads WHERE length(id) <> 32")
        system.connection("leads").execute("VACUUM leads")
    return found


def run_statements(chosen, systems, clusters, tables):
    found, audited = {}, next((s for s in systems if s.name == "lead_audit"), None)
    for table, rows in tables.items():
        floor = statements.Floor(audited, table) if audited else None
        for operation in statements.OPERATIONS[table]:
            found[operation] = {
                "rows": rows,
                "systems": {system.name: [] for system in systems},
                "floor": [],
            }
        for turn in range(-1, chosen.rounds):  # round -1 only warms up
            for cluster in clusters:
                cluster.run("psql", "-Xqc", "CHECKPOINT", "-d", "postgres")
            for number, operation in enumerate(statements.OPERATIONS[table]):
                progress(
                    f"round {turn + 1} of {chosen.rounds}: {operation} of {rows} rows ({table})"
                )
                for system in rotated(systems, turn + number):
                    result = statements.measure(system, table, operation, rows)
                    if turn >= 0:
                        found[operation]["systems"][system.name].append(result)
                    if system is audited:
                        copied = floor.measure()
                        if turn >= 0:
                            found[operation]["floor"].append(copied)
        if table != "leads":
            for system in systems:
                system.drop(table)
    return found


def run_extremes(chosen, systems):
    by_name = {system.name: system for system in systems}
    rows = 1_000_000 if chosen.full else 10 * chosen.rows
    found = {"rows": rows, "memory": {}}
    for system in systems:
        progress(f"memory of an UPDATE of {rows} rows: {system.name}")
        found["memory"][system.name] = extremes.memory(system, rows)
    audited = by_name.get("lead_audit")
    if audited:
        progress("seal() and verify()")
        found["sealing"] = extremes.sealing(audited)
        progress("statements of all sizes")
        sizes = [size for size in (10**power for power in range(6)) if size < chosen.rows] + [
            chosen.rows
        ]
        found["statement_sizes"] = extremes.by_statement_size(
            audited, by_name["none"], sizes, chosen.rounds
        )
        sizes = [size for size in (10**power for power in range(3, 9)) if size <= chosen.largest]
        audited.drop("leads")
        audited.set_up("leads")
        statements.Floor(audited, "leads")
        found["growth"] = []
        progress(f"logs of {', '.join(map(str, sizes))} entries")
        found["growth"] = extremes.growth(
            audited, by_name["none"], sizes, chosen.rows, chosen.rounds
        )
    return found


def machine():
    model = next(
        (
            line.split(":")[1].strip()
            for line in open("/proc/cpuinfo")
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {"processor": model, "cores": os.cpu_count(), "load": os.getloadavg()[0]}


def main():
    chosen = arguments()
    began = time.time()
    systems, clusters = chosen_systems(chosen)
    clusters = list(clusters)
    tables = {"leads": chosen.rows, "wide": chosen.rows // 5, "toasted": chosen.rows // 50}
    if "statements" not in chosen.parts:
        tables = {"leads": chosen.rows}
    found = {
        "machine": machine(),
        "rounds": chosen.rounds,
        "rows": chosen.rows,
        "labels": {s.name: s.label for s in systems},
        "full": chosen.full,
    }
    for table, rows in tables.items():
        progress(f"making {len(systems)} databases with {table} of {rows} rows")
        for cluster in clusters:
            make_table(cluster, table, rows)
        for system in systems:
            system.set_up(table)
    version = (
        systems[0].connection("leads").execute("SELECT version()").fetchone()[0].split(" on ")[0]
    )
    found["machine"]["server"] = version
    if "statements" in chosen.parts:
        found["statements"] = run_statements(chosen, systems, clusters, tables)
    if "sessions" in chosen.parts:
        found["sessions"] = run_sessions(chosen, systems, clusters)
    if "extremes" in chosen.parts:
        found["extremes"] = run_extremes(chosen, systems)
    found["minutes"] = (time.time() - began) / 60
    output = pathlib.Path(chosen.output)
    (output / "results.json").write_text(json.dumps(found, indent=1))
    text = report.markdown(found)
    (output / "results.md").write_text(text)
    print(text)
    progress(f"written to {output}: results.md, results.json")


main()
