"""Three sensors on each of a few pumps, a row for each pump and quarter of an hour, over ten days.

Normal: the load follows the plant's day and week; temperature, pressure and vibration follow the load, each pump from a
level of its own, and the temperature follows the air outside, too. Pumps are stopped for maintenance now and then
(cold, without pressure, still), and single rows of vibration are several times too high when something is dropped
nearby.

- `overheating`: the temperature climbs by 6 to 36 degrees over some hours, ever faster, until the pump fails.
- `pressure leak`: the pressure falls by 8 to 48 %, evenly. Half of what a stop does: a detector must see that
  temperature and vibration go on.
- `bearing wear`: the vibration grows to 1.6 to 5.6 times, ever faster, and a little heat comes with it.
- `stuck sensor`: the temperature stays what it was, to the tenth of a degree, while load and air change. No value is
  out of range: a threshold finds nothing, a detector that looks at changes does.

A failure is labelled from its onset. Its first rows look like normal ones, so no detector finds all of them.
"""

from typing import Final

import numpy as np

from peerwatch.studies.datasets.table import Column, DatasetOrder, Table, grid, rhythm, wander

COLUMNS: Final = (
    Column("id", "", "the pump"),
    Column("temperature", "degrees Celsius", "of the housing", 1),
    Column("pressure", "bar", "behind the pump", 2),
    Column("vibration", "mm/s", "root mean square of the velocity", 2),
)
KINDS: Final = ("overheating", "pressure leak", "bearing wear", "stuck sensor")
OVERHEATING, LEAK, WEAR, STUCK = range(4)
STEP: Final = 900
"""Seconds between two rows of a pump."""


def make(order: DatasetOrder) -> Table:
    """Make ten days of readings, with a pump for every 1,000 rows."""
    rng = np.random.default_rng(order.seed)
    pumps = max(3, order.rows // 1000)
    odd = grid(rng, order.rows, pumps, [*zip(order.counts(KINDS), (24, 24, 32, 24), strict=True)])
    stop = grid(rng, order.rows, pumps, [(order.rows // 100, 8)])
    steps = len(odd.kind)
    seconds = odd.seconds(STEP)

    busy = rhythm(seconds)
    load = np.clip(0.4 + 0.25 * busy + 0.08 * wander(rng, steps, pumps, 0.8), 0.1, 1)
    load[stop.kind == 0] = 0.02
    air = 16 + 4 * busy + 2 * wander(rng, steps, 1, 0.99)
    temperature = air + rng.uniform(28, 42, pumps) * load + 0.7 * rng.standard_normal(load.shape)
    pressure = rng.uniform(5, 7, pumps) * np.minimum(1, 0.8 + 0.25 * load) + 0.05 * rng.standard_normal(load.shape)
    pressure *= np.where(stop.kind == 0, 0.15, 1)
    vibration = rng.uniform(1, 3, pumps) * (0.3 + load) * rng.lognormal(0, 0.12, load.shape)
    vibration *= np.where(rng.random(load.shape) < 0.005, rng.uniform(2, 6, load.shape), 1)

    curve = odd.progress * odd.progress
    temperature += np.where(odd.kind == OVERHEATING, (6 + 30 * odd.severity) * curve, 0)
    temperature += np.where(odd.kind == WEAR, (2 + 4 * odd.severity) * curve, 0)
    pressure *= np.where(odd.kind == LEAK, 1 - (0.08 + 0.4 * odd.severity) * odd.progress, 1)
    vibration *= np.where(odd.kind == WEAR, 1 + (0.6 + 4 * odd.severity) * curve, 1)
    step, pump = np.nonzero(odd.kind == STUCK)
    temperature[step, pump] = temperature[odd.begin[step, pump], pump]

    values = {"temperature": temperature, "pressure": pressure, "vibration": vibration}
    return odd.table(order.rows, seconds, values)
