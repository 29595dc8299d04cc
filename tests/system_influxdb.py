"""InfluxDB, as the tests of sinks see it."""

import json
from contextlib import closing
from http.client import HTTPConnection
from typing import Any, ClassVar
from urllib.parse import urlencode

from servers import DATABASE, LOOPBACK
from systems import SinkSystem

from peerwatch.connectors.records import FLAGGED
from peerwatch.connectors.tables import TABLES


def ask(port: int, method: str, path: str, content: str = "", **parameters: str) -> bytes:
    """What a server answers."""
    with closing(HTTPConnection(LOOPBACK, port, timeout=60)) as connection:
        connection.request(method, f"{path}?{urlencode(parameters)}", content)
        answer = connection.getresponse()
        received = answer.read()
        assert answer.status in {200, 204}, received
        return received


def query(port: int, database: str, statement: str) -> list[dict[str, Any]]:
    """The rows that InfluxDB answers with."""
    answer = json.loads(ask(port, "POST", "/query", db=database, q=statement, epoch="ns"))
    rows = []
    for result in answer["results"]:
        assert "error" not in result, result
        for series in result.get("series", ()):
            rows += [dict(zip(series["columns"], values, strict=True)) for values in series["values"]]
    return rows


class InfluxSystem(SinkSystem):
    """A database of InfluxDB 1."""

    has_marks: ClassVar[bool] = False
    database = DATABASE

    @property
    def port(self) -> int:
        """The server's."""
        assert self.server is not None
        return self.server.port

    @property
    def url(self) -> str:
        """The database; runs have tags of their own."""
        return f"influx+http://{LOOPBACK}:{self.port}/{self.database}"

    def flagged(self) -> bytes:
        """The lines of the run's points, in the order of their numbers."""
        statement = f"SELECT seq, line FROM {TABLES[FLAGGED].name} WHERE run = '{self.run}'"  # noqa: S608
        rows = query(self.port, self.database, statement)
        return "".join(f"{row['line']}\n" for row in sorted(rows, key=lambda row: row["seq"])).encode()

    def wipe(self) -> None:
        """Delete all points."""
        query(self.port, self.database, f"DROP MEASUREMENT {TABLES[FLAGGED].name}")
