"""The proof of speed: `make bench` builds the cases, measures, prints the tables, and keeps them beside this file.

`make bench ARGS='--cases load,stream --runs 3'` measures some cases only, and keeps nothing; `late`, `kafka` and
`cluster` are cases, too; `cluster` measures `stream`, `deep` and `huge` if they are named as well.
"""

import argparse
import json
import tempfile
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import cluster
import judges
import kafka
import late
import latency
import live
import sweep
from cases import CASES, SHARED
from plot import plot
from throughput import cores, judging_cost, machine, measure
from yardsticks import compiled_yardstick

HERE = Path(__file__).parent
RATES = (1000, 10_000)
SWEPT = ("stream", "real D=2")


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table; a ratio of 0.5 is half the time."""
    head = (
        "case", "events", "wall s", "CPU s", "peak MiB", "events/s", "to decoding", "to the reference",
        "to the C++ loop", "its MiB", "bytes a purchase", "bytes a friendship",
    )  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|---" + "|--:" * (len(head) - 1) + "|"]
    for row in rows:
        yardstick, reference = row["yardstick"], row.get("reference")
        cells = (
            row["case"], f"{row['events']:,}", f"{row['wall']:.2f}", f"{row['cpu']:.2f}", f"{row['memory']:.0f}",
            f"{row['events_per_second']:,.0f}", f"{row['wall'] / row['decoding']:.2f}",
            f"under 1/{reference / row['wall']:,.0f}" if reference else "not measured",
            f"{row['wall'] / yardstick['wall']:.2f}" if yardstick else "not measured",
            f"{yardstick['memory']:.0f}" if yardstick else "",
            f"{row['purchase_bytes']:.0f}", f"{row['friendship_bytes']:.0f}",
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def report(results: dict[str, Any]) -> str:
    """All results as Markdown."""
    about = results["machine"]
    parts = [
        "# The last `make bench`",
        (
            f"{results['date']}, {about['processor']}, {about['cores']} cores, {about['memory_gib']} GiB,"
            f" {about['system']}, Python {about['python']}. Whole processes, start-up included; medians of"
            f" {results['runs']} runs, every program in turn; `huge` and `tenth`, its like with a"
            " tenth of the users, once."
        ),
        table(results["cases"]),
        "*To decoding*: msgspec makes objects of the same lines, and does nothing else. *To the reference*: the naive"
        " implementation in `tests/reference.py`, at the pace of the stream's first lines (it gets slower). *To the C++"
        " loop*: a hand-written single-threaded loop that reads clean logs only"
        + (", with the same output, byte for byte." if all(row["same_bytes"] for row in results["cases"]) else "."),
    ]
    parts += [f"Not measured: {missing}." for missing in results["missing"]]
    if speed_up := results.get("cores"):
        parts.append(
            f"`deep` on one core {speed_up['one_core']:.2f} s, on two {speed_up['two_cores']:.2f} s:"
            f" {speed_up['speed_up']:.2f} times as fast."
        )
    if huge := results.get("huge"):
        parts.append(
            f"A stream purchase of `huge` costs {huge['huge']:.1f} µs, of `tenth` {huge['tenth']:.1f} µs:"
            f" {huge['huge'] / huge['tenth']:.2f} times as much among ten times as many users."
        )
    if results["latency"]:
        parts += [
            "From a line's write to the moment its flagged line can be read, in milliseconds, medians of five rounds:",
            latency_table(results),
        ]
    parts += results["live"]
    parts += sweep.lines(results.get("sweep", {}))
    parts += judges.lines(results.get("judges", {}))
    parts += late.lines(results.get("late", {}))
    parts += kafka.lines(results.get("kafka", {}))
    parts += cluster.lines(results.get("cluster", {}))
    return "\n\n".join(parts) + "\n"


def latency_table(results: dict[str, Any]) -> str:
    """Percentiles of both programs that followed the same log."""
    lines = ["| events a second | program | p50 | p99 | p99.9 |", "|--:|---|--:|--:|--:|"]
    for rate, programs in results["latency"].items():
        for program, percentiles in programs.items():
            lines.append(
                f"| {int(rate):,} | {program.replace('|', chr(92) + '|')} | "
                + " | ".join(f"{ms:.1f}" for ms in percentiles)
                + " |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measure everything, or some cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", help="names with commas; only these, and nothing is kept")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    everything = [*(case.name for case in CASES), late.NAME, kafka.NAME, cluster.NAME]
    wanted = arguments.cases.split(",") if arguments.cases else everything
    results: dict[str, Any] = {
        "date": datetime.now(tz=UTC).date().isoformat(), "machine": machine(), "runs": arguments.runs, "cases": [],
        "missing": [], "latency": {}, "live": [],
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="peerwatch-bench-") as name:
        root = Path(name)
        yardstick = compiled_yardstick(root)
        if yardstick is None:
            results["missing"].append("the C++ loop, whose source or compiler is not here")
        built = {case.name: (case, case.build(root)) for case in CASES if case.name in wanted}
        for case, directory in built.values():
            if directory is None:
                results["missing"].append(f"{case.name}, for want of the real data in {SHARED.name}/data")
                continue
            results["cases"].append(measure(case, directory, yardstick, arguments.runs, root))
            print(table(results["cases"][-1:]).splitlines()[-1], flush=True)
        if "deep" in built and (deep := built["deep"])[1] is not None:
            results["cores"] = cores(deep[0], deep[1], arguments.runs, root)
        results["sweep"] = {
            case.name: sweep.measure(directory, arguments.runs, root) for case, directory in built.values()
            if directory is not None and case.name in SWEPT
        }  # fmt: skip
        if "stream" in built and (stream := built["stream"])[1] is not None:
            results["judges"] = judges.measure(stream[0], stream[1], arguments.runs, root)
        if late.NAME in wanted:
            results["late"] = late.measure(root, arguments.runs)
        if kafka.NAME in wanted:
            _, real = built.get("real D=2", (None, None))
            results["kafka"] = kafka.measure(root, real, arguments.runs)
        if cluster.NAME in wanted:
            results["cluster"] = cluster.measure(built, arguments.runs, root)
        if not arguments.cases:
            results["huge"] = {
                case.name: judging_cost(case, directory, root) for case, directory in built.values()
                if directory is not None and case.large
            }  # fmt: skip
    if not arguments.cases:
        for rate in RATES:
            results["latency"][str(rate)] = live.in_directory(partial(latency.measure, rate=rate))
        results["live"] = live.lines()
    text = report(results)
    print(text)
    if not arguments.cases:
        (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        (HERE / "results.md").write_text(text)
        plot(results, HERE.parent / "docs" / "speed.svg")


if __name__ == "__main__":
    main()
