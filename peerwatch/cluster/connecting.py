"""From settings to a cluster that a run can use."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from anyio.to_thread import run_sync

from peerwatch.actors.coordinator import Judges
from peerwatch.cluster.actor import ReplicaActor
from peerwatch.cluster.engine import ClusterEngine
from peerwatch.cluster.transport import Patience, StartingState
from peerwatch.cluster.wire import Begin, hello, pack_arrays
from peerwatch.errors import RunError, UsageError
from peerwatch.judging.engine import windows_at_once
from peerwatch.judging.quarantine import Quarantine
from peerwatch.judging.state import Arrays, arrays_of, dealt
from peerwatch.runtime.cluster import ReplicaWiring
from peerwatch.settings.model import Settings
from peerwatch.storage.checkpoints import DAMAGE, Checkpoint, files_in, read_checkpoint

NETWORKS_AT_ONCE: Final = 512
"""The most events in a batch whose networks are sent: each purchase takes four bytes a member, or a bit a user."""


class ReplicaCluster:
    """Replicas on the workers that an engine starts, for one pipeline after the other."""

    def __init__(self, engine: ClusterEngine, settings: Settings, directory: Path, patience: Patience) -> None:
        """New workers begin with the newest checkpoint in the state `directory`."""
        self._engine = engine
        self._settings = settings
        self._directory = directory
        self._patience = patience
        hello()  # reads files, which is not for the event loop

    def batch_cap(self, judges: Judges, T: int) -> int:
        """The most events in a batch; fewer where all windows or networks are sent, so that an answer is bounded."""
        most = self._settings.cluster.batch
        if self._settings.detector.quarantine:
            return min(most, NETWORKS_AT_ONCE)
        return most if judges_on_workers(self._settings, judges) else min(most, windows_at_once(T))

    def replicas(self, wiring: ReplicaWiring) -> ReplicaActor:
        """Make the actor of a pipeline."""
        state, judges = wiring.state, wiring.judges
        detector = self._settings.detector if judges_on_workers(self._settings, judges) else None
        networks = windows_at_once(state.T, len(state.histories)) if state.quarantine is not None else None
        context = any(live.wants_context for _, live in judges.live_judges())

        async def lost(number: int, why: str) -> None:
            await run_sync(wiring.warn, f"worker {number} was lost: {why}; another takes its place")

        return ReplicaActor(
            self._engine,
            Begin(state.D, state.T, detector, wiring.sizes, context, state.graph.directed, networks),
            workers=self._settings.cluster.workers,
            patience=self._patience,
            starting_state=partial(run_sync, self._starting_state),
            lost=lost,
            through=state.progress.events,
            inbox=wiring.inbox,
            coordinator=wiring.coordinator,
            parts=wiring.parts,
            wanted=wiring.wanted,
        )

    def _starting_state(self) -> StartingState:
        return starting_state(_newest(self._directory, self._settings))


def judges_on_workers(settings: Settings, judges: Judges) -> bool:
    """Whether each purchase is judged on its own: by one judge that remembers nothing, and without quarantine."""
    champion = judges.champion.judge
    remembers = champion.learner is not None or champion.adaptation is not None or settings.detector.quarantine
    return judges.challenger is None and not remembers


def starting_state(checkpoint: Checkpoint) -> StartingState:
    """What a worker begins with that goes on from a checkpoint, whatever its number of shards."""
    arrays, facts = checkpoint.arrays, checkpoint.envelope.facts
    columns: Arrays = {"degree": arrays["degree"], "friends": arrays["friends"]}
    if Quarantine.restored(arrays) is None:
        (purchases,) = dealt(arrays, facts.shards, 1)
        columns = {**columns, **arrays_of(purchases, 0)}
    return StartingState(pack_arrays(columns), facts.progress.events)


def _newest(directory: Path, settings: Settings) -> Checkpoint:
    """The newest checkpoint that is not damaged. The run that writes them may remove old ones meanwhile.

    Raises:
        RunError: none can be read.
    """
    while files := files_in(directory):
        for path in reversed(files):
            try:
                return read_checkpoint(path, settings.input)
            except FileNotFoundError:
                break  # there is a newer one
            except DAMAGE:
                continue
        else:
            break
    raise RunError(f"no checkpoint in {directory} can be read, from which a new worker could begin")


@contextmanager
def connected(settings: Settings) -> Iterator[ReplicaCluster]:
    """Connect to the cluster that the settings name, and have every node ready.

    Raises:
        UsageError: it cannot be used, or a node runs another version.
    """
    cluster, state = settings.cluster, settings.state.directory
    if cluster.address is None:
        raise UsageError('"cluster.address" is not set: name the cluster as --cluster ray:HOST:PORT, or set it')
    if state is None:
        raise UsageError("a run on a cluster needs a state directory, from which lost workers begin; name one: --state")
    try:
        from peerwatch.cluster.ray import connected_to  # noqa: PLC0415 (Ray takes a second to import)
    except ImportError as error:
        raise UsageError(f"a cluster needs {error.name}; install it: pip install 'peerwatch[ray]'") from None
    with connected_to(cluster.address, cluster.workers) as engine:
        yield ReplicaCluster(engine, settings, Path(state), Patience(cluster.deadline))
