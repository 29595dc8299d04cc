"""What detectors that look at nearest neighbours share."""

from peerwatch.detectors.learned.base import check_whole
from peerwatch.detectors.learned.saved_rows import SavedRows


class Neighbours(SavedRows):
    """A detector that looks at the `neighbours` nearest rows among those that it was fitted on."""

    neighbours: int

    def check(self) -> None:
        """Check the numbers, and that the libraries are installed."""
        super().check()
        check_whole(self.name, 1, neighbours=self.neighbours)
