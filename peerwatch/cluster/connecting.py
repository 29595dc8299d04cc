"""From settings to a cluster that a run can use."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import anyio
from anyio.to_thread import run_sync

from peerwatch.actors.coordinator import Judges
from peerwatch.cluster.actor import ReplicaActor
from peerwatch.cluster.engine import ClusterEngine
from peerwatch.cluster.pace import Pace
from peerwatch.cluster.replica import columns_of
from peerwatch.cluster.transport import Patience, StartingFile, StartingState
from peerwatch.cluster.wire import STORAGE, Begin, UseStorage, hello
from peerwatch.durable import DurableFile, replace_file
from peerwatch.errors import RunError, UsageError
from peerwatch.judging.engine import windows_at_once
from peerwatch.runtime.cluster import ReplicaWiring
from peerwatch.settings.model import InputSettings, Settings
from peerwatch.storage.checkpoints import DAMAGE, Checkpoint, envelopes, files_in, read_checkpoint, remove_unfinished

NETWORKS_AT_ONCE: Final = 512
"""The most events in a batch whose networks are sent: each purchase takes four bytes a member, or a bit a user."""
STORED_BYTES: Final = 1 << 30
"""From how many bytes on a worker writes its part of a checkpoint, and reads one, where it reaches the state directory.

Less is sent, so that a checkpoint is one file as a rule.
"""
SLOW_AT_ONCE: Final = 1024
"""The most events in a batch for a detector that may take any time for a purchase, whatever the ones before took."""


class CheckpointStates:
    """What new workers begin with: the newest checkpoint in a state directory."""

    def __init__(self, directory: Path, inputs: InputSettings, least: int) -> None:
        """Workers that reach the `directory` use it for columns of `least` bytes or more."""
        self._directory = directory.absolute()
        self._inputs = inputs
        self._token = secrets.token_bytes(16)
        self._least = least
        self._marking = anyio.Lock()

    async def storage(self) -> UseStorage:
        """Where one worker may write: the state directory, which has the token now, unless its disk is full."""
        async with self._marking:
            return await run_sync(self._marked)

    def _marked(self) -> UseStorage:
        mark = self._directory / STORAGE
        with suppress(OSError):
            if not mark.exists() or mark.read_bytes() != self._token:
                replace_file(mark, self._write_token)
        return UseStorage(os.fsencode(self._directory), self._token, secrets.token_hex(8), self._least)

    def _write_token(self, file: DurableFile) -> None:
        file.write(self._token)

    async def abandon(self, writer: str) -> None:
        """Remove what a worker that is lost has not written to its end."""
        await run_sync(remove_unfinished, self._directory, writer)

    async def newest(self) -> StartingFile | None:
        """The newest checkpoint, if a worker that reaches it should read it itself."""
        return await run_sync(self._newest_file)

    def _newest_file(self) -> StartingFile | None:
        for path, envelope in envelopes(self._directory, self._inputs):
            with suppress(FileNotFoundError):  # there is a newer one
                size = path.stat().st_size + sum(part.size for part in envelope.parts)
                return StartingFile(path.name, envelope.facts.progress.events, size) if size >= self._least else None
        return None

    async def columns(self) -> StartingState:
        """The columns of the newest checkpoint that is not damaged.

        Raises:
            RunError: none can be read.
        """
        return await run_sync(self._read)

    def _read(self) -> StartingState:
        checkpoint = _newest(self._directory, self._inputs)
        facts = checkpoint.envelope.facts
        return StartingState(columns_of(checkpoint.arrays, facts.shards), facts.progress.events)


class ReplicaCluster:
    """Replicas on the workers that an engine starts, for one pipeline after the other."""

    def __init__(
        self,
        engine: ClusterEngine,
        settings: Settings,
        directory: Path,
        patience: Patience,
        stored_bytes: int = STORED_BYTES,
    ) -> None:
        """New workers begin with the newest checkpoint in the state `directory`."""
        self._engine = engine
        self._settings = settings
        self._starting_states = CheckpointStates(directory, settings.input, stored_bytes)
        self._patience = patience
        hello()  # reads files, which is not for the event loop

    def _batch_cap(self, judges: Judges, T: int) -> int:
        """The most events in a batch; fewer where all windows or networks are sent, so that an answer is bounded."""
        most = self._settings.cluster.batch
        if self._settings.detector.quarantine:
            return min(most, NETWORKS_AT_ONCE)
        if not judges_on_workers(self._settings, judges):
            return min(most, windows_at_once(T))
        return most if judges.champion.judge.is_quick else min(most, SLOW_AT_ONCE)

    def replicas(self, wiring: ReplicaWiring) -> ReplicaActor:
        """Make the actor of a pipeline."""
        state, judges = wiring.state, wiring.judges
        detector = self._settings.detector if judges_on_workers(self._settings, judges) else None
        networks = windows_at_once(state.T, len(state.histories)) if state.quarantine is not None else None
        context = any(live.wants_context for _, live in judges.live_judges())

        async def warn(text: str) -> None:
            await run_sync(wiring.warn, text)

        return ReplicaActor(
            self._engine,
            Begin(state.D, state.T, detector, wiring.sizes, context, state.graph.directed, networks),
            workers=self._settings.cluster.workers,
            patience=self._patience,
            pace=Pace(self._batch_cap(judges, state.T), self._patience.seconds),
            starting_states=self._starting_states,
            warn=warn,
            through=state.progress.events,
            inbox=wiring.inbox,
            coordinator=wiring.coordinator,
            parts=wiring.parts,
            wanted=wiring.wanted,
        )


def judges_on_workers(settings: Settings, judges: Judges) -> bool:
    """Whether each purchase is judged on its own: by one judge that remembers nothing, and without quarantine."""
    champion = judges.champion.judge
    remembers = champion.learner is not None or champion.adaptation is not None or settings.detector.quarantine
    return judges.challenger is None and not remembers


def _newest(directory: Path, inputs: InputSettings) -> Checkpoint:
    """The newest checkpoint that is not damaged. The run that writes them may remove old ones meanwhile.

    Raises:
        RunError: none can be read.
    """
    while files := files_in(directory):
        for path in reversed(files):
            try:
                return read_checkpoint(path, inputs)
            except DAMAGE:
                if not path.exists():
                    break  # there is a newer one
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
