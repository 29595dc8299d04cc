"""Learned detectors that are saved as a whole scikit-learn estimator."""

from abc import abstractmethod
from typing import Any, ClassVar
from zipfile import ZIP_DEFLATED

import numpy as np

from peerwatch.detectors.base import Floats
from peerwatch.detectors.learned.base import Arrays, Learned, expect


class SavedEstimator(Learned):
    """A detector that skops saves as a whole: a scikit-learn estimator without a pickle, made of known types only."""

    unlisted: ClassVar[tuple[str, ...]] = ()
    """Types in the estimator that skops does not trust by default."""

    @abstractmethod
    def _made(self) -> Any:
        """The unfitted estimator."""

    @abstractmethod
    def _expect_whole(self, model: Any, columns: int) -> None:
        """Check what compiled code relies on, before it runs on a restored model."""

    def _learn(self, rows: Floats) -> tuple[Any, Floats]:
        model = self._made().fit(rows)
        return model, self._score(model, rows)

    def _score(self, model: Any, rows: Floats) -> Floats:
        return -model.score_samples(rows)  # type: ignore[no-any-return]

    def _kept(self, model: Any) -> Arrays:
        saved = self._module("skops.io").dumps(model, compression=ZIP_DEFLATED)
        return {"model": np.frombuffer(saved, np.uint8)}

    def _revived(self, arrays: Arrays, columns: int) -> Any:
        held, skops = arrays["model"], self._module("skops.io")
        expect(len(arrays) == 1 and held.dtype == np.uint8 and held.ndim == 1, "its model")
        saved = held.tobytes()
        strange = sorted(set(skops.get_untrusted_types(data=saved)) - set(self.unlisted))
        expect(not strange, f"objects of {', '.join(strange)}")
        model, made = skops.loads(saved, trusted=list(self.unlisted)), self._made()
        expect(type(model) is type(made) and model.get_params() == made.get_params(), "another model")
        expect(model.n_features_in_ == columns, "its columns")
        self._expect_whole(model, columns)
        return model
