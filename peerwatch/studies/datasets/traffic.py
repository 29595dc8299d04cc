"""Network traffic of a few servers, a row for each server and five minutes, over a week.

Normal: each server has its own load, which follows the day and the week and wanders; packets go with flows, bytes with
packets. Now and then many people come at once (a flash crowd: two to six times the flows, as many of them answered as
ever) or a service is down for a while (4 to 60 % of the flows unanswered, but no more of them), and every night each
server sends its backup (twenty times the bytes out). So neither many packets nor many bytes nor unanswered flows are an
anomaly by themselves.

- `ddos`: 2.5 to 30 times the flows and packets in, small ones from many peers, mostly never answered; half an hour or
  so. A detector finds the strong ones in any of these columns; the weak ones look like a flash crowd in which
  something is down.
- `port scan`: one peer tries 15 to 600 ports, for a quarter of an hour. Bytes hardly change, `ports` does; the slow
  scans try no more than busy servers show now and then, but a tenth of their flows is unanswered, too.
- `exfiltration`: 2 to 12 times the bytes out for an hour, while requests are as ever. It is smaller than a backup: a
  detector must know at which hour the backup runs, or relate bytes out to flows.
"""

from typing import Final

import numpy as np

from peerwatch.studies.datasets.table import DAY, Column, DatasetOrder, Table, graded, grid, rhythm, wander

COLUMNS: Final = (
    Column("id", "", "the server"),
    Column("flows", "a row", "connections, answered or not"),
    Column("peers", "a row", "distinct addresses on the other side"),
    Column("ports", "a row", "distinct ports of the server that were tried"),
    Column("packets_in", "a row", "packets received"),
    Column("packets_out", "a row", "packets sent"),
    Column("bytes_in", "bytes", "received"),
    Column("bytes_out", "bytes", "sent"),
    Column("unanswered", "share", "of the flows, those that were never completed", 3),
)
KINDS: Final = ("ddos", "port scan", "exfiltration")
DDOS, SCAN, EXFILTRATION = range(3)
STEP: Final = 300
"""Seconds in a row."""
BACKUP: Final = 1800
"""Seconds that a backup takes."""


def make(order: DatasetOrder) -> Table:
    """Make a week of traffic, with a server for every 2,000 rows."""
    rng = np.random.default_rng(order.seed)
    servers = max(3, order.rows // 2000)
    odd = grid(rng, order.rows, servers, [*zip(order.counts(KINDS), (6, 3, 12), strict=True)])
    crowd = grid(rng, order.rows, servers, [(order.rows // 250, 4)])
    outage = grid(rng, order.rows, servers, [(order.rows // 100, 5)])
    steps = len(odd.kind)
    seconds = odd.seconds(STEP)

    level = rhythm(seconds) * np.exp(0.25 * wander(rng, steps, servers, 0.9))
    level *= np.where(crowd.kind == 0, graded(2, 6, crowd.severity), 1)
    flows = 5 + rng.poisson(rng.lognormal(5.5, 0.6, servers) * level).astype(np.float64)
    packets_in = flows * rng.lognormal(3.0, 0.25, odd.kind.shape)
    packets_out = packets_in * rng.lognormal(0.1, 0.15, odd.kind.shape)
    bytes_in = packets_in * rng.lognormal(5.7, 0.2, odd.kind.shape)
    bytes_out = packets_out * rng.lognormal(6.6, 0.2, odd.kind.shape)
    peers = 1 + rng.binomial(flows.astype(np.int64), 0.35).astype(np.float64)
    ports = 2 + rng.poisson(2, odd.kind.shape) + np.minimum(60, rng.pareto(1.5, odd.kind.shape))
    unanswered = rng.beta(2, 80, odd.kind.shape) + np.where(outage.kind == 0, graded(0.04, 0.6, outage.severity), 0)

    backup = (seconds - rng.integers(0, 4 * 3600, servers)) % DAY < BACKUP
    bytes_out *= np.where(backup, rng.lognormal(3.0, 0.2, odd.kind.shape), 1)
    packets_out *= np.where(backup, 8, 1)

    flood = np.where(odd.kind == DDOS, graded(2.5, 30, odd.severity) * np.minimum(1, 0.5 + odd.progress), 1)
    bytes_in += (flood - 1) * packets_in * 60
    packets_in, flows, peers = packets_in * flood, flows * flood, peers * flood
    answered = np.where(odd.kind == DDOS, (1 - unanswered) / graded(1.1, 15, odd.severity), 1 - unanswered)

    tried = np.where(odd.kind == SCAN, graded(15, 600, odd.severity) * rng.uniform(0.7, 1.3, odd.kind.shape), 0)
    answered = answered * flows / (flows + tried)
    flows, ports, packets_in, bytes_in = flows + tried, ports + tried, packets_in + 2 * tried, bytes_in + 100 * tried

    leak = np.where(odd.kind == EXFILTRATION, graded(2, 12, odd.severity) * rng.uniform(0.8, 1.2, odd.kind.shape), 1)
    bytes_out, packets_out = bytes_out * leak, packets_out * (1 + 0.7 * (leak - 1))

    values = {
        "flows": flows, "peers": peers, "ports": ports, "packets_in": packets_in, "packets_out": packets_out,
        "bytes_in": bytes_in, "bytes_out": bytes_out, "unanswered": 1 - answered,
    }  # fmt: skip
    return odd.table(order.rows, seconds, values)
