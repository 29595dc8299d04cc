"""`peerwatch run`."""

import gc
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peerwatch.cli.options import check_cluster, layers_of, settings_options
from peerwatch.errors import RunError, UsageError
from peerwatch.files.descriptors import check_open
from peerwatch.settings.model import Layer, Settings, resolve

if TYPE_CHECKING:
    from peerwatch.judging.audit import BruteForce
    from peerwatch.runtime.cluster import Cluster
    from peerwatch.runtime.runner import Report


@click.command()
@settings_options
@click.option("--reset", is_flag=True, help="Forget the checkpoints in the state directory and begin anew.")
@click.option("--force", is_flag=True, help="Overwrite an OUTPUT that something else has written.")
def run(paths: tuple[str, ...], config: Path | None, *, reset: bool, force: bool, **options: Any) -> None:
    """Judge a stream log against the state that a batch log builds.

    BATCH and STREAM hold one JSON event a line; the first line of BATCH may set D and T: {"D":"3", "T":"50"}. Flagged
    purchases are written to OUTPUT (- for standard output), each as its own line with the window's mean and sd added.
    STREAM may be - for standard input. Lines that are not events go to the rejects file, and the run goes on; if
    OUTPUT is not a file, standard error shows them.

    \b
    peerwatch run batch_log.json stream_log.json flagged_purchases.json
    peerwatch run --D 2 --T 50 stream_log.json - | head
    peerwatch run --config configs/live.yaml

    \b
    Exit codes:
      0         everything is judged; also if a signal stopped a run with --follow or --state
      1         stopped by a rejected line (--strict), a failing disk, too little memory, or an
                output that nobody reads; or a stop took more than 10 seconds; or everything is
                judged, but a decision came out differently when recomputed (--audit)
      2         a wrong option, config, header or file; nothing has been written
      130, 143  interrupted; what had been read has been judged
    """  # noqa: D301 (click wants the character \b before text that is not to be wrapped)
    gc.disable()  # what imports make stays; looking for garbage in it takes a tenth of the start
    judge(layers_of(paths, config, options), config, reset=reset, force=force)


def judge(layers: Sequence[Layer], config: Path | None, *, reset: bool, force: bool, lingers: bool = False) -> None:
    """Judge the logs that the settings name, with a service beside it if one is to listen, and report how it went.

    The service of a run that `lingers` goes on after the logs have ended, until a signal.
    """
    settings, origins = resolve(*layers)
    check_cluster(settings.cluster, origins)
    if settings.follow:
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the run has an answer to it
        click.get_current_context().call_on_close(partial(signal.signal, signal.SIGHUP, before))
    check_open(settings)
    from peerwatch.cli.console import Console, different  # noqa: PLC0415 (--help and mistakes answer at once)

    logs_on_terminal = settings.logs.file is None and settings.logs.level in {"debug", "info"}
    console = Console(quiet=settings.quiet, bar=not logs_on_terminal)
    import anyio  # noqa: PLC0415

    from peerwatch import kernels  # noqa: PLC0415
    from peerwatch.runtime.deadline import Deadline  # noqa: PLC0415

    begin = _with_service(lingers=lingers) if settings.serve.listen is not None else _alone()
    kernels.load(console.compiling, console.uncached)  # those of all that has been imported
    gc.freeze()
    gc.enable()
    # before signals are handled: Ray sets handlers of its own
    with _cluster_of(settings) as cluster, Deadline(console) as deadline:
        options: dict[str, Any] = {"config": config, "reset": reset, "force": force, "cluster": cluster}
        report = anyio.run(
            partial(begin, layers, console, deadline, _audit_from, **options),
            backend_options={"use_uvloop": sys.platform != "win32"},  # which has no uvloop
        )
        console.report(report)
    if report.first_difference is not None:
        raise RunError(different(report.totals, report.first_difference))
    if report.interrupted_by is not None and not report.resumable:
        sys.exit(128 + report.interrupted_by)


def _audit_from(*arguments: Any) -> Awaitable["BruteForce"]:
    """What an audit begins with; a run without one imports nothing of replay."""
    from peerwatch.replay.audit import audit_from  # noqa: PLC0415

    return audit_from(*arguments)


def _cluster_of(settings: Settings) -> AbstractContextManager["Cluster | None"]:
    """The cluster that the settings name, until the context ends.

    Raises:
        UsageError: it cannot be used.
    """
    if settings.cluster.engine == "none":
        return nullcontext()
    from peerwatch.cluster.connecting import connected  # noqa: PLC0415 (a run without a cluster imports nothing of it)

    return connected(settings)


def _alone() -> Callable[..., Awaitable["Report"]]:
    from peerwatch.runtime import runner  # noqa: PLC0415

    return runner.run


def _with_service(*, lingers: bool) -> Callable[..., Awaitable["Report"]]:
    try:
        from peerwatch.service.serving import serve  # noqa: PLC0415 (a run without a service imports nothing of it)
    except ImportError as error:
        raise UsageError(f"a service needs {error.name}; install it: pip install 'peerwatch[serve]'") from None
    return partial(serve, lingers=lingers)
