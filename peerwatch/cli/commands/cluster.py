"""`peerwatch cluster`."""

from importlib import import_module
from typing import Any, Final

import click

from peerwatch.errors import UsageError

PORT: Final = 6379


@click.group()
def cluster() -> None:
    """Start and stop a Ray cluster on this machine, for `peerwatch run --cluster`, and show the nodes of any."""


@cluster.command()
@click.option("--nodes", type=click.IntRange(1, 64), default=1, show_default=True, help="Nodes, all on this machine.")
@click.option("--port", type=click.IntRange(1024, 65535), default=PORT, show_default=True, help="Where it listens.")
def start(nodes: int, port: int) -> None:
    """Start a cluster that only this machine can connect to.

    It is for trying things out: nodes on one machine share its cores, and fail with it. docs/cluster.md says how to set
    up nodes on several machines.
    """
    local = _imported("local")
    started = local.start(nodes, port)
    click.echo(f"a cluster of {nodes} node{'s' * (nodes > 1)} runs: peerwatch run --cluster ray:{started.address}")


@cluster.command()
def stop() -> None:
    """Stop the cluster that `peerwatch cluster start` has started; another Ray cluster is left alone."""
    local = _imported("local")
    count = local.stop()
    click.echo(f"stopped {count} processes" if count else "no cluster is running")


@cluster.command()
@click.argument("address", required=False, metavar="[HOST:PORT]")
def status(address: str | None) -> None:
    """List the nodes of a cluster, by default of the local one."""
    local, nodes_of = _imported("local"), _imported("ray")
    known = local.known()
    address = address or (known.address if known is not None else None)
    if address is None:
        raise UsageError("no local cluster is running; start one: peerwatch cluster start, or name another: HOST:PORT")
    with nodes_of.connected_to(address):
        nodes = nodes_of.nodes_alive()
    click.echo("\n".join([f"{len(nodes)} node{'s' * (len(nodes) != 1)} at {address}", *sorted(nodes.values())]))


def _imported(name: str) -> Any:
    """A module of the room, which needs libraries that other commands do without.

    Raises:
        UsageError: they are not installed.
    """
    try:
        return import_module(f"peerwatch.cluster.{name}")
    except ImportError as error:
        raise UsageError(f"a cluster needs {error.name}; install it: pip install 'peerwatch[ray]'") from None
