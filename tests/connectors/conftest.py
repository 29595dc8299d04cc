"""Real servers, each started once a process by the first test that asks for it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from receiver import Receiver
from servers import Alertmanager, Influx, Kafka, Nats, Postgres, Prometheus, Redis, Victoria, started

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs Kafka is slow: it takes seconds to start, in each process."""
    for item in items:
        if isinstance(item, pytest.Function) and item.path.parent == HERE:
            called = item.callspec.id if hasattr(item, "callspec") else ""
            if {"kafka", "secure"} & {*item.fixturenames} or "kafka" in called:
                item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """PostgreSQL."""
    yield from started(Postgres)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    """Redis."""
    yield from started(Redis)


@pytest.fixture(scope="session")
def nats_server() -> Iterator[Nats]:
    """NATS with JetStream."""
    yield from started(Nats)


@pytest.fixture(scope="session")
def influx() -> Iterator[Influx]:
    """InfluxDB 1.x."""
    yield from started(Influx)


@pytest.fixture(scope="session")
def victoria() -> Iterator[Victoria]:
    """VictoriaMetrics."""
    yield from started(Victoria)


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    """Apache Kafka."""
    yield from started(Kafka)


@pytest.fixture(scope="session")
def receiver_server() -> Iterator[Receiver]:
    """A webhook's receiver that keeps keys."""
    yield from started(Receiver)


@pytest.fixture(scope="session")
def prometheus() -> Iterator[Prometheus]:
    """Prometheus, with the configuration that users start from."""
    yield from started(Prometheus)


@pytest.fixture(scope="session")
def alertmanager() -> Iterator[Alertmanager]:
    """Alertmanager, likewise."""
    yield from started(Alertmanager)
