"""Learned detectors that are saved as the rows they were fitted on."""

from typing import Any

from peerwatch.detectors.learned.base import Arrays, Learned, expect, finite_floats


class SavedRows(Learned):
    """A detector that is saved as the rows it was fitted on, and fitted again when it is restored."""

    def _kept(self, model: Any) -> Arrays:
        return {"rows": model[1]}

    def _revived(self, arrays: Arrays, columns: int) -> Any:
        rows = finite_floats(arrays["rows"], 2)
        expect(len(arrays) == 1 and rows.shape[1] == columns and len(rows) >= self.least, "its rows")
        with self._module("threadpoolctl").threadpool_limits(1):
            return self._learn(rows)[0]
