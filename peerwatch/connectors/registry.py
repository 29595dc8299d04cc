"""Which code a URL's scheme stands for: peerwatch's own connectors and those of other packages, by entry points."""

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from peerwatch.connectors.store import Store, StoreContext
from peerwatch.connectors.stream import Stream
from peerwatch.connectors.target import EventTarget, FileTarget
from peerwatch.errors import UsageError
from peerwatch.urls import ConnectorUrl, is_url, parsed

SINKS: Final = "peerwatch.sinks"
SOURCES: Final = "peerwatch.sources"
TARGETS: Final = "peerwatch.targets"
MakeStore: TypeAlias = Callable[[ConnectorUrl, StoreContext], Store]
MakeStream: TypeAlias = Callable[[ConnectorUrl, float], Stream]
MakeTarget: TypeAlias = Callable[[ConnectorUrl, float], EventTarget]


def store_of(url: ConnectorUrl, context: StoreContext) -> Store:
    """The store that a URL names; nothing is connected yet.

    Raises:
        UsageError: nothing is known of the scheme, the URL lacks something, or a library is missing.
    """
    make: MakeStore = _loaded(SINKS, "sink", url)
    return make(url, context)


def stream_of(url: ConnectorUrl, timeout: float) -> Stream:
    """The stream that a URL names, whose server answers within `timeout` seconds; nothing is connected yet.

    Raises:
        UsageError: nothing is known of the scheme, the URL lacks something, or a library is missing.
    """
    make: MakeStream = _loaded(SOURCES, "source", url)
    return make(url, timeout)


def target_of(name: str, timeout: float) -> EventTarget:
    """The target that a path or URL names, whose server answers within `timeout` seconds; nothing is connected yet.

    Raises:
        UsageError: nothing is known of the scheme, the URL lacks something, or a library is missing.
    """
    if not is_url(name):
        return FileTarget(name)
    url = parsed(name)
    make: MakeTarget = _loaded(TARGETS, "target", url)
    return make(url, timeout)


def can_be_read(url: ConnectorUrl) -> bool:
    """Whether there is a source for what a URL names."""
    return url.scheme in _known(SOURCES)


def _known(group: str) -> dict[str, Any]:
    """The entry points of a group, by their schemes."""
    from importlib import metadata  # noqa: PLC0415 (slow to import, and only a URL needs it)

    return {entry.name: entry for entry in metadata.entry_points(group=group)}


def _loaded(group: str, what: str, url: ConnectorUrl) -> Any:
    known = _known(group)
    entry = known.get(url.scheme)
    if entry is None:
        raise UsageError(f"{url}: there is no {what} for {url.scheme}; known are {', '.join(sorted(known))}")
    return entry.load()


def missing_library(url: ConnectorUrl, library: str, extra: str) -> UsageError:
    """The error if the library that a connector needs is not installed."""
    return UsageError(f"{url} needs {library}; install it: pip install 'peerwatch[{extra}]'")
