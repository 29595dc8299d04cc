"""Saved models: the same detector comes back, or a sentence."""

from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from learned_tables import DEEP

from peerwatch.detectors.base import Detector, Floats
from peerwatch.detectors.ensemble import Ensemble
from peerwatch.detectors.learned.autoencoder import Autoencoder
from peerwatch.detectors.learned.one_class_svm import OneClassSvm
from peerwatch.detectors.registry import DETECTORS, make
from peerwatch.detectors.rules import Iqr, Mad
from peerwatch.errors import BadInput, UsageError
from peerwatch.storage.models import FORMAT, VERSION, ModelEnvelope, _digest, facts, load, save

QUICK: dict[str, dict[str, Any]] = {
    "isolation_forest": {"trees": 5},
    "half_space_trees": {"trees": 3, "height": 4},
    "autoencoder": {"hidden": [4], "epochs": 5},
    "inne": {"samples": 5},
    "random_cut_forest": {"trees": 3},
    **{name: {"epochs": 2} for name in DEEP},
    "ensemble": {"members": [{"name": "mad", "parameters": {"k": 4.0}}, {"name": "one_class_svm", "weight": 2}]},
}
ROWS = np.random.default_rng(1).normal(50, 3, (60, 2))
NEW = np.random.default_rng(2).normal(50, 9, (20, 2))


class Own(Mad):
    """A user's own rule."""

    name = "own"


def scores(detector: Detector) -> Floats:
    """Of new rows."""
    return np.concatenate([detector.score_samples(NEW), detector.decision_function(NEW)])


def seal(path: Path, arrays: dict[str, Any], **fields: Any) -> None:
    """Write a model whose digest fits, whatever it says."""
    sound = ModelEnvelope(FORMAT, VERSION, "mad", {"k": 3.5}, "0.1.0", {}, {})
    envelope = msgspec.structs.replace(sound, **fields)
    digest = _digest(envelope, {name: np.asarray(array) for name, array in arrays.items()})
    raw = msgspec.json.encode(msgspec.structs.replace(envelope, digest=digest))
    held = {f"learned.{name}": array for name, array in arrays.items()}
    np.savez(path, envelope=np.frombuffer(raw, np.uint8), **held)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in DEEP else name for name in DETECTORS]
)
def test_every_detector_comes_back(name: str, tmp_path: Path) -> None:
    """With its parameters and the same scores, bit by bit; also where it is the one that was expected."""
    path = tmp_path / "model.npz"
    detector = make(name, QUICK.get(name, {})).fit(ROWS)
    save(detector, path, version=3, columns=["a", "b"])
    for found in (load(path), load(path, make(name, QUICK.get(name, {})))):
        assert type(found) is type(detector)
        np.testing.assert_array_equal(scores(found), scores(detector))
    assert load(path).arrays().keys() == detector.arrays().keys()
    assert facts(path) == {"version": 3, "columns": ["a", "b"]}
    with pytest.raises(UsageError, match=rf"is a model of {name} .*; expected is \S+ \{{"):
        load(path, Iqr(k=9.0))


def test_numbers_of_numpy_and_tuples_are_parameters(tmp_path: Path) -> None:
    """As a search leaves them."""
    path = tmp_path / "model.npz"
    save(Mad(k=np.float64(3)).fit(ROWS), path, seen=np.int64(5))
    assert load(path).get_params() == {"k": 3.0}
    assert load(path, Mad(k=3)).get_params() == {"k": 3}
    assert facts(path) == {"seen": 5}
    network = Autoencoder(hidden=(3, 2), epochs=np.int64(2)).fit(ROWS)  # type: ignore[arg-type]
    save(network, path)
    assert load(path, Autoencoder(hidden=[3, 2], epochs=2)).get_params()["hidden"] == [3, 2]


@pytest.mark.parametrize("name", ["mad", "lof", "isolation_forest"])
def test_a_damaged_model_is_refused(name: str, tmp_path: Path) -> None:
    """Bytes changed at random, cut short: a sentence, or the same model."""
    path, rng = tmp_path / "model.npz", np.random.default_rng(3)
    detector = make(name, QUICK.get(name, {})).fit(ROWS)
    save(detector, path)
    sound, expected = path.read_bytes(), scores(detector)
    refused = []
    for attempt in range(300):
        raw = bytearray(sound)
        if attempt % 5:
            for place in rng.integers(0, len(raw), rng.integers(1, 4)):
                raw[place] = rng.integers(0, 256)
        else:
            raw = raw[: rng.integers(0, len(raw))]
        path.write_bytes(raw)
        try:
            found = load(path)
        except UsageError as error:
            refused.append(str(error))
        else:
            np.testing.assert_array_equal(scores(found), expected)
    assert len(refused) > 150
    assert all(str(path) in sentence for sentence in refused)


class Touch:
    """What makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return self.path.touch, ()


@pytest.mark.parametrize("name", ["envelope", "learned.summary0"])
def test_a_pickle_is_never_opened(name: str, tmp_path: Path) -> None:
    """In an archive or by itself: it is no model, and nothing in it runs."""
    path, mark = tmp_path / "model.npz", tmp_path / "mark"
    save(Mad().fit(ROWS), path)
    with np.load(path) as archive:
        held = dict(archive)
    objects = np.array([Touch(mark)], object)
    for write in (partial(np.savez, path, **held | {name: objects}), partial(objects.dump, path)):
        write()
        with pytest.raises(UsageError, match="is not a model that peerwatch saved") as caught:
            load(path)
        assert "pickle" not in str(caught.value).rpartition("model.npz")[2]  # nor is it said how it could be
        assert not mark.exists()
    np.load(path, allow_pickle=True)
    assert mark.exists(), "it would have"


def test_each_mistake_gets_its_sentence(tmp_path: Path) -> None:
    """What is no model, of another version, of an unknown detector, or not what its detector learns."""
    path = tmp_path / "model.npz"
    learned = Mad().fit(ROWS).arrays()
    for fields, sentence in (
        ({"version": 2}, "its format is version 2, this peerwatch reads 1; fit it again"),
        ({"format": "another"}, "is not a model that peerwatch saved"),
        ({"detector": "os:system"}, "is a model of os:system, or has members, that peerwatch does not know by name"),
        ({"detector": "sigma"}, "does not know by name"),
        (
            {"detector": "ensemble", "parameters": {"members": [{"name": "antigravity:Rule"}]}},
            "is a model of ensemble, or has members, that peerwatch does not know by name",
        ),
        ({"detector": "ensemble", "parameters": {"members": "mad"}}, "does not know by name"),
        ({"detector": "ensemble", "parameters": {"members": [3]}}, "does not know by name"),
        ({"parameters": {"q": 3}}, 'mad has no parameter "q"'),
        ({"parameters": {"k": -3}}, 'mad: "k" is -3'),
        ({"detector": "lof", "parameters": {}}, "was made with scikit-learn none, here is"),
        ({"detector": "seasonal", "parameters": {}}, "these are not what a seasonal has learned"),
    ):
        seal(path, learned, **fields)
        with pytest.raises(UsageError) as caught:
            load(path)
        assert sentence in str(caught.value)
        assert str(path) in str(caught.value)
    for other, sentence in (
        (tmp_path / "none", "cannot read the model .*: No such file or directory"),
        (tmp_path, "cannot read the model .*: Is a directory"),
        (Path("/dev/null"), "/dev/null: a model is a regular file"),
    ):
        with pytest.raises(UsageError, match=sentence):
            load(other)
    for content in (b"", b"k=3", b"PK"):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="is not a model that peerwatch saved"):
            facts(path)


def test_a_changed_number_or_fact_does_not_fit_the_digest(tmp_path: Path) -> None:
    """Though the archive is sound."""
    path = tmp_path / "model.npz"
    save(Mad().fit(ROWS), path, version=1)
    with np.load(path) as archive:
        held = dict(archive)
    raw = held["envelope"].tobytes()
    for changed in (
        {"learned.summary0": held["learned.summary0"] + 1e-9},
        {"learned.summary1": held["learned.summary1"][::-1]},
        {"learned.summary2": held["learned.summary1"]},
        {"other": held["learned.summary1"]},
        {"envelope": np.frombuffer(raw.replace(b'"version":1}', b'"version":2}'), np.uint8)},
        {"envelope": np.frombuffer(raw.replace(b'"k":3.5', b'"k":9.5'), np.uint8)},
    ):
        np.savez(path, **held | changed)
        with pytest.raises(UsageError, match="its digest does not fit"):
            load(path)


def test_a_detector_of_ones_own_is_loaded_where_it_is_expected(tmp_path: Path) -> None:
    """And nowhere else, for its name would be imported; as a member, too."""
    path = tmp_path / "model.npz"
    member = f"{Own.__module__}:Own"
    for detector in (Own(k=2.0), Ensemble(members=[{"name": member}, {"name": "iqr"}])):
        save(detector.fit(ROWS), path)
        with pytest.raises(UsageError, match="does not know by name"):
            load(path)
        np.testing.assert_array_equal(scores(load(path, detector)), scores(detector))
    save(Mad(k=2.0).fit(ROWS), path)
    with pytest.raises(UsageError, match=r"is a model of mad .*; expected is "):
        load(path, Own(k=2.0))


def test_another_version_of_a_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both versions, and what to do."""
    path = tmp_path / "model.npz"
    save(OneClassSvm().fit(ROWS), path)
    here = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.1" if name == "scikit-learn" else here(name))
    with pytest.raises(UsageError, match=r"was made with scikit-learn \d\S+, here is 0.1: fit it again, or install"):
        load(path)


class Careless(Mad):
    """Keeps objects."""

    name = "careless"

    def arrays(self) -> dict[str, Any]:
        """Not as it should."""
        return {"what": np.array([{}], object)}


class Broken(Mad):
    """Its arrays cannot be had."""

    name = "broken"

    def arrays(self) -> dict[str, Any]:
        """Not as it should."""
        raise KeyError("oops")


class Unpackaged(Mad):
    """Names a library that is not installed."""

    name = "unpackaged"
    libraries = ("no-such-library",)


def test_what_cannot_be_saved_leaves_what_was_there(tmp_path: Path) -> None:
    """Nothing learned, objects, facts that are no JSON, no such directory."""
    path = tmp_path / "model.npz"
    path.write_text("before")
    for detector, sentence in (
        (Mad(), "has not been fitted"),
        (Careless().fit(ROWS), 'its array "what" holds objects'),
        (Broken().fit(ROWS), "broken cannot be saved: KeyError: 'oops'"),
        (Unpackaged().fit(ROWS), "unpackaged cannot be saved: PackageNotFoundError"),
    ):
        with pytest.raises(BadInput, match=sentence):
            save(detector, path)
    with pytest.raises(BadInput, match="cannot be written as JSON"):
        save(Mad().fit(ROWS), path, what=object())
    assert path.read_text() == "before"
    with pytest.raises(FileNotFoundError):
        save(Mad().fit(ROWS), tmp_path / "none" / "model.npz")
