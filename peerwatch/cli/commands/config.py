"""`peerwatch config`."""

import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from peerwatch.cli.options import check_cluster, layers_of, settings_options
from peerwatch.errors import UsageError
from peerwatch.settings.model import keys, resolve, value_of
from peerwatch.urls import is_url, without_secrets


@click.group()
def config() -> None:
    """Show and check settings."""


@config.command("show")
@settings_options
def config_show(paths: tuple[str, ...], config: Path | None, **options: Any) -> None:
    """Print the effective settings as YAML, each with where it came from; nothing is judged.

    Takes the same arguments and options as `run`. If a batch log is named, its header line is read.
    """
    import yaml  # noqa: PLC0415

    layers = layers_of(paths, config, options)
    settings, origins = resolve(*layers)
    if settings.input.batch is not None and not is_url(settings.input.batch):
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
        plain = without_secrets(msgspec.to_builtins(value_of(settings, key)))
        value = yaml.safe_dump(plain, default_flow_style=True, width=10**6).partition("\n")[0]
        click.echo(f"{'  ' * len(sections)}{name}: {value}".ljust(40) + f"  # {origins[key]}")


@config.command("check")
@settings_options
def config_check(paths: tuple[str, ...], config: Path | None, **options: Any) -> None:
    """Connect to everything that the settings name, and say what works; nothing is read or written.

    Takes the same arguments and options as `run`. Exit code 0: everything answers; 1: something does not.
    """
    import anyio  # noqa: PLC0415

    from peerwatch.runtime.connections import Connection, checked  # noqa: PLC0415 (loads the kernels)

    settings, origins = resolve(*layers_of(paths, config, options))
    check_cluster(settings.cluster, origins)
    found = anyio.run(checked, settings)
    if settings.cluster.engine != "none" and (address := settings.cluster.address) is not None:
        found.append(Connection("cluster.address", address, _why_no_cluster(address)))
    for connection in found:
        click.echo(f"{connection.key:<18} {connection.where}  {connection.problem or 'works'}")
    if any(connection.problem for connection in found):
        sys.exit(1)


def _why_no_cluster(address: str) -> str | None:
    from peerwatch.cluster.address import check_listening  # noqa: PLC0415 (a check without a cluster needs nothing of it)

    try:
        check_listening(address)
    except UsageError as error:
        return str(error)
    return None
