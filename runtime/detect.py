"""`peerwatch detect`: a detector on a column of a plain table."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from peerwatch.detectors.registry import make
from peerwatch.network.errors import BadInput, UsageError
from peerwatch.runtime.sheets import Sheet


def detected(sheet: Sheet, column: str, method: str, parameters: Mapping[str, Any]) -> list[list[str]]:
    """The header and each row that is flagged for its value in one column, both with the score added.

    Raises:
        UsageError: there is no such column, a value there is no finite number, there is no such method, it does not
            take these parameters, or there are too few rows.
    """
    values = sheet.numbers(column)
    try:
        score, _, flagged = make(method, parameters).look_back(values[:, None])
    except BadInput as error:
        raise UsageError(str(error)) from None
    found = [[*sheet.rows[place], f"{score[place]:.6g}"] for place in np.flatnonzero(flagged).tolist()]
    return [[*sheet.header, "score"], *found]
