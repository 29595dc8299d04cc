"""Workers as Ray actors. The only file that imports Ray.

Ray's own restarts are switched off: it would lose the state of an actor, and may carry out a call twice. A lost worker
is replaced by `peerwatch.cluster.transport`.

As a script (`python -m peerwatch.cluster.ray start ...`) it is Ray's own command line, except that 127.0.0.1 stays
127.0.0.1: Ray replaces it by the address of the network card, where anybody could run code.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import cycle, islice
from typing import Any, Final

import anyio
from anyio.to_thread import run_sync

from peerwatch.cluster.address import START, check_listening
from peerwatch.cluster.engine import WorkerLost
from peerwatch.cluster.environment import ENVIRONMENT
from peerwatch.cluster.transport import check_version
from peerwatch.cluster.wire import Greet, encoded, reply_from
from peerwatch.cluster.worker import ReplicaWorker
from peerwatch.errors import RunError, UsageError

for _name, _value in ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402 (it reads the environment)
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError  # noqa: E402
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: E402

SUSPECTED: Final = 30.0
"""Seconds in which no worker is started on a node where one was silent, if there is another."""
PERHAPS_GONE: Final = 3.0
"""Likewise where one has ended: if the node has, Ray knows it by then."""
READY_SECONDS: Final = 0.5
"""How long a worker that stands ready may take to answer."""
PREPARING_SECONDS: Final = 120.0
"""How long nodes may take to compile the kernels."""
GREETING: Final = encoded(Greet())
"""What a worker is asked to see whether it answers: it may have been taken and be at work by then."""
SPARES: Final = 2
"""Workers that stand ready to take the place of a lost one: on two nodes, if there are as many."""
DISCONNECT_SECONDS: Final = 3.0
NODES_SECONDS: Final = 5.0
"""How long the head of the cluster may take to list the nodes."""
GONE_SECONDS: Final = 10.0
"""For how long there may be no node, or no answer from the head, before the run ends. Ray gives up after a minute, and
then ends the process on the spot."""
LOOK_SECONDS: Final = 0.5


def why_not_begun(error: RayError) -> str | None:
    """What went wrong when an actor was made, such as a library that its node lacks; None if it was lost later."""
    first, *more = str(error).strip().splitlines() or [""]
    return more[-1].strip() if more and "creation task" in first else None


class RayCall:
    """A method call of an actor."""

    def __init__(self, reference: Any) -> None:
        self._reference = reference

    async def reply(self) -> bytes:
        """Wait for the reply."""
        try:
            content: bytes = await self._reference
        except ActorDiedError as error:
            why = why_not_begun(error)
            raise WorkerLost(f"it cannot begin: {why}" if why else "its process has ended") from None
        except ActorUnavailableError:
            raise WorkerLost("its process cannot be reached") from None
        except RayError as error:
            raise WorkerLost(str(error).strip().partition("\n")[0]) from None
        return content


class RayWorker:
    """An actor of Ray with a replica in it."""

    def __init__(self, actor: Any, node_id: str, node: str) -> None:
        self._actor = actor
        self.node_id = node_id
        self.node = node
        self.begun = actor.call.remote(GREETING)
        """Ray's reference to the reply to the first command."""
        self.ended = False

    async def answers(self) -> bool:
        """Whether it would take a command. One whose process is only starting is taken to."""
        if not ray.wait([self.begun], timeout=0)[0]:
            return True
        with anyio.move_on_after(READY_SECONDS), suppress(WorkerLost):
            await self.call(GREETING).reply()
            return True
        return False

    def call(self, command: bytes) -> RayCall:
        """Send a command."""
        return RayCall(self._actor.call.remote(command))

    def end(self) -> None:
        """Kill the actor."""
        self.ended = True
        with suppress(RayError):
            ray.kill(self._actor)


class RayEngine:
    """Spreads workers over the nodes that are alive."""

    def __init__(self) -> None:
        self._workers: list[RayWorker] = []
        self._ready: list[RayWorker] = []
        """Workers that were started ahead and hold no state yet: a process takes longer to start than to take over."""
        self._suspected: dict[str, float] = {}
        self._gone_since: float | None = None
        """Since when there has been no node, None if there is one."""

    async def start(self) -> RayWorker:
        """Start a worker on the node with the fewest, if possible on one where none was lost of late.

        Raises:
            RunError: no node is left.
        """
        while not (nodes := await self._nodes()):  # noqa: ASYNC110 (Ray tells nobody when a node is back)
            await anyio.sleep(LOOK_SECONDS)
        self._workers = [worker for worker in self._workers if not worker.ended]
        worker = await self._one_ready(nodes)
        if worker is None:
            chosen = min(nodes, key=self._burden)
            worker = _started(chosen, nodes[chosen])
        self._workers.append(worker)
        return worker

    async def replenish(self) -> None:
        """Have workers that stand ready, on several nodes if possible.

        Raises:
            RunError: no node is left, which a run that has nothing to ask would not notice.
        """
        nodes = await self._nodes()
        for worker in [*self._ready]:
            if worker not in self._ready:
                continue  # a slot has taken it while another one was asked
            if (worker.node_id not in nodes or not await worker.answers()) and worker in self._ready:
                self._ready.remove(worker)
                worker.end()
        while nodes and len(self._ready) < SPARES:
            stand_by = {worker.node_id for worker in self._ready}
            chosen = min(nodes, key=lambda node: (node in stand_by, self._burden(node)))
            self._ready.append(_started(chosen, nodes[chosen]))

    async def _nodes(self) -> dict[str, str]:
        """The nodes that are alive; none if there is none at present, or if the head does not answer.

        Raises:
            RunError: so it has been for too long.
        """
        asked, nodes = time.monotonic(), {}
        with anyio.move_on_after(NODES_SECONDS):
            nodes = await run_sync(nodes_alive, abandon_on_cancel=True)
        if nodes:
            self._gone_since = None
        elif self._gone_since is None:
            self._gone_since = asked
        elif time.monotonic() - self._gone_since >= GONE_SECONDS:
            raise RunError(
                f"for {GONE_SECONDS:g} s no node of the cluster has been left, or its head has not answered; start it"
                " and run again: the run goes on from its last checkpoint"
            )
        return nodes

    async def _one_ready(self, nodes: Mapping[str, str]) -> RayWorker | None:
        """A worker that stands ready and answers, on a node that is no worse than any other."""
        ready = [worker for worker in self._ready if worker.node_id in nodes]
        ready.sort(key=lambda worker: self._burden(worker.node_id))
        for worker in ready:
            if self._suspicion(worker.node_id) > min(map(self._suspicion, nodes)):
                break
            if worker not in self._ready:
                continue  # another slot has taken it meanwhile
            self._ready.remove(worker)
            if await worker.answers():
                return worker
            worker.end()
        return None

    def _suspicion(self, node: str) -> float:
        """For how many seconds a node is not to be used if there is another."""
        return max(0.0, self._suspected.get(node, 0.0) - time.monotonic())

    def _burden(self, node: str) -> tuple[float, int]:
        """By how much a node is less suitable than others for another worker."""
        return self._suspicion(node), sum(worker.node_id == node for worker in (*self._workers, *self._ready))

    def prepare(self, workers: int) -> None:
        """Start so many workers, and one on each node at least, without anybody waiting for their replies yet.

        The first one on a node compiles the kernels, if need be, which many at once would do each for itself.

        Raises:
            UsageError: a node runs another version, or lacks something.
        """
        nodes = nodes_alive()
        self._start_ahead(nodes, [*nodes])
        self._start_ahead(nodes, [*islice(cycle(nodes), max(0, workers - len(nodes)))] if nodes else [])

    def _start_ahead(self, nodes: Mapping[str, str], where: Sequence[str]) -> None:
        calls = {worker.begun: worker for worker in (_started(node, nodes[node]) for node in where)}
        if not calls:
            return
        answered, _ = ray.wait([*calls], num_returns=len(calls), timeout=PREPARING_SECONDS)
        for reference in answered:
            worker = calls[reference]
            try:
                check_version(reply_from(ray.get(reference)), worker.node, UsageError)
            except RayError as error:
                if why := why_not_begun(error):
                    raise UsageError(
                        f"no worker can begin on {worker.node}: {why}; install the same peerwatch there, and the same"
                        " Python and numpy"
                    ) from None
                continue  # it was lost; another is started where it is needed
            self._ready.append(worker)

    def suspect(self, worker: Any, *, silent: bool) -> None:
        """Start no worker on its node for a while, if there is another."""
        until = time.monotonic() + (SUSPECTED if silent else PERHAPS_GONE)
        self._suspected[worker.node_id] = max(until, self._suspected.get(worker.node_id, 0.0))


def _started(node_id: str, node: str) -> RayWorker:
    where = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return RayWorker(_actors.options(scheduling_strategy=where).remote(), node_id, node)


class _Actor:
    """A replica in an actor whose calls run one after the other, in order."""

    def __init__(self) -> None:
        self._worker = ReplicaWorker()

    def call(self, command: bytes) -> bytes:
        return self._worker.call(command)


_actors: Any = ray.remote(max_restarts=0, max_task_retries=0, num_cpus=0)(_Actor)


def nodes_alive() -> dict[str, str]:
    """The nodes that Ray takes to be alive: their ids, and addresses for people."""
    return {
        node["NodeID"]: f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}"
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    }


@contextmanager
def connected_to(address: str, workers: int = 0) -> Iterator[RayEngine]:
    """Connect to a cluster at HOST:PORT, and start `workers` there if there are to be any.

    Raises:
        UsageError: none answers there.
    """
    check_listening(address)
    _keep_loopback()
    _keep_quiet()
    try:
        with _own_answer_to_sigterm():
            ray.init(
                address=address, namespace=f"peerwatch-{os.getpid()}", log_to_driver=False, configure_logging=False,
                include_dashboard=False,
            )  # fmt: skip
    except (ConnectionError, RuntimeError, ValueError) as error:
        why = " ".join(str(error).split())
        raise UsageError(f"the Ray cluster at {address} cannot be used ({why}); {START}") from None
    try:
        engine = RayEngine()
        if workers:
            engine.prepare(workers)
        yield engine
    finally:
        _disconnect()


@contextmanager
def _own_answer_to_sigterm() -> Iterator[None]:
    """Undo what Ray does to SIGTERM, upon which it would print a stack; one that comes meanwhile waits for the end."""
    before, set_handler = signal.getsignal(signal.SIGTERM), signal.signal

    def all_but_sigterm(number: int, handler: Any) -> Any:
        return before if number == signal.SIGTERM else set_handler(number, handler)

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    signal.signal = all_but_sigterm  # type: ignore[assignment]  # a thread from before may still take the signal
    try:
        yield
    finally:
        signal.signal = set_handler
        set_handler(signal.SIGTERM, before)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _disconnect() -> None:
    """Disconnect, if that is possible: a cluster that is gone may not answer even then.

    The thread is no daemon, so that the process ends at once instead of when Ray's own exit handler has its answer.
    """
    thread = threading.Thread(target=ray.shutdown)
    thread.start()
    thread.join(DISCONNECT_SECONDS)


def _keep_loopback() -> None:
    """Leave 127.0.0.1 as it is, which Ray takes for the address of the network card."""
    from ray._private import services  # noqa: PLC0415 (there is no public way)

    services.resolve_ip_for_localhost = lambda host: host


def _keep_quiet() -> None:
    """Keep what nodes have to say off standard output, where Ray would print it whatever it is told."""
    from ray._private import worker  # noqa: PLC0415 (there is no public way)

    worker.print_to_stdstream = lambda *_, **__: None


if __name__ == "__main__":
    _keep_loopback()
    from ray.scripts.scripts import main

    sys.exit(main())  # type: ignore[no-untyped-call]
