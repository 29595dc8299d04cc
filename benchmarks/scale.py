"""How far one machine goes, and what more of them would bring: `make scale` measures, simulates, writes docs/scale.md.

`make scale ARGS='--users 20000'` is a quick look that keeps nothing; ARGS=--page only writes the page again. Everything
is seeded. Times are CPU times of one thread, so other work on the machine matters little, but they differ between
machines.
"""

import argparse
import json
import multiprocessing
import statistics
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from string import Template
from typing import Any, Final

import scale_dispatch
import scale_machine
import scale_partition
from scale_machine import Size
from throughput import machine

HERE: Final = Path(__file__).parent
PAGE: Final = HERE.parent / "docs" / "scale.md"
TEMPLATE: Final = HERE / "scale_page.md"
RESULTS: Final = HERE / "scale.json"
USERS: Final = 1_000_000
STATES: Final = ("small, D=2", "small, D=3", "large, D=2")
WORKERS: Final = (1, 2, 4, 8, 16)
PLANNED: Final = ((10_000_000, 100, 30), (100_000_000, 100, 30), (1_000_000_000, 100, 30))
"""Users, mean number of friends, purchases of a user: states for which memory is planned."""
MEMORY: Final = 256e9
"""Bytes of a machine that states are divided among."""
GRIDS: Final = ((1, 16), (4, 4), (16, 1), (4, 16), (16, 4), (64, 1))
"""Partitions and replicas."""
RATE: Final = 10e6
"""Events a second that dispatchers are planned for."""


def measure(users: int) -> dict[str, Any]:
    """Measure and simulate everything; each part in a process of its own, so that no part finds another's memory."""
    large, small = Size(users, 20, 10), Size(users // 100, 10, 30)
    events = 40_000 if users == USERS else 4_000
    jobs: dict[str, tuple[Any, ...]] = {
        "memory": (scale_machine.memory, users // 10),
        "small_2": (scale_machine.following, small, 2, events),
        "small_3": (scale_machine.following, small, 3, events),
        "large_2": (scale_machine.following, large, 2, events // 2),
        "transport": (scale_machine.transport, 2_000),
        "decode_small": (_decoding, small.users, 10 * events),
        "decode_large": (_decoding, large.users, 25 * events),
        "dispatch": (_dispatching, large.users, 10 * events),
        "partition": (scale_partition.simulated, large, 4_096 if users == USERS else 256),
    }
    results: dict[str, Any] = {
        "date": datetime.now(tz=UTC).date().isoformat(), "machine": machine(), "users": users, "events": events,
        "small": small._asdict(), "large": large._asdict(),
    }  # fmt: skip
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        for name, job in jobs.items():
            results[name] = pool.submit(*job).result()
            print(name, results[name], flush=True)
    return results


def _decoding(users: int, count: int) -> float:
    return scale_machine.decoding(scale_machine.log_text(users, count))


def _dispatching(users: int, count: int) -> dict[str, float]:
    return scale_dispatch.measure(scale_machine.log_text(users, count))


def page(results: dict[str, Any]) -> str:
    """The page, with the figures of the results."""
    about, small, large = results["machine"], results["small"], results["large"]
    memory, transport, dispatch = results["memory"], results["transport"], results["dispatch"]
    partition = results["partition"]
    values = {
        "made": f"{results['date']}, {about['processor']}, {about['cores']} cores, Python {about['python']}",
        "small": _size(small), "large": _size(large),
        "constants": _constants(results), "workers": _workers(results), "memory": _memory(memory),
        "asked": f"{partition['asked']:,}", "largest": f"{partition['largest']:,}",
        "network": _gather(results), "grid": _grid(results),
        "out": f"{transport['out']:.0f}", "back": f"{transport['back']:.1f}",
        "ceiling_small": _millions(1 / results["decode_small"]),
        "ceiling_large": _millions(1 / results["decode_large"]),
        "block": f"{dispatch['block']:.2f}", "renumber": f"{dispatch['renumber']:.3f}",
        "order": f"{dispatch['order']:.1f}", "events_a_block": f"{dispatch['events_a_block']:,.0f}",
        "unique": f"{dispatch['unique']:.2f}",
        "order_ceiling": f"{dispatch['events_a_block'] / dispatch['order'] / 1e3:,.1f}",
        "planner": f"{results['large_2']['answer'] - results['large_2']['follow']:.1f}",
        "interning": f"{dispatch['one'] - dispatch['block']:.2f}",
        "dispatchers": f"{ceil(RATE / 1e6 * (dispatch['block'] + dispatch['renumber']))}",
        "interners": f"{ceil(RATE / 1e6 * (dispatch['one'] - dispatch['block']))}", "rate": f"{RATE / 1e6:.0f}",
    }  # fmt: skip
    return Template(TEMPLATE.read_text()).substitute(values)


def _size(size: dict[str, Any]) -> str:
    return (
        f"{size['users']:,} users with {size['degree']:.0f} friends and {size['purchases']} purchases each on average"
    )


def _millions(value: float) -> str:
    return f"{value:.1f} million"


def _table(head: list[str], rows: list[list[str]]) -> str:
    ruler = f"|---|{'--:|' * (len(head) - 1)}"
    first, *others = (f"| {' | '.join(line)} |" for line in [head, *rows])
    return "\n".join([first, ruler, *others])


def _constants(results: dict[str, Any]) -> str:
    rows = [
        ["decode a line", *(f"{results[f'decode_{name}']:.2f}" for name in ("small", "small", "large"))],
        ["follow", *(f"{results[name]['follow']:.2f}" for name in ("small_2", "small_3", "large_2"))],
        ["follow and answer", *(f"{results[name]['answer']:.2f}" for name in ("small_2", "small_3", "large_2"))],
        ["send and receive", *[f"{results['transport']['cpu']:.3f}"] * 3],
    ]
    return _table(["µs of CPU time an event", *STATES], rows)


def modelled(results: dict[str, Any], case: str, workers: int) -> float:
    """Events a second that W replicas follow and answer, by the model of the page."""
    costs = results[case]
    rest = (costs["answer"] - costs["follow"]) / workers
    return 1e6 / float(costs["follow"] + rest + results["transport"]["cpu"])


def _workers(results: dict[str, Any]) -> str:
    ceilings = {case: 1e6 / results["decode_large" if case == "large_2" else "decode_small"]
                for case in ("small_2", "small_3", "large_2")}  # fmt: skip
    rows = [
        [str(workers), *(f"{modelled(results, case, workers) / 1e3:,.0f}" for case in ceilings)] for workers in WORKERS
    ]
    rows.append(["one dispatcher decodes", *(f"{ceiling / 1e3:,.0f}" for ceiling in ceilings.values())])
    return _table(["thousands of events a second", *STATES], rows)


def planned(memory: dict[str, float], users: int, degree: int, purchases: int) -> dict[str, float]:
    """Bytes of each part of a state, and of all together."""
    parts = {
        "graph": users * memory["graph_user"] + users * degree / 2 * memory["friendship"],
        "histories": users * memory["history_user"] + users * purchases * memory["purchase"],
        "ids": users * memory["id_user"],
    }
    return {**parts, "all": sum(parts.values())}


def _memory(memory: dict[str, list[float]]) -> str:
    each = {
        "bytes a user": ("graph_user", "history_user", "id_user"),
        "bytes a friendship or purchase": ("friendship", "purchase"),
    }
    rows = [[what, *(_range(memory[name]) for name in names), *[""] * (5 - len(names))] for what, names in each.items()]
    means = {name: statistics.mean(values) for name, values in memory.items()}
    for users, degree, purchases in PLANNED:
        need = planned(means, users, degree, purchases)
        divided = planned({**means, "friendship": 2 * means["friendship"]}, users, degree, purchases)["all"]
        machines = 1 if need["all"] <= MEMORY else -(-divided // MEMORY)
        parts = [f"{need[name] / 1e9:,.0f}" for name in ("graph", "histories", "ids", "all")]
        rows.append([f"{users / 1e6:,.0f} million users, GB", *parts, f"{machines:.0f}"])
    return _table(["", "graph", "histories", "ids", "together", f"machines of {MEMORY / 1e9:.0f} GB"], rows)


def _range(values: list[float]) -> str:
    return f"{statistics.mean(values):.0f} ({min(values):.0f} to {max(values):.0f})"


def _gather(results: dict[str, Any]) -> str:
    rows = []
    for machines in scale_partition.MACHINES:
        found = results["partition"][str(machines)]
        rows.append([
            str(machines), f"{found['with_members']:.1f}",
            *(f"{found[name] / 1e3:.2f}" for name in ("push", "gather", "windows", "bounded")),
            f"{found['answer']:.1f}", f"{found['merge']:.1f}",
        ])  # fmt: skip
    head = [
        "machines", "others with members", "push, KB", "gather, KB", "T latest of each, KB", "with a bound, KB",
        "µs on each machine", "µs to merge",
    ]  # fmt: skip
    return _table(head, rows)


def grid(results: dict[str, Any], partitions: int, replicas: int) -> float:
    """Events a second of P partitions times R replicas, if every event is a purchase that is answered.

    Each machine follows its share of the events, of which a friendship concerns two users; and answers its part of
    every R-th purchase, with the merging of its own buyers' windows.
    """
    found = results["partition"][str(partitions)]
    follow = results["large_2"]["follow"] * min(1.0, 2 / partitions)
    return 1e6 / float(follow + (found["answer"] + found["merge"] / partitions) / replicas)


def _grid(results: dict[str, Any]) -> str:
    rows = [[str(p * r), str(p), str(r), f"{grid(results, p, r) / 1e3:,.0f}"] for p, r in GRIDS]
    return _table(["machines", "partitions", "replicas", "thousands of purchases a second"], rows)


def main() -> None:
    """Measure, print the page, and keep it unless it was a quick look."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=USERS)
    parser.add_argument("--page", action="store_true", help="only write the page again, from the kept results")
    arguments = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if arguments.page else measure(arguments.users)
    text = page(results)
    print(text)
    if arguments.users == USERS:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        PAGE.write_text(text)


if __name__ == "__main__":
    main()
