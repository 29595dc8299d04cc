"""Detectors over HTTP: the same as `peerwatch detect`, wherever the work is done, and each mistake a sentence."""

import csv
import io
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import numpy as np
import pytest
from anyio.to_thread import run_sync
from click.testing import CliRunner

from peerwatch.cli.main import cli
from peerwatch.errors import Busy
from peerwatch.service.app import application
from peerwatch.service.routes import detect
from peerwatch.service.service import Service
from peerwatch.service.sweeps import Sweeps
from peerwatch.service.workers import Workers
from peerwatch.settings.model import Settings
from peerwatch.studies.datasets.registry import DATASETS
from peerwatch.studies.datasets.stats import statistics

SLOW_TO_IMPORT: Final = [
    pytest.param(name, marks=pytest.mark.slow) for name in ("isolation_forest", "autoencoder", "ensemble")
]
"""Methods whose libraries each worker imports anew."""


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the whole application, with real workers."""
    service = await run_sync(Service, Settings(), tmp_path, print)
    async with Workers([], 1) as workers:
        service.workers, service.sweeps = workers, Sweeps(workers)
        app = await run_sync(partial(application, service, hosts=None, token=None))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
            yield client


def rows_of(count: int) -> list[dict[str, float]]:
    """Rows of two columns, of which the 21st is odd."""
    values = np.random.default_rng(1).normal(50, 2, (count, 2)).round(2)
    values[20] = 99
    return [{"amount": amount, "hour": hour} for amount, hour in values.tolist()]


def by_command(directory: Path, rows: list[dict[str, float]], method: str) -> list[tuple[dict[str, float], str]]:
    """The rows that the command flags, and their scores."""
    table = directory / "table.csv"
    table.write_text("amount,hour\n" + "".join(f"{row['amount']},{row['hour']}\n" for row in rows))
    arguments = ["detect", str(table), "--column", "amount", "--column", "hour", "--method", method]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.stderr
    return [
        ({"amount": float(row["amount"]), "hour": float(row["hour"])}, row["score"])
        for row in csv.DictReader(io.StringIO(result.stdout))
    ]


@pytest.mark.parametrize("method", ["iqr", "zscore", "mad", "spc", *SLOW_TO_IMPORT])
async def test_what_is_flagged_is_what_the_command_flags(
    client: httpx.AsyncClient, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same scores, at the same rows."""
    monkeypatch.setattr(detect, "DETECT_SECONDS", 600.0)  # libraries are imported first, however busy the machine is
    rows = rows_of(60)
    answer = (await client.post("/detect", json={"data": rows, "method": method})).json()
    expected = await run_sync(by_command, tmp_path, rows, method)
    assert [(rows[one["index"]], f"{one['score']:.6g}") for one in answer["anomalies"]] == expected
    assert answer["rows"] == len(answer["scores"]) == len(answer["flagged"]) == 60
    assert [one["index"] for one in answer["anomalies"]] == [place for place in range(60) if answer["flagged"][place]]
    assert answer["flagged"][20]


async def test_rows_are_judged_alike_wherever_the_work_is_done(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the event loop, on a thread, or in a worker process."""
    body = {"data": rows_of(100), "method": "iqr", "parameters": {"k": 2.5}}
    found = []
    for inline, on_a_thread in ((1000, 1000), (0, 1000), (0, 0)):
        monkeypatch.setattr(detect, "INLINE", inline)
        monkeypatch.setattr(detect, "ON_A_THREAD", on_a_thread)
        found.append((await client.post("/detect", json=body)).content)
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"data": [], "method": "iqr"}, "/data: expected an array of length >= 1"),
        ({"data": [{}, {}], "method": "iqr"}, "/data/0: expected an object of length >= 1"),
        ({"data": [{"a": 1}, {"b": 1}], "method": "iqr"}, '/data/1: no column "a", but the first row has it'),
        ({"data": [{"a": 1}, {"a": 1, "b": 1}], "method": "iqr"}, '/data/1: a column "b", but the first row has not'),
        ({"data": [{"a": 1}, {"a": "2"}], "method": "iqr"}, "/data/1/a: expected a number, got a string"),
        ({"data": [{"a": 1}, {"a": None}], "method": "iqr"}, "/data/1/a: expected a number, got null"),
        ({"data": [{"a": 1}] * 2, "method": "iqr", "parameters": {"q": 1}}, 'iqr has no parameter "q"; it has k'),
        ({"data": [{"a": 1}] * 2, "method": "iqr", "parameters": {"k": -1}},
         'iqr: "k" is -1; expected a number above 0'),
        ({"data": [{"a": 1}] * 2, "method": "os:system"}, 'there is no method "os:system"; there are zscore, iqr,'),
        ({"data": [{"a": 1}] * 2, "method": "sigma"}, 'there is no method "sigma"; there are zscore, iqr,'),
        ({"data": [{"a": 1}] * 2, "method": "ensemble", "parameters": {"members": [{"name": "os:system"}]}},
         "/parameters/members: "),
        pytest.param({"data": [{"a": 1}] * 2, "method": "isolation_forest", "parameters": {"trees": 10**30}},
                     "isolation_forest", marks=pytest.mark.slow),
    ],
)  # fmt: skip
async def test_each_mistake_is_a_sentence(client: httpx.AsyncClient, body: Any, detail: str) -> None:
    """With the status 422, and no code is imported because a request names it."""
    answer = await client.post("/detect", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"].startswith(detail)


@pytest.mark.parametrize("method", ["iqr", *SLOW_TO_IMPORT[:2]])  # an ensemble gives the reason of a member
async def test_of_too_few_rows_none_is_flagged(client: httpx.AsyncClient, method: str) -> None:
    """One row is no mistake: there is nothing to compare it with, and the answer says so."""
    answer = await client.post("/detect", json={"data": [{"amount": 1000, "hour": 14}], "method": method})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["rows"], found["anomalies"], found["scores"], found["flagged"]) == (1, [], [None], [False])
    assert found["reason"].startswith(f"{method} needs at least")


async def test_scores_that_json_does_not_have_are_null(client: httpx.AsyncClient) -> None:
    """Numbers that floats cannot square have none; a row beside others that are all the same has a finite one."""
    answer = await client.post("/detect", json={"data": [{"a": 1e308}, {"a": -1e308}] * 5, "method": "zscore"})
    assert answer.json()["scores"] == [None] * 10
    answer = await client.post("/detect", json={"data": [{"a": 1}] * 9 + [{"a": 5}], "method": "mad"})
    (anomaly,) = answer.json()["anomalies"]
    assert anomaly["index"] == 9
    assert 7 < anomaly["score"] < 9


async def test_the_data_sets_are_there_under_both_names(client: httpx.AsyncClient) -> None:
    """With their columns and statistics; a name that nobody knows is a problem."""
    found = {one["name"]: one for one in (await client.get("/datasets")).json()["datasets"]}
    assert found.keys() == {*DATASETS, *detect.ALIASES}
    for other, name in detect.ALIASES.items():
        assert {**found[other], "name": name, "same_as": None} == found[name]
    for name in ("cards", "financial_transactions", "social"):
        described = (await client.get(f"/datasets/{name}/stats")).json()
        assert described["rows"] == found[name]["rows"]
        assert sum(described["anomalous"].values()) == found[name]["anomalies"]
        assert [*described["columns"]] == found[name]["columns"]
    answer = await client.get("/datasets/nothing/stats")
    assert answer.status_code == 404
    assert answer.json()["detail"].startswith("there is no data set nothing; there are social, cards,")


async def test_a_data_set_is_judged_and_compared_with_its_labels(client: httpx.AsyncClient, tmp_path: Path) -> None:
    """Precision and recall are those of the rows that are flagged, by either name of the data set."""
    body = {"dataset_name": "iot_sensors", "method": "mad", "parameters": {"k": 6}}
    answer = (await client.post("/detect/batch", json=body)).json()
    assert answer == (await client.post("/detect/batch", json={**body, "dataset_name": "sensors"})).json()
    made = await run_sync(CliRunner().invoke, cli, ["datasets", "make", "sensors", str(tmp_path)])
    assert made.exit_code == 0
    rows = [*csv.DictReader(io.StringIO(await run_sync((tmp_path / "sensors.csv").read_text)))]
    found = sum(row["label"] == "1" and flagged for row, flagged in zip(rows, answer["flagged"], strict=True))
    assert answer["found"] == found
    assert answer["labelled"] == sum((await run_sync(statistics, tmp_path / "sensors.csv")).anomalous.values())
    assert answer["precision"] == found / len(answer["anomalies"])
    assert answer["recall"] == found / answer["labelled"]
    assert answer["columns"] == ["temperature", "pressure", "vibration"]
    answer = await client.post("/detect/batch", json={**body, "dataset_name": "nothing"})
    assert (answer.status_code, answer.json()["pointer"]) == (422, "/dataset_name")


async def test_too_many_that_wait_are_turned_away(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a problem that says when to ask again."""

    async def busy(*_: object) -> bytes:
        raise Busy("16 requests wait already; ask again later")

    monkeypatch.setattr(Workers, "detect_in_dataset", busy)
    answer = await client.post("/detect/batch", json={"dataset_name": "cards", "method": "iqr"})
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0


async def test_what_takes_too_long_is_given_up(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its worker is killed; the next request is answered."""
    with monkeypatch.context() as patch:
        patch.setattr(detect, "DETECT_SECONDS", 0.0)
        answer = await client.post("/detect/batch", json={"dataset_name": "cards", "method": "isolation_forest"})
        assert answer.status_code == 422
        assert "takes longer than 0 seconds" in answer.json()["detail"]
    answer = await client.post("/detect/batch", json={"dataset_name": "cards", "method": "iqr"})
    assert msgspec.json.decode(answer.content)["dataset"] == "cards"
