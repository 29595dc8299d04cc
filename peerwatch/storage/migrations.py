"""Checkpoints of earlier versions, made what the present version would have written: one step from each to the next.

A step works on plain JSON and arrays, never on the classes of today: those change, and a step stays as it is. Every
change of the format brings a new version and a step to it.
"""

import os
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from peerwatch.readable import shown
from peerwatch.settings.model import InputSettings
from peerwatch.storage.version_4 import FactsFromFiles, facts_from_files


class StoredCheckpoint(NamedTuple):
    """A checkpoint of any version: its envelope as plain JSON, and its arrays."""

    envelope: dict[str, Any]
    arrays: Mapping[str, NDArray[Any]]


class Surroundings(NamedTuple):
    """Where a checkpoint is, and which logs belong to it: earlier versions did not write all of that down."""

    directory: Path
    inputs: InputSettings


def migrated(stored: StoredCheckpoint, around: Surroundings) -> StoredCheckpoint:
    """A checkpoint as the present version would have written it.

    Raises:
        UsageError: what its version did not write down cannot be read off the files around it any more.
    """
    while (step := STEPS.get(stored.envelope["version"])) is not None:
        stored = step(stored, around)
    return stored


def _from_4(stored: StoredCheckpoint, around: Surroundings) -> StoredCheckpoint:
    facts = facts_from_files(stored.envelope, around.inputs)
    return from_4(stored, facts, around.directory, around.inputs.stream or "")


def from_4(stored: StoredCheckpoint, read_off: FactsFromFiles, directory: Path, stream: str) -> StoredCheckpoint:
    """Files are known by what they hold, and by two paths; of each user only the T + 1 latest purchases are held.

    Large amounts were one list in the facts. Now each shard has those of its own purchases beside them.
    """
    old, facts, arrays = stored.envelope, {**stored.envelope["facts"]}, {**stored.arrays}
    amounts = facts.pop("large")
    for key in ("flagged_bytes", "rejects_bytes", "verdicts_bytes", "began"):
        del facts[key]
    for shard in range(facts["shards"]):
        held = arrays[f"held{shard}"]
        kept = np.minimum(held, old["identity"]["T"] + 1)
        latest = np.arange(held.sum()) >= np.repeat(np.cumsum(held) - kept, held)
        arrays[f"held{shard}"] = kept
        for column in ("seq", "timestamp", "amount"):
            arrays[f"{column}{shard}"] = arrays[f"{column}{shard}"][latest]
        amount = arrays[f"amount{shard}"]
        text = "\n".join(amounts[-1 - name] for name in np.unique(amount[amount < 0]).tolist())
        arrays[f"large{shard}"] = np.frombuffer(text.encode(), np.uint8)
    outputs = {name: old["identity"][name] for name in ("flagged", "rejects", "verdicts")}
    places = {name: _place_of(path, directory) for name, path in {"stream": stream, **outputs}.items()}
    envelope = {
        **old,
        "version": 5,
        "identity": {**old["identity"], **places},
        "facts": {**facts, **read_off._asdict()},
        "names": sorted({*old["names"], *(f"large{shard}" for shard in range(facts["shards"]))}),
    }
    return StoredCheckpoint(envelope, arrays)


def _place_of(path: str | None, directory: Path) -> dict[str, str] | None:
    if path is None:
        return None
    if path == "-":
        return {"absolute": path, "relative": path}
    absolute = Path(path).absolute()
    return {"absolute": shown(absolute), "relative": shown(os.path.relpath(absolute, directory.absolute()))}


def from_5(stored: StoredCheckpoint, _: Surroundings) -> StoredCheckpoint:
    """Marks are called bookmarks, what a detector learns from its training; all decisions may be written as well."""
    old, facts = stored.envelope, {**stored.envelope["facts"]}
    facts["bookmarks"] = facts.pop("marks")
    facts["decisions_written"] = None
    rules = {
        _renamed(key, "detector.learning.", "detector.training."): old["identity"]["rules"][key]
        for key in old["identity"]["rules"]
    }
    envelope = {**old, "version": 6, "identity": {**old["identity"], "rules": rules, "decisions": None}, "facts": facts}
    return StoredCheckpoint(envelope, stored.arrays)


def from_6(stored: StoredCheckpoint, around: Surroundings) -> StoredCheckpoint:
    """A run has a name; sinks are named, and so are their marks; a log of which nothing was read has no position."""
    identity, facts = {**stored.envelope["identity"]}, {**stored.envelope["facts"]}
    outputs = {name: identity.pop(name) for name in ("flagged", "rejects", "verdicts", "decisions")}
    marks = {name: facts.pop(f"{name}_written") for name in outputs}
    if not facts["judged"] and facts["position"]["content"][0] == 0:
        facts["position"] = None
    known = f"{around.directory.absolute()} {msgspec.json.encode(identity, order='sorted').decode()}"
    identity |= {
        "run": blake2b(known.encode(errors="surrogateescape"), digest_size=8).hexdigest(),
        "outputs": {name: place for name, place in outputs.items() if place is not None},
    }
    facts["marks"] = {name: mark for name, mark in marks.items() if outputs[name] is not None}
    return StoredCheckpoint({**stored.envelope, "version": 7, "identity": identity, "facts": facts}, stored.arrays)


def from_7(stored: StoredCheckpoint, _: Surroundings) -> StoredCheckpoint:
    """Arrays may be in archives beside the checkpoint."""
    return StoredCheckpoint({**stored.envelope, "version": 8, "parts": []}, stored.arrays)


def _renamed(key: str, before: str, now: str) -> str:
    return now + key.removeprefix(before) if key.startswith(before) else key


STEPS: Final[Mapping[int, Callable[[StoredCheckpoint, Surroundings], StoredCheckpoint]]] = {
    4: _from_4,
    5: from_5,
    6: from_6,
    7: from_7,
}
"""The step from each earlier version to the next."""
