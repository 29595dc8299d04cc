"""The service's API as the page sees it, driven by a test: what is flagged when, what a status says, what is refused.

What the page shows of decisions is real: the logs are judged, explained and shown by peerwatch itself. It is a process
of its own, so that it can be killed: `python tests/page_stand_in.py PORT DIRECTORY`, with the logs in the directory.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.staticfiles import StaticFiles

import peerwatch
from peerwatch.errors import PeerwatchError
from peerwatch.replay.user_timeline import state_of
from peerwatch.service.app import PAGE
from peerwatch.service.security import HEADERS
from peerwatch.settings.model import Layer
from peerwatch.studies.radius import bridges_of, radius_of

OPEN = ("/static/", "/control/")
STATUS: dict[str, Any] = {
    "run": "a-run", "state": "running", "stream": "stream_log.json", "D": 2, "T": 50, "detector": "k=3",
    "friendships": "mutual", "judge_batch": False, "quarantine": False,
    "challenger": None, "labels": True, "through": 0, "events_per_second": 940.0, "lag_bytes": 0, "lag_seconds": 0.0,
    "checkpoint_age_seconds": 2.5, "restarts": 0,
    "mailboxes": [
        {"name": name, "depth": 0, "highest": highest, "capacity": 4}
        for name, highest in (
            ("graph 0", 2), ("graph 1", 2), ("coordinator 0", 3), ("coordinator 1", 3), ("output", 1), ("shard 0", 4),
            ("replies", 1), ("checkpointer", 1),
        )
    ],
    "actors": [
        {"name": name, "busy_ratio": ratio}
        for name, ratio in (
            ("dispatcher", 0.11), ("graph 0", 0.31), ("graph 1", 0.3), ("shard 0", 0.22), ("coordinator", 0.18),
            ("output", 0.06),
        )
    ],
    "servers": [],
}  # fmt: skip


class StandIn:
    """What the service would know."""

    def __init__(self, directory: Path) -> None:
        self.logs = str(directory / "batch_log.json"), str(directory / "stream_log.json")
        self.judged = [*peerwatch.judge(*self.logs)]
        self.explanations: dict[int, bytes] = {}
        self.clients: set[asyncio.Queue[bytes]] = set()
        self.reset()

    def reset(self) -> None:
        """Forget what a test has done."""
        decided = self.judged
        self.decisions = [
            {
                "seq": one.seq, "time": one.timestamp.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), "user": one.user,
                "amount": f"{one.amount}", "flagged": one.flagged, "window_size": one.window_size,
                "mean": None if one.mean is None else f"{one.mean}", "sd": None if one.sd is None else f"{one.sd}",
                "network_size": one.network_size, "severity": severity(one), "score": None, "threshold": None,
                "model": None, "file": "stream_log.json", "line": one.line, "label": None,
            }
            for one in decided
        ]  # fmt: skip
        self.notices: list[dict[str, Any]] = []
        self.disagreements: list[dict[str, Any]] = []
        self.status = STATUS | {
            "totals": {
                "events": self.decisions[-1]["seq"], "purchases": len(decided), "judged": len(decided),
                "flagged": sum(one.flagged for one in decided), "friendships": 9919, "rejected": 0,
                "decisions": len(decided), "differences": 0, "recomputed": 45, "champion_alone": 0,
                "challenger_alone": 0,
            },
        }  # fmt: skip
        self.token: str | None = None
        self.steps = [0.25, 0.5, 1.0]
        self.jobs: dict[str, dict[str, Any]] = {}
        self.made_up: dict[str, Any] = {}
        self.refused: dict[str, str] = {}
        self.seen: dict[str, list[Any]] = {"feedback": [], "resumed": [], "cancelled": []}

    def send(self, event: str, data: Any, number: int | None = None) -> None:
        """Send an event to every client."""
        item = encoded(event, data, number)
        for client in self.clients:
            client.put_nowait(item)


def severity(one: peerwatch.Decision) -> str | None:
    """The level of a decision: critical above 6 standard deviations, emergency above 12."""
    if not one.flagged or one.mean is None or not one.sd:
        return None
    above = (one.amount - one.mean) / one.sd
    return "emergency" if above > 12 else "critical" if above > 6 else "warning"


def encoded(event: str, data: Any, number: int | None) -> bytes:
    """A server-sent event."""
    return (f"id: {number}\n" if number else "").encode() + f"event: {event}\ndata: {json.dumps(data)}\n\n".encode()


def problem(status: int, detail: str) -> Response:
    """What is answered instead."""
    body = {"type": "about:blank", "title": "Refused", "status": status, "detail": detail}
    return Response(json.dumps(body), status, media_type="application/problem+json")


def application(known: StandIn) -> FastAPI:
    """The routes."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async def tell() -> None:
            while True:
                known.send("status", known.status)
                await asyncio.sleep(0.5)

        task = asyncio.create_task(tell())
        yield
        task.cancel()

    app = FastAPI(docs_url=None, redoc_url=None, lifespan=lifespan)
    app.mount("/static", StaticFiles(directory=PAGE))

    @app.middleware("http")
    async def guard(request: Request, call: Any) -> Response:
        path = request.url.path
        given = request.headers.get("authorization")
        if known.token and path != "/" and not path.startswith(OPEN) and given != f"Bearer {known.token}":
            response: Response = problem(401, "a bearer token is needed")
        elif path.lstrip("/") in known.refused:
            response = problem(409, known.refused[path.lstrip("/")])
        else:
            response = await call(request)
        for name, value in HEADERS.items():
            response.headers[name.decode()] = value.decode()
        return response

    @app.get("/")
    async def page() -> Response:
        return Response((PAGE / "index.html").read_bytes(), media_type="text/html")

    @app.get("/status")
    async def status() -> Any:
        return known.status

    @app.get("/decisions")
    async def decisions(
        flagged: bool | None = None, limit: int = 100, after: int = 0, before: int = 2**62, user: str | None = None,
        severity: str | None = None, min_amount: float = 0, order: str = "asc",
    ) -> Any:  # fmt: skip
        found = [
            one for one in known.decisions
            if (flagged is None or one["flagged"] == flagged) and after < one["seq"] < before
            and user in {None, one["user"]} and severity in {None, one["severity"]}
            and float(one["amount"]) >= min_amount
        ]  # fmt: skip
        found.sort(key=lambda one: one["seq"], reverse=order == "desc")
        return {"decisions": found[:limit], "next": found[limit - 1]["seq"] if len(found) >= limit else None}

    @app.get("/decisions/{seq}")
    async def decision(seq: int) -> Any:
        found = [one for one in known.decisions if one["seq"] == seq]
        return found[0] if found else problem(404, f"there is no decision on event {seq}")

    @app.get("/explain/{seq}")
    async def explain(seq: int) -> Response:
        if str(seq) in known.made_up:
            return Response(json.dumps(known.made_up[str(seq)]), media_type="application/json")
        if seq not in known.explanations:
            try:
                record = await asyncio.to_thread(peerwatch.explain, *known.logs, seq=seq)
            except PeerwatchError as error:
                return problem(404, str(error))
            known.explanations[seq] = msgspec.json.encode(record)
        return Response(known.explanations[seq], media_type="application/json")

    @app.get("/users/{user:path}")
    async def user(user: str, at: str | None = None) -> Response:
        layer = Layer({"input.batch": known.logs[0], "input.stream": known.logs[1]}, {})
        try:
            state = await state_of([layer], user, at or str(known.status["totals"]["events"]))
        except PeerwatchError as error:
            return problem(404, str(error))
        return Response(msgspec.json.encode(state), media_type="application/json")

    @app.get("/radius")
    async def radius(user: str, friend: str | None = None, at: str | None = None) -> Response:
        layer = Layer({"input.batch": known.logs[0], "input.stream": known.logs[1]}, {})
        edge = (user, friend) if friend is not None else None
        try:
            found = await radius_of([layer], friendship=edge, user=None if edge else user, at=at)
        except PeerwatchError as error:
            return problem(404, str(error))
        return Response(msgspec.json.encode(found), media_type="application/json")

    @app.get("/bridges")
    async def bridges(most: int) -> Response:
        layer = Layer({"input.batch": known.logs[0], "input.stream": known.logs[1]}, {})
        return Response(msgspec.json.encode(await bridges_of([layer], most=most)), media_type="application/json")

    @app.post("/feedback", status_code=202)
    async def feedback(body: dict[str, Any]) -> Any:
        if body["seq"] not in {one["seq"] for one in known.decisions}:
            return problem(409, f"event {body['seq']} has not been judged")
        known.seen["feedback"].append(body)
        return body

    @app.post("/sweep", status_code=202)
    async def sweep(body: dict[str, list[float]]) -> Any:
        job = str(len(known.jobs) + 1)
        D, T = ([int(value) for value in body[name]] for name in ("D", "T"))
        found = await asyncio.to_thread(peerwatch.sweep, *known.logs, D=D, T=T, k=body["k"])
        results = [
            {"D": one.D, "T": one.T, "k": one.k, "judged": found.judged, "flagged": one.flagged}
            for one in found.settings
        ]
        known.jobs[job] = {"steps": [*known.steps], "results": results, "state": "running", "progress": 0.0}
        return {"job": job, "state": "waiting", "progress": 0.0, "results": []}

    @app.get("/sweep/{job}")
    async def sweeping(job: str) -> Any:
        found = known.jobs.get(job)
        if found is None:
            return problem(404, "there is no such sweep, or it is no longer remembered")
        if found["state"] == "running" and found["steps"]:
            found["progress"] = found["steps"].pop(0)
            if found["progress"] >= 1:
                found["state"] = "done"
        done = found["state"] == "done"
        return {"job": job, "state": found["state"], "progress": found["progress"],
                "results": found["results"] if done else []}  # fmt: skip

    @app.delete("/sweep/{job}")
    async def cancel(job: str) -> Any:
        known.seen["cancelled"].append(job)
        del known.jobs[job]
        return {"job": job, "state": "cancelled"}

    @app.get("/challenger")
    async def challenger() -> Any:
        return {"notices": known.disagreements}

    @app.get("/notices")
    async def notices() -> Any:
        return {"notices": known.notices}

    @app.get("/events")
    async def events(request: Request) -> Response:
        known.seen["resumed"].append(request.headers.get("last-event-id"))
        after = int(request.headers.get("last-event-id", "0"))

        async def stream() -> AsyncIterator[bytes]:
            queue: asyncio.Queue[bytes] = asyncio.Queue()
            known.clients.add(queue)
            try:
                yield encoded("status", known.status, None)
                for one in known.decisions:
                    if one["flagged"] and one["seq"] > after:
                        yield encoded("flagged", one, one["seq"])
                while True:
                    yield await queue.get()
            finally:
                known.clients.discard(queue)

        return StreamingResponse(stream(), media_type="text/event-stream")

    @app.post("/control/{what}")
    async def control(what: str, request: Request) -> Any:
        body = await request.json()
        if what == "flag":
            for one in body:
                known.decisions.append(one)
                if not request.query_params.get("lost"):
                    known.send("flagged", one, one["seq"])
        elif what == "status":
            known.status |= body
            known.send("status", known.status)
        elif what == "notice":
            known.notices.append(body)
            known.send("notice", body)
        elif what == "send":
            known.send(body["event"], body["data"])
        elif what == "reset":
            known.reset()
        else:
            setattr(known, what, body)
        return {}

    @app.get("/control/seen")
    async def seen() -> Any:
        return known.seen | {"clients": len(known.clients)}

    return app


if __name__ == "__main__":
    port, logs = int(sys.argv[1]), Path(sys.argv[2])
    uvicorn.run(application(StandIn(logs)), host="127.0.0.1", port=port, log_level="warning")
