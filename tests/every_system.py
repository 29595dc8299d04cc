"""Every system that records go to or come from, and the fixture that starts its server, None if it has none."""

from typing import Final

from system_influxdb import InfluxSystem
from system_kafka import KafkaSource, KafkaSystem
from system_nats import NatsSource, NatsSystem
from system_postgresql import PostgresSystem
from system_redis import RedisSource, RedisSystem
from system_webhook import BatchedWebhookSystem, WebhookSystem
from systems import SinkSystem, SourceSystem, SqliteSystem

SOURCES: Final[dict[str, tuple[type[SourceSystem], str]]] = {
    "kafka": (KafkaSource, "kafka"),
    "redis": (RedisSource, "redis_server"),
    "nats": (NatsSource, "nats_server"),
}
SINKS: Final[dict[str, tuple[type[SinkSystem], str | None]]] = {
    "sqlite": (SqliteSystem, None),
    "kafka": (KafkaSystem, "kafka"),
    "postgresql": (PostgresSystem, "postgres"),
    "influxdb": (InfluxSystem, "influx"),
    "webhook": (WebhookSystem, "receiver_server"),
    "webhook-batch": (BatchedWebhookSystem, "receiver_server"),
    "redis": (RedisSystem, "redis_server"),
    "nats": (NatsSystem, "nats_server"),
}
