"""Requests of `POST /detect` a second, beside a bare Starlette route that does the same work: `wrk` in one run.

Run it by itself, `python benchmarks/detect_requests.py`; it needs wrk. Both servers run all the time and are asked in
turn, so that both meet the machine alike. The service's own route is asked with and without what guards it.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import anyio
import msgspec
import numpy as np
from fastapi import FastAPI
from live import cpu_seconds
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from peerwatch.service.app import application
from peerwatch.service.problems import answer_with_problems
from peerwatch.service.routes import detect
from peerwatch.service.server import listen, server_of, url_of
from peerwatch.service.service import Service
from peerwatch.settings.model import ServeSettings, Settings
from peerwatch.studies.table_detection import detection

ROWS: Final = (1, 1000)
WANTED: Final = {1: 0.6, 1000: 0.85}
"""The shares of the bare route's requests a second that are wanted."""
METHOD: Final = "iqr"
CONNECTIONS: Final = 8


async def bare_route(request: Request) -> Response:
    """The same work: decode, detect, encode; a mistake is a sentence."""
    body = msgspec.json.decode(await request.body(), type=detect.DetectBody)
    columns = {name: [row[name] for row in body.data] for name in body.data[0]}
    try:
        found, status = msgspec.json.encode(detection(columns, body.method, body.parameters)), 200
    except ValueError as error:
        found, status = msgspec.json.encode({"detail": str(error)}), 422
    return Response(found, status, media_type="application/json")


def app_of(kind: str) -> ASGIApp:
    """One of the applications that are compared."""
    if kind == "bare":
        return Starlette(routes=[Route("/detect", bare_route, methods=["POST"])])
    if kind == "route":
        app = FastAPI()
        app.include_router(detect.router)
        answer_with_problems(app)
        return app
    settings = Settings(serve=ServeSettings(requests_per_second=0.0))
    service = Service(settings, Path(tempfile.gettempdir()), print)
    return application(service, hosts=None, token="token")  # noqa: S106 (for this benchmark alone)


def serve(kind: str) -> None:
    """Serve one application on a free port, and print its address."""

    async def run() -> None:
        listener = listen("127.0.0.1:0")
        print(url_of(listener), flush=True)
        await server_of(app_of(kind)).serve([listener])

    anyio.run(run, backend_options={"use_uvloop": True})


@contextmanager
def served(kind: str) -> Iterator[tuple[str, int]]:
    """A process that serves an application; its address and its id."""
    with subprocess.Popen([sys.executable, __file__, "--serve", kind], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield (process.stdout.readline() if process.stdout is not None else "").strip(), process.pid
        finally:
            process.terminate()


def script_for(rows: int, directory: Path) -> Path:
    """A script with which wrk posts so many rows."""
    amounts = np.random.default_rng(1).lognormal(3, 1, rows).round(2).tolist()
    body = msgspec.json.encode({"data": [{"amount": amount} for amount in amounts], "method": METHOD}).decode()
    path = directory / f"{rows}.lua"
    path.write_text(
        f"wrk.method = 'POST'\nwrk.body = '{body}'\nwrk.headers['content-type'] = 'application/json'\n"
        "wrk.headers['authorization'] = 'Bearer token'\n"
    )
    return path


class Measured(NamedTuple):
    """Requests a second, as wrk counts them, and the server's processor time for each, in microseconds."""

    rate: float
    cost: float


def measured(url: str, pid: int, script: Path, seconds: int) -> Measured:
    """Ask as fast as the server answers, for some seconds."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(script), f"{url}/detect"]
    before = cpu_seconds(pid)
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    spent = cpu_seconds(pid) - before
    found, count = re.search(r"Requests/sec:\s+([\d.]+)", out), re.search(r"(\d+) requests in", out)
    if found is None or count is None:
        sys.exit(out)
    return Measured(float(found[1]), spent / int(count[1]) * 1e6)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", choices=["bare", "route", "service"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {kind: stack.enter_context(served(kind)) for kind in ("bare", "route", "service")}
        for rows in ROWS:
            script = script_for(rows, directory)
            found: dict[str, list[Measured]] = {kind: [] for kind in servers}
            for _ in range(options.rounds):
                for kind, server in servers.items():
                    found[kind].append(measured(*server, script, options.seconds))
            rates = {kind: statistics.median(each.rate for each in some) for kind, some in found.items()}
            costs = {kind: statistics.median(each.cost for each in some) for kind, some in found.items()}
            print(f"{rows:,} rows; wanted are {WANTED[rows]:.0%} of the bare route's requests a second")
            for kind in servers:
                share = rates[kind] / rates["bare"]
                print(
                    f"  {kind:8} {rates[kind]:7,.0f} requests/s, {share:4.0%}; {costs[kind]:6,.0f} us of processor each"
                )


if __name__ == "__main__":
    main()
