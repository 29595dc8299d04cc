"""What the users of an application do over four weeks, a row for each session.

Normal: each user has hours and a pace of their own; requests have a heavy tail, and one session in ten is but a glance.
One session in thirty begins with a forgotten password (up to six failed logins), one in fifty opens a new project with
many resources never used before, and two users in a hundred are scheduled jobs, with pauses as even as a machine's. So
no single column reveals all anomalies.

- `bot`: a stranger's script uses an account for some sessions in a row: 2 to 20 times the requests, short and even
  pauses. The clumsy ones are plain; the careful ones (requests and pauses half and twice a person's) differ only for
  their user.
- `brute force`: a burst of sessions, minutes apart, of 3 to 40 failed logins each and next to no requests. The
  slow ones stay below what forgetful users need; they come one after the other.
- `unusual access`: one session at an hour at which this user sleeps, of the usual length and pace, in which 30 to 90 %
  of the resources were never used before. Night owls and new projects are normal: it takes both together.
"""

from typing import Final

import numpy as np

from peerwatch.studies.datasets.table import DAY, NORMAL, Column, DatasetOrder, Table, graded, moments, stretches

COLUMNS: Final = (
    Column("id", "", "the user"),
    Column("hour", "hours", "since midnight UTC, at the session's beginning", 2),
    Column("duration", "seconds", "of the session", 1),
    Column("requests", "a session", "requests made"),
    Column("pause", "seconds", "between two requests, on average", 2),
    Column("pause_spread", "ratio", "standard deviation of the pauses to their mean: 0 is a clock", 3),
    Column("failed_logins", "a session", "before it began, or in it"),
    Column("resources", "a session", "distinct ones used"),
    Column("new_resources", "a session", "those that this user never used before"),
)
KINDS: Final = ("bot", "brute force", "unusual access")
BOT, BRUTE, ACCESS = range(3)
ROWS_PER_USER: Final = 50
DAYS: Final = 28
DEEP_NIGHT: Final = 2 * 3600
"""The second of the day at which most people sleep."""


def make(order: DatasetOrder) -> Table:
    """Make four weeks of sessions, with a user for every 50 rows or so."""
    rng = np.random.default_rng(order.seed)
    counts = order.counts(KINDS)
    users = max(2, order.rows // ROWS_PER_USER)
    normal = order.rows - sum(counts)
    shift = np.where(rng.random(users) < 0.1, 10 * 3600, 3600 * rng.standard_normal(users)).astype(np.int64)
    pace, habit = rng.lognormal(2.2, 0.4, users), rng.lognormal(3.2, 0.5, users)
    scheduled = rng.random(users) < 0.02

    stolen = [stretches(rng, count, typical) for count, typical in zip(counts, (8, 8, 1), strict=True)]
    kind = np.repeat([NORMAL, *range(len(KINDS))], [normal, *counts])
    severity = np.concatenate((np.zeros(normal), *(part.severity for part in stolen)))
    user = np.concatenate(
        (rng.integers(0, users, normal), *(rng.integers(0, users, len(part))[part.episode] for part in stolen))
    )
    bot, brute, access = (kind == place for place in range(len(KINDS)))
    seconds = (moments(rng, order.rows, DAYS) + shift[user]) % (DAYS * DAY)
    for part, rows, gap in ((stolen[BOT], bot, 1800), (stolen[BRUTE], brute, 300)):
        begun = rng.integers(0, (DAYS - 1) * DAY, len(part))[part.episode]
        seconds[rows] = begun + part.elapsed(rng.integers(gap // 3, gap, len(part)))
    seconds[access] = (
        DEEP_NIGHT + shift[user[access]] + DAY * rng.integers(1, DAYS - 1, counts[ACCESS])
    ) + rng.integers(0, 3 * 3600, counts[ACCESS])

    requests = 1 + np.floor(habit[user] * rng.lognormal(0, 0.7, order.rows))
    glance = rng.random(order.rows) < 0.1
    requests[glance] = rng.integers(1, 4, np.count_nonzero(glance))
    requests[bot] = np.floor(requests[bot] * graded(2, 20, severity[bot]))
    requests[brute] = rng.integers(1, 4, counts[BRUTE])
    pause = pace[user] * rng.lognormal(0, 0.3, order.rows)
    pause[bot] /= graded(2, 30, severity[bot])
    spread = np.where(scheduled[user], 0.1, 1.2) * rng.lognormal(0, 0.25, order.rows)
    spread[bot] *= graded(0.5, 0.04, severity[bot])
    forgot = rng.random(order.rows) < 0.03
    failed = rng.poisson(0.08, order.rows) + np.where(forgot, rng.integers(1, 7, order.rows), 0)
    failed[brute] = np.rint(graded(3, 40, severity[brute]) * rng.uniform(0.8, 1.2, counts[BRUTE]))

    resources = 1 + rng.binomial(requests.astype(np.int64), 0.4)
    resources[brute] = rng.integers(0, 2, counts[BRUTE])
    unknown = np.where(rng.random(order.rows) < 0.02, rng.uniform(0.2, 0.9, order.rows), 0.02)
    unknown[access] = graded(0.3, 0.9, severity[access])
    values = {
        "id": user + 1, "hour": seconds % DAY // 36 / 100,
        "duration": requests * pause + rng.exponential(20, order.rows), "requests": requests, "pause": pause,
        "pause_spread": spread, "failed_logins": failed, "resources": resources,
        "new_resources": rng.binomial(resources, unknown),
    }  # fmt: skip
    return Table(seconds, kind, values)
