"""`peerwatch serve`."""

import gc
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import click

from peerwatch.cli.commands.run import judge
from peerwatch.cli.options import layers_of, settings_options
from peerwatch.settings.model import Layer

LISTEN: Final = "127.0.0.1:8000"


@click.command()
@settings_options
@click.option("--reset", is_flag=True, help="Forget the checkpoints in the state directory and begin anew.")
@click.option("--force", is_flag=True, help="Overwrite an OUTPUT that something else has written.")
def serve(paths: tuple[str, ...], config: Path | None, *, reset: bool, force: bool, **options: Any) -> None:
    """Judge as `peerwatch run` does, and serve an HTTP API and a page beside it.

    The service listens at http://127.0.0.1:8000 unless --serve or the config names another address, and goes on after
    the logs have ended, until Ctrl-C. Without logs or a config it shows a demo: a log that grows by itself.

    \b
    peerwatch serve
    peerwatch serve --config configs/live.yaml
    peerwatch serve batch_log.json stream_log.json flagged.json --follow --state state --serve 127.0.0.1:9000
    """  # noqa: D301 (click wants the character \b before text that is not to be wrapped)
    gc.disable()  # as in a run
    with ExitStack() as stack:
        layers = [*layers_of(paths, config, options), Layer({"serve.listen": LISTEN}, {})]
        if not paths and config is None:
            from peerwatch.service.demo import demo  # noqa: PLC0415 (only the demo needs it)

            layers.append(stack.enter_context(demo()))
        judge(layers, config, reset=reset, force=force, lingers=True)
