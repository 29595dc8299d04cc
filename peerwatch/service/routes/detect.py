"""Routes that apply detectors to rows: to those of a request, or to the data sets that come with peerwatch."""

from collections.abc import Awaitable, Sequence
from operator import itemgetter
from typing import Annotated, Any, Final

import anyio
import msgspec
import numpy as np
from anyio.to_thread import run_sync
from fastapi import APIRouter, Path, Request, Response
from msgspec import Meta

from peerwatch.detectors.base import Floats
from peerwatch.detectors.registry import DETECTORS
from peerwatch.errors import BadInput
from peerwatch.service.answers import JSON, answered
from peerwatch.service.bodies import DirectRoute, body_of, takes
from peerwatch.service.problems import Problem, response_of
from peerwatch.service.service import Service
from peerwatch.storage.models import is_known
from peerwatch.studies.dataset_detection import ORDER, DatasetDetection, measures_of
from peerwatch.studies.datasets.registry import DATASETS
from peerwatch.studies.datasets.stats import DatasetStatistics
from peerwatch.studies.table_detection import Detection, detection

router: Final = APIRouter(tags=["detect"], route_class=DirectRoute)
ALIASES: Final = {
    "financial_transactions": "cards", "network_traffic": "traffic", "iot_sensors": "sensors",
    "user_behavior": "behaviour",
}  # fmt: skip
"""Other names of data sets."""
QUICK: Final = {"zscore", "iqr", "mad"}
"""Methods that take less than a microsecond a value."""
INLINE: Final = 2_000
"""Values that these judge on the event loop, in less than a millisecond..."""
ON_A_THREAD: Final = 50_000
"""...and on a thread of this process. What is more than that, or slower, goes to a worker."""
DETECT_SECONDS: Final = 60.0
"""How long a worker may take."""

Method = Annotated[
    str, Meta(description="A detector, by its name in the config.", extra_json_schema={"enum": [*DETECTORS]})
]
DatasetName = Annotated[str, Meta(description="A data set.", extra_json_schema={"enum": [*DATASETS, *ALIASES]})]


class DetectBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows in order of time, which all have the same columns, and the detector to apply to them."""

    data: Annotated[list[Annotated[dict[str, float], Meta(min_length=1)]], Meta(min_length=1)]
    method: Method
    parameters: dict[str, Any] = {}


class DetectBatchBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A data set, and the detector to apply to it."""

    dataset_name: DatasetName
    method: Method
    parameters: dict[str, Any] = {}


class DatasetSummary(msgspec.Struct, frozen=True):
    """A data set: rows, how many of them are anomalous, measured columns. `same_as` is another name of it."""

    name: str
    title: str
    rows: int
    anomalies: int
    columns: Sequence[str]
    same_as: str | None


class DatasetList(msgspec.Struct, frozen=True):
    """All data sets."""

    datasets: list[DatasetSummary]


@router.post("/detect", openapi_extra=takes(DetectBody), responses=answered(Detection, 400, 413, 415, 422, 503))
async def detect(request: Request) -> Response:
    """Apply a detector to rows, of which each is judged knowing all of them, as `peerwatch detect` does."""
    body = await body_of(request, DetectBody)
    columns = _columns(body.data)
    _check_known(body.method, body.parameters)
    values = len(columns) * len(body.data)
    try:
        if body.method in QUICK and values <= INLINE:
            found = msgspec.json.encode(detection(columns, body.method, body.parameters))
        elif body.method in QUICK and values <= ON_A_THREAD:
            found = await run_sync(_encoded, columns, body)
        else:
            service: Service = request.app.state.service
            found = await _in_time(service.workers.detect(columns, body.method, body.parameters))
    except BadInput as error:
        return response_of(Problem(422, str(error)))  # quicker than to raise it
    return Response(found, media_type=JSON)


@router.post(
    "/detect/batch",
    openapi_extra=takes(DetectBatchBody),
    responses=answered(DatasetDetection, 400, 413, 415, 422, 503),
)
async def detect_batch(request: Request) -> Response:
    """Apply a detector to a whole data set, and compare what it flags with the labels."""
    service: Service = request.app.state.service
    body = await body_of(request, DetectBatchBody)
    name = ALIASES.get(body.dataset_name, body.dataset_name)
    if name not in DATASETS:
        raise Problem(
            422,
            f"there is no data set {body.dataset_name}; there are {', '.join([*DATASETS, *ALIASES])}",
            pointer="/dataset_name",
        )
    _check_known(body.method, body.parameters)
    try:
        found = await _in_time(service.workers.detect_in_dataset(name, body.method, body.parameters))
    except BadInput as error:
        raise Problem(422, str(error)) from None
    return Response(found, media_type=JSON)


@router.get("/datasets", responses=answered(DatasetList))
async def list_datasets(request: Request) -> Response:  # noqa: ARG001 (so FastAPI has nothing to solve)
    """The labelled data sets, under their names and under others."""
    names = [*((name, None) for name in DATASETS), *ALIASES.items()]
    found = DatasetList([_summary(name, same_as) for name, same_as in names])
    return Response(msgspec.json.encode(found), media_type=JSON)


@router.get("/datasets/{name}/stats", responses=answered(DatasetStatistics, 404, 422, 503))
async def describe_dataset(
    request: Request, name: Annotated[str, Path(json_schema_extra={"enum": [*DATASETS, *ALIASES]})]
) -> Response:
    """Rows, anomalies by kind, and the spread of each column among normal and among anomalous rows."""
    service: Service = request.app.state.service
    known = ALIASES.get(name, name)
    if known not in DATASETS:
        raise Problem(404, f"there is no data set {name}; there are {', '.join([*DATASETS, *ALIASES])}")
    return Response(await service.workers.describe_dataset(known), media_type=JSON)


def _summary(name: str, same_as: str | None) -> DatasetSummary:
    found = DATASETS[same_as or name]
    return DatasetSummary(
        name, found.about, ORDER.rows, sum(ORDER.counts(found.kinds)), measures_of(same_as or name), same_as
    )


def _columns(data: Sequence[dict[str, float]]) -> dict[str, Floats]:
    """Return rows as columns.

    Raises:
        Problem: the rows do not have the same columns, or have none.
    """
    first = data[0]
    try:
        columns = {name: np.fromiter(map(itemgetter(name), data), np.float64, len(data)) for name in first}
    except KeyError:
        columns = {}
    if len(columns) < len(first) or sum(map(len, data)) != len(first) * len(
        data
    ):  # quicker than to compare the names of each row
        raise _uneven(data)
    return columns


def _uneven(data: Sequence[dict[str, float]]) -> Problem:
    """The problem of the first row that has other columns than the first one."""
    first = data[0]
    place = next(place for place, row in enumerate(data) if row.keys() != first.keys())
    missing = [name for name in first if name not in data[place]]
    what = f'no column "{missing[0]}"' if missing else f'a column "{next(iter(data[place].keys() - first.keys()))}"'
    other = "has it" if missing else "has not"
    return Problem(422, f"/data/{place}: {what}, but the first row {other}", pointer=f"/data/{place}")


def _check_known(method: str, parameters: dict[str, Any]) -> None:
    """Check that no code is imported because a request names it.

    Raises:
        Problem: it would be.
    """
    if method not in DETECTORS:
        raise Problem(422, f'there is no method "{method}"; there are {", ".join(DETECTORS)}', pointer="/method")
    if not is_known({"name": method, "parameters": parameters}):
        raise Problem(
            422, '/parameters/members: a list of {"name": METHOD} is expected, and no code of your own',
            pointer="/parameters/members",
        )  # fmt: skip


def _encoded(columns: dict[str, Floats], body: DetectBody) -> bytes:
    return msgspec.json.encode(detection(columns, body.method, body.parameters))


async def _in_time(work: Awaitable[bytes]) -> bytes:
    try:
        with anyio.fail_after(DETECT_SECONDS):
            return await work
    except TimeoutError:
        raise Problem(422, f"this takes longer than {DETECT_SECONDS:g} seconds; send fewer rows") from None
