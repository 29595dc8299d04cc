"""The kept figures are those that the documents show."""

import json
from pathlib import Path

from bench import report

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_the_table_is_that_of_the_kept_results() -> None:
    """results.md says what results.json holds."""
    results = json.loads((BENCHMARKS / "results.json").read_text())
    assert (BENCHMARKS / "results.md").read_text() == report(results)
