"""Sweeps over HTTP: asked for, looked at, cancelled; one at a time, and only so many."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from anyio.to_thread import run_sync
from support import befriend, purchase

from peerwatch.service import sweeps
from peerwatch.service.app import application
from peerwatch.service.service import Service
from peerwatch.service.sweeps import KEPT, Sweeps
from peerwatch.service.workers import Workers
from peerwatch.settings.model import DetectorSettings, Layer, Settings
from peerwatch.studies.sweep import swept
from peerwatch.studies.sweep_table import SettingGrid


class SweepClient(httpx.AsyncClient):
    """A client of the whole application, with real workers, and what it is a client of."""

    layers: list[Layer]
    service: Service


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[SweepClient]:
    """A client of a service beside two logs: 40 purchases among three friends, of which some stand out."""
    layers = await run_sync(logs, tmp_path)
    service = await run_sync(Service, Settings(), tmp_path, print)
    async with Workers(layers, 1) as workers:
        service.workers, service.sweeps = workers, Sweeps(workers)
        app = await run_sync(partial(application, service, hosts=None, token=None))
        async with SweepClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
            client.layers, client.service = layers, service
            work = asyncio.create_task(service.sweeps.work())
            yield client
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work


def logs(directory: Path) -> list[Layer]:
    """Write both logs; returns the settings that name them."""
    (directory / "batch").write_bytes(befriend(1, 2) + befriend(2, 3) + purchase(1, "10") * 3 + purchase(3, "12") * 3)
    (directory / "stream").write_bytes(b"".join(purchase(2, f"{11 + (n % 7 == 0) * 500}") for n in range(40)))
    values = {"input.batch": str(directory / "batch"), "input.stream": str(directory / "stream"), "D": 2, "T": 20}
    return [Layer(values, dict.fromkeys(values, "test"))]


async def wait_for(client: SweepClient, url: str, *states: str) -> Any:
    """Look until a sweep is in one of these states."""
    while (found := (await client.get(url)).json())["state"] not in states:  # noqa: ASYNC110 (nobody tells)
        await anyio.sleep(0.01)
    return found


async def block(client: SweepClient, monkeypatch: pytest.MonkeyPatch) -> str:
    """Ask for a sweep that never ends by itself, and wait until it runs; returns its path."""

    async def endless(*_: object, **__: object) -> bytes:
        await anyio.sleep_forever()
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr(Workers, "sweep", endless)
        url = (await client.post("/sweep", json={})).headers["location"]
        await wait_for(client, url, "running")
    return str(url)


async def test_a_sweep_finds_what_the_command_finds(client: SweepClient) -> None:
    """Whatever the order of the values; a parameter without values is that of the run."""
    answer = await client.post("/sweep", json={"T": [20, 5, 5], "k": [3, 2.5]})
    assert answer.status_code == 202
    job = answer.json()["job"]
    assert answer.headers["location"] == f"/sweep/{job}"
    assert (answer.json()["state"], answer.json()["results"]) == ("waiting", [])
    found = await wait_for(client, f"/sweep/{job}", "done", "failed")
    expected = await swept(client.layers, SettingGrid([], [5, 20], [2.5, 3.0]))
    assert found["results"] == [
        {"D": cell.D, "T": cell.T, "k": cell.k, "flagged": cell.flagged, "judged": 40} for cell in expected.settings
    ]
    assert (found["progress"], found["reason"]) == (1.0, None)
    assert {cell["D"] for cell in found["results"]} == {2}


async def test_a_sweep_that_is_cancelled_lets_the_next_one_run(
    client: SweepClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it runs or still waits; it is forgotten, as is one that has ended."""
    running = await block(client, monkeypatch)
    waiting, last = [(await client.post("/sweep", json={"T": [5]})).headers["location"] for _ in range(2)]
    assert (await client.get(waiting)).json()["state"] == "waiting"
    for url in (waiting, running):
        assert (await client.delete(url)).json()["state"] == "cancelled"
    found = await wait_for(client, last, "done", "failed")
    assert found["state"] == "done"
    assert (await client.delete(last)).json() == found
    for url in (running, waiting, last):
        assert (await client.get(url)).status_code == 404


async def test_only_so_many_wait_and_only_so_many_are_remembered(
    client: SweepClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more is turned away; the oldest that have ended are forgotten."""
    monkeypatch.setattr(sweeps, "MOST_WAITING", 2)
    running = await block(client, monkeypatch)
    urls = [(await client.post("/sweep", json={})).headers["location"] for _ in range(2)]
    answer = await client.post("/sweep", json={})
    assert answer.status_code == 429
    assert answer.headers["retry-after"]
    await client.delete(running)
    for url in urls:
        await wait_for(client, url, "done")
    for _ in range(KEPT):
        await wait_for(client, (await client.post("/sweep", json={})).headers["location"], "done")
    assert (await client.get(urls[0])).status_code == 404
    assert (await client.delete(urls[0])).status_code == 404


async def test_a_sweep_that_fails_says_why(client: SweepClient) -> None:
    """As the command does."""
    await run_sync(Path(client.layers[0].values["input.stream"]).write_bytes, befriend(1, 2))
    url = (await client.post("/sweep", json={})).headers["location"]
    found = await wait_for(client, url, "done", "failed")
    assert found["state"] == "failed"
    assert found["reason"].endswith("holds no purchase: there is nothing to judge")


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"D": [0]}, "/D/0: expected an integer >= 1"),
        ({"D": [1.5]}, "/D/0: expected an integer, got a number"),
        ({"T": [True]}, "/T/0: expected an integer, got true or false"),
        ({"k": [-1]}, "/k/0: expected a number >= 0.0"),
        ({"D": [*range(1, 11)], "T": [*range(2, 34)]}, "these are 320 combinations; at most 256 are tried at once"),
        ({"q": []}, 'the body: object contains unknown field "q"'),
    ],
)
async def test_each_mistake_is_a_sentence(client: SweepClient, body: Any, detail: str) -> None:
    """With the status 422."""
    answer = await client.post("/sweep", json=body)
    assert (answer.status_code, answer.json()["detail"]) == (422, detail)


async def test_another_detector_has_nothing_to_sweep(client: SweepClient) -> None:
    """The settings that vary are sigma's."""
    client.service.settings = Settings(detector=DetectorSettings(name="mad"))
    answer = await client.post("/sweep", json={"k": [2]})
    assert answer.status_code == 409
    assert answer.json()["detail"] == "a sweep varies sigma's D, T and k, and this run judges by mad"


async def test_a_method_that_a_path_does_not_take_is_answered_with_those_it_takes(client: SweepClient) -> None:
    """All of them, although each is a route of its own."""
    for path, methods in (("/sweep/1", "DELETE, GET"), ("/sweep", "POST"), ("/datasets", "GET")):
        answer = await client.request("PATCH", path)
        assert (answer.status_code, answer.headers["allow"]) == (405, methods)
