"""A model file holds numbers and no code: what was changed, is of another version, or strange, is refused."""

import json
import pickle
import zipfile
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import skops.io
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import examples

from peerwatch.errors import UsageError
from peerwatch.sessions.benchmark import LabelledSessions
from peerwatch.sessions.files import SessionEnvelope, check_trees, load_state
from peerwatch.sessions.predictor import SessionModel


def rewritten(path: Path, to: Path, change: Callable[[dict[str, Any], bytes], tuple[dict[str, Any], bytes]]) -> Path:
    """The file with its parts changed and a digest that fits, as somebody who knows the format would write it."""
    with zipfile.ZipFile(path) as archive:
        envelope, held = json.loads(archive.read("envelope.json")), archive.read("model.skops")
    envelope, held = change(envelope, held)
    typed = msgspec.convert({**envelope, "digest": ""}, SessionEnvelope)
    plain = msgspec.json.encode(typed, order="deterministic")
    digest = sha256(sha256(plain).digest() + sha256(held).digest()).hexdigest()
    with zipfile.ZipFile(to, "w") as archive:
        archive.writestr("envelope.json", msgspec.json.encode(msgspec.structs.replace(typed, digest=digest)))
        archive.writestr("model.skops", held)
    return to


def test_a_loaded_model_judges_the_same(model: SessionModel, saved: Path, test: LabelledSessions) -> None:
    """Verdicts, probabilities, reasons, and what it says of itself; saved again it is the same bytes."""
    loaded = SessionModel.load(saved)
    assert loaded.judge(test.raw).results() == model.judge(test.raw).results()
    assert loaded.get_model_info() == model.get_model_info()
    loaded.save(again := saved.with_name("again.skops"))
    assert SessionModel.load(again).judge(test.raw).results() == model.judge(test.raw).results()


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=examples(100))
def test_a_changed_byte_is_refused_or_harmless(saved: Path, place: float, bit: int) -> None:
    """No bit of the file can be flipped so that another model is loaded."""
    whole = bytearray(saved.read_bytes())
    whole[int(place * len(whole))] ^= 1 << bit
    (changed := saved.with_name("changed.skops")).write_bytes(whole)
    with suppress(UsageError):
        assert load_state(changed)[0] == load_state(saved)[0]


def test_a_part_that_was_changed_is_refused(saved: Path, tmp_path: Path) -> None:
    """The digest covers what the model is called as well as what it consists of."""
    with zipfile.ZipFile(saved) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["envelope.json"] = parts["envelope.json"].replace(b'"threshold":"f1"', b'"threshold":"f2"')
    with zipfile.ZipFile(tmp_path / "m", "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(UsageError, match="has been changed or damaged"):
        SessionModel.load(tmp_path / "m")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"version": 2}, "its format is version 2"),
        ({"libraries": {"numpy": "1", "scikit-learn": "1", "skops": "1"}}, "was made with numpy 1, here is"),
        ({"model": "unheard"}, "there is no session model"),
    ],
)
def test_another_version_is_refused(saved: Path, tmp_path: Path, change: dict[str, Any], why: str) -> None:
    """Of the format or a library, even if nothing was changed by accident."""
    made = rewritten(saved, tmp_path / "m.skops", lambda envelope, held: ({**envelope, **change}, held))
    with pytest.raises(UsageError, match=why):
        SessionModel.load(made)


class Strange:
    """Of a type that no model consists of."""

    def __reduce__(self) -> Any:
        """What a pickle would run."""
        raise AssertionError("it was unpickled")


def test_nothing_strange_is_loaded(saved: Path, tmp_path: Path) -> None:
    """An object of another type is named and refused, a pickle is no model."""
    held = skops.io.dumps({"pipeline": np.random.default_rng(1), "typical": np.zeros(1)})
    made = rewritten(saved, tmp_path / "m.skops", lambda envelope, _: (envelope, held))
    with pytest.raises(UsageError, match=r"holds objects of|cannot be loaded"):
        SessionModel.load(made)
    made.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(UsageError, match="is not a session model"):
        SessionModel.load(made)
    with pytest.raises(UsageError, match="not a regular file"):
        SessionModel.load("/dev/zero")
    with pytest.raises(UsageError, match="cannot read the model"):
        SessionModel.load(tmp_path / "absent")


def test_a_branch_that_leads_astray_is_refused(model: SessionModel) -> None:
    """Compiled code follows branches blindly, so they are checked before."""
    state = {"pipeline": skops.io.loads(*_with_trust(model))}
    nodes = state["pipeline"][-1]._predictors[0][0].nodes  # noqa: SLF001 (what is tampered with)
    check_trees(state)
    for field, value in (("left", 0), ("right", 10_000), ("feature_idx", 5_000)):
        kept = nodes[field].copy()
        nodes[field][0] = value
        with pytest.raises(ValueError, match="tree"):
            check_trees(state)
        nodes[field] = kept


def _with_trust(model: SessionModel) -> tuple[bytes, list[str]]:
    held = skops.io.dumps(model.pipeline)
    return held, skops.io.get_untrusted_types(data=held)


def test_models_without_labels_are_saved_as_well(
    train: LabelledSessions, test: LabelledSessions, tmp_path: Path
) -> None:
    """Each kind of model, with and without labels where it can."""
    small = {
        "isolation_forest": {"n_estimators": 10},
        "one_class_svm": {},
        "autoencoder": {"epochs": 5},
        "random_forest": {"n_estimators": 10},
    }
    for name, parameters in small.items():
        label = "label" if name in {"random_forest", "one_class_svm"} else None
        sessions = train.with_label() if label else train.raw
        fitted = SessionModel(model=name, parameters=parameters, own_past=True).fit(sessions, label)
        fitted.save(tmp_path / f"{name}.skops")
        loaded = SessionModel.load(tmp_path / f"{name}.skops")
        assert loaded.judge(test.raw).results() == fitted.judge(test.raw).results()
        alone = [loaded.judge(test.taken(np.arange(400) == row).raw).score[0] for row in range(5)]
        assert alone == fitted.judge(test.raw).score[:5].tolist(), name  # in any batch, bit by bit
