"""`peerwatch config`."""

from pathlib import Path
from typing import Any

import click
import msgspec

from peerwatch.cli.options import layers_of, settings_options
from peerwatch.settings.model import keys, resolve, value_of


@click.group()
def config() -> None:
    """Show settings."""


@config.command("show")
@settings_options
def config_show(paths: tuple[str, ...], config: Path | None, **options: Any) -> None:
    """Print the effective settings as YAML, each with where it came from; nothing is judged.

    Takes the same arguments and options as `run`. If a batch log is named, its header line is read.
    """
    import yaml  # noqa: PLC0415

    layers = layers_of(paths, config, options)
    settings, origins = resolve(*layers)
    if settings.input.batch is not None:
        import anyio  # noqa: PLC0415

        from peerwatch.runtime.preflight import read_header  # noqa: PLC0415 (loads the kernels)

        layers.append(anyio.run(read_header, settings))
        settings, origins = resolve(*layers)
    shown: list[str] = []
    for key, _ in keys():
        *sections, name = key.split(".")
        for depth, section in enumerate(sections):
            if shown[: depth + 1] != sections[: depth + 1]:
                click.echo(f"{'  ' * depth}{section}:")
        shown = sections
        value = yaml.safe_dump(
            msgspec.to_builtins(value_of(settings, key)), default_flow_style=True, width=10**6
        ).partition("\n")[0]
        click.echo(f"{'  ' * len(sections)}{name}: {value}".ljust(40) + f"  # {origins[key]}")
