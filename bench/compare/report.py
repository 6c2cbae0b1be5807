"""Formats the medians and ratios of the measurements as Markdown."""

import statistics

median = statistics.median


def bulk_figures(found):
    """Returns {operation: figures} of the statements. Each ratio is the median of all rounds."""
    figures = {}
    for operation, data in found.get("statements", {}).items():
        systems, rows = data["systems"], data["rows"]
        none = systems["none"]
        clocks = {}
        for clock in ("seconds", "cpu"):
            added = {
                name: [r[clock] - n[clock] for r, n in zip(results, none)]
                for name, results in systems.items()
                if name != "none"
            }
            clocks[clock] = (
                added,
                [t + f[clock] + f["hash"] for t, f in zip(added["empty_trigger"], data["floor"])],
            )
        added, floor = clocks["seconds"]
        ratios = lambda beside: {
            name: [median(t / b for t, b in zip(clocks[c][0][name], beside(c))) for c in clocks]
            for name in added
        }
        per_row = {name: median(times) / rows * 1e6 for name, times in added.items()}
        row = {
            "rows": rows,
            "none": median(n["seconds"] for n in none) / rows * 1e6,
            "added": per_row,
        }
        if floor:
            entries = data["floor"][0]["entries"]
            row["floor"] = median(floor) / rows * 1e6
            row["parts"] = {
                "empty trigger": per_row["empty_trigger"],
                "INSERT … SELECT": median(f["seconds"] for f in data["floor"]) / rows * 1e6,
                "SHA-256": median(f["hash"] for f in data["floor"]) / rows * 1e6,
            }
            row["to_floor"] = ratios(lambda clock: clocks[clock][1])
            row["floor_wal"] = median(f["wal"] for f in data["floor"]) / entries
        if "plpgsql" in added:
            row["to_hand"] = ratios(lambda clock: clocks[clock][0]["plpgsql"])
        for what in ("wal", "bytes"):
            row[what] = {
                name: median(r[what] - n[what] for r, n in zip(results, none)) / rows
                for name, results in systems.items()
                if name != "none"
            }
        figures[operation] = row
    return figures


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def markdown(found):
    labels, machine = found["labels"], found["machine"]
    others = [name for name in labels if name not in ("none", "empty_trigger")]
    out = [
        f"{machine['server']} on {machine['cores']} cores of {machine['processor']},\n"
        f"load average {machine['load']:.1f} at the beginning; "
        f"{found['rounds']} rounds, {found['minutes']:.0f} minutes.\n"
    ]
    bulk = bulk_figures(found)
    if bulk:
        out.append("### Statements over many rows: µs added to each row\n")
        header = ["statement", "rows", "no audit"] + [labels[name] for name in others] + ["floor"]
        out.append(
            table(
                header,
                [
                    [operation, f"{row['rows']:,}", f"{row['none']:.1f}"]
                    + [f"{row['added'][name]:.1f}" for name in others]
                    + [f"{row['floor']:.1f}" if "floor" in row else ""]
                    for operation, row in bulk.items()
                ],
            )
        )
        if any("floor" in row for row in bulk.values()):
            out.append(
                "As a multiple of the floor: empty trigger + INSERT … SELECT + SHA-256 (µs)."
                " The first figure uses\nthe wall clock,"
                " the second the processor time of the server, which other work disturbs less.\n"
            )
            out.append(
                table(
                    ["statement"] + [labels[name] for name in others] + ["the floor's parts"],
                    [
                        [operation]
                        + ["{:.2f} / {:.2f}".format(*row["to_floor"][name]) for name in others]
                        + [" + ".join(f"{part:.1f}" for part in row["parts"].values())]
                        for operation, row in bulk.items()
                    ],
                )
            )
        if "plpgsql" in others:
            out.append("As a multiple of the PL/pgSQL trigger:\n")
            out.append(
                table(
                    ["statement"] + [labels[name] for name in others],
                    [
                        [operation]
                        + ["{:.3f} / {:.3f}".format(*row["to_hand"][name]) for name in others]
                        for operation, row in bulk.items()
                    ],
                )
            )
        for what, title in (
            ("wal", "Bytes of WAL for each row, beyond those of no audit"),
            ("bytes", "Bytes on disk for each row, beyond those of no audit"),
        ):
            floor = what == "wal" and any("floor_wal" in row for row in bulk.values())
            out.append(f"### {title}\n")
            out.append(
                table(
                    ["statement"]
                    + [labels[name] for name in others]
                    + ["INSERT … SELECT"] * floor
                    + ["lead_audit × that"] * floor,
                    [
                        [operation]
                        + [f"{row[what][name]:,.0f}" for name in others]
                        + (
                            [
                                f"{row['floor_wal']:,.0f}",
                                f"{row['wal']['lead_audit'] / row['floor_wal']:.2f}",
                            ]
                            if floor
                            else []
                        )
                        for operation, row in bulk.items()
                    ],
                )
            )
    if "sessions" in found:
        out.append("### Single-row writes: transactions a second, × those without audit\n")
        rows = []
        for load, results in found["sessions"].items():
            none = results["none"]
            shown = [
                f"{median(r / n for r, n in zip(results[name], none)):.2f}"
                if results.get(name)
                else ""
                for name in ["empty_trigger"] + others + ["floor"]
            ]
            rows.append([load, f"{median(none):,.0f}"] + shown)
        out.append(
            table(
                ["load", "no audit"]
                + [labels[name] for name in ["empty_trigger"] + others]
                + ["floor"],
                rows,
            )
        )
        out.append(
            "Here the floor is the same UPDATE and, in the same statement (WITH),"
            " the INSERT of one finished\n"
            "entry into a copy of the log.\n"
        )
    if "extremes" in found:
        extremes = found["extremes"]
        out.append(f"### Memory of an UPDATE of {extremes['rows']:,} rows\n")
        out.append(
            table(
                [labels[name] for name in extremes["memory"]],
                [[f"{size / 2**20:.1f} MB" for size in extremes["memory"].values()]],
            )
        )
        if "growth" in extremes:
            out.append(
                "### By the size of the statement:"
                " UPDATE, µs of processor time that lead_audit adds to each row\n"
            )
            out.append(
                table(
                    [
                        f"{g['rows']:,} row{'s' * (g['rows'] > 1)}"
                        for g in extremes["statement_sizes"]
                    ],
                    [[f"{g['added'] * 1e6:.1f}" for g in extremes["statement_sizes"]]],
                )
            )
            out.append(
                f"### By the size of the log: UPDATE of {found['rows']:,} rows,"
                " µs of processor time a row\n"
            )
            out.append(
                table(
                    [
                        "entries in the log",
                        "added by lead_audit",
                        "INSERT … SELECT of its entries",
                        "ratio",
                    ],
                    [
                        [
                            f"{g['entries']:,}",
                            f"{g['added'] * 1e6:.1f}",
                            f"{g['copied'] * 1e6:.1f}",
                            f"{g['added'] / g['copied']:.2f}",
                        ]
                        for g in extremes["growth"]
                    ],
                )
            )
            s = extremes["sealing"]
            out.append("### Sealing and verification\n")
            out.append(
                table(
                    ["entries", "seal()", "verify()", "faults"],
                    [
                        [
                            f"{s['entries']:,}",
                            f"{s['seal']:,.0f}/s",
                            f"{s['verify']:,.0f}/s",
                            str(s["faults"]),
                        ]
                    ],
                )
            )
    return "\n".join(out)
