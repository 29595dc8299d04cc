"""Runs a pipeline and its service in one process."""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

from anyio.to_thread import run_sync

from peerwatch.errors import PeerwatchError, RunError, UsageError
from peerwatch.progress import Progress
from peerwatch.readable import shown, why_unwritable
from peerwatch.runtime import runner
from peerwatch.runtime.assembly import AuditFrom
from peerwatch.runtime.deadline import Deadline
from peerwatch.runtime.pipeline import task_group
from peerwatch.runtime.stopping import StopSignals
from peerwatch.service.app import application
from peerwatch.service.explanation_store import ExplanationStore
from peerwatch.service.server import Server, is_loopback, listen, names_of, server_of, token_in, url_of
from peerwatch.service.service import Service
from peerwatch.service.sweeps import Sweeps
from peerwatch.service.systemd import Notifier
from peerwatch.service.workers import Workers
from peerwatch.settings.model import Layer, Settings, resolve


async def serve(
    layers: Sequence[Layer],
    console: Progress,
    deadline: Deadline,
    audit_from: AuditFrom,
    *,
    lingers: bool,
    **options: Any,
) -> runner.Report:
    """Judge as `runner.run` does, and serve meanwhile.

    A service that `lingers` goes on after the logs have ended, until a signal.

    Raises:
        UsageError: something is missing or cannot be used; nothing has been written.
        RunError: the run could not go on.
    """
    settings, _ = resolve(*layers)
    async with AsyncExitStack() as stack:
        listener = await run_sync(listen, settings.serve.listen or "")
        stack.callback(listener.close)
        directory = await _directory(settings, stack)
        token = None if is_loopback(listener) else await run_sync(_token, settings, directory, console.urgent)
        service = Service(settings, directory, console.urgent)
        service.workers = await stack.enter_async_context(Workers(layers, settings.serve.workers))
        service.sweeps = Sweeps(service.workers)
        service.explanations = await run_sync(_explanations, service.explanations_path, directory)
        stack.callback(service.explanations.close)
        names = names_of(listener, settings.serve.hosts)
        app = await run_sync(partial(application, service, hosts=names, token=token))
        server, systemd = server_of(app), Notifier()
        async with task_group() as tasks:
            tasks.start_soon(server.serve, [listener])
            try:
                async with task_group() as working:
                    working.start_soon(_announce, service, console, url_of(listener))
                    working.start_soon(service.work)
                    working.start_soon(service.sweeps.work)
                    working.start_soon(service.explain, layers)
                    working.start_soon(service.notify, systemd)
                    report = await _judge(service, layers, console, deadline, audit_from, options)
                    if lingers and report.interrupted_by is None:
                        await _until_signal(deadline)
                    working.cancel_scope.cancel()
            finally:
                systemd.stopping()
                _stop(service, server)
        return report


async def _announce(service: Service, console: Progress, url: str) -> None:
    """Print the address once nothing has been found missing."""
    await service.has_begun.wait()
    await run_sync(console.urgent, f"serving at {url}")


async def _judge(
    service: Service,
    layers: Sequence[Layer],
    console: Progress,
    deadline: Deadline,
    audit_from: AuditFrom,
    options: dict[str, Any],
) -> runner.Report:
    try:
        report = await runner.run(layers, console, deadline, audit_from, companion=service, **options)
    except PeerwatchError:
        service.ended = "failed"
        raise
    service.ended = "finished"
    return report


async def _until_signal(deadline: Deadline) -> None:
    signals = StopSignals(deadline, hangup=False)
    with signals.handled():
        await signals.wait()


def _stop(service: Service, server: Server) -> None:
    service.stop()  # what waits would be cut off otherwise
    server.should_exit = True


def _explanations(path: Path, directory: Path) -> ExplanationStore:
    if path.parent == directory:
        _make(directory)
    elif path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"serve.store is sqlite:{shown(path)}: {why_unwritable(path, OSError())}")
    try:
        return ExplanationStore(path)
    except RunError as error:
        raise UsageError(str(error)) from None


def _make(directory: Path) -> None:
    """Make a state directory that is not there; the run looks at it later."""
    try:
        directory.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot use the state directory {shown(directory)}: {error.strerror}") from None


async def _directory(settings: Settings, stack: AsyncExitStack) -> Path:
    """Where the service keeps its files: the state directory, or one that is gone after the run."""
    if settings.state.directory is not None:
        return Path(settings.state.directory)
    temporary = await run_sync(lambda: tempfile.TemporaryDirectory(prefix="peerwatch-"))
    stack.push_async_callback(run_sync, temporary.cleanup)
    return Path(temporary.name)


def _token(settings: Settings, directory: Path, announce: Callable[[str], None]) -> str:
    if settings.serve.token_file is None:
        _make(directory)
    path = Path(settings.serve.token_file or directory / "token")
    token = token_in(path)
    announce(f"requests need the bearer token in {path}")
    return token
