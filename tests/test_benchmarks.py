"""The kept figures are those that the documents show."""

import json
from pathlib import Path

import numpy as np
import scale
import scale_dispatch
import scale_machine
from bench import report
from scale_machine import Size
from scale_partition import csr_of, gathered

from peerwatch.network.neighbourhood import members_of

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_the_table_is_that_of_the_kept_results() -> None:
    """results.md says what results.json holds."""
    results = json.loads((BENCHMARKS / "results.json").read_text())
    assert (BENCHMARKS / "results.md").read_text() == report(results)


def test_the_page_of_scale_has_the_kept_figures() -> None:
    """docs/scale.md is what its words and scale.json give; each figure in it comes from there."""
    results = json.loads((BENCHMARKS / "scale.json").read_text())
    assert (BENCHMARKS.parent / "docs" / "scale.md").read_text() == scale.page(results)


def test_members_are_found_where_they_live() -> None:
    """Gathered from all machines, a buyer's network is that of a breadth-first search, with any number of machines."""
    graph = scale_machine.graph_of(Size(60, 3, 0), 2, np.random.default_rng(5))
    csr = csr_of(graph)
    for machines in (1, 3, 7):
        for buyer in range(60):
            found = np.concatenate([gathered(csr, buyer, machine, machines) for machine in range(machines)])
            assert sorted(found.tolist()) == sorted(members_of(graph, buyer, 2, lambda user: (user, b"")))


def test_blocks_that_are_decoded_apart_are_in_one_order() -> None:
    """Their users, numbers and lines are those of one decoder, with lines in between that are no events."""
    lines = scale_machine.log_text(500, 30_000).splitlines(keepends=True)
    lines[::701] = [b"no event\n"] * len(lines[::701])
    scale_dispatch.check_same(b"".join(lines))
