"""The exceptions that peerwatch raises.

PeerwatchError
 +- BadEvent        a line is not an event; it is rejected and the run goes on
 +- BadInput        a parameter or value is invalid; also a ValueError
 |   +- TooFewRows      a detector needs more rows
 |   +- NotFitted       a detector is asked before it has been fitted; also an AttributeError
 |   +- NotNumbers      a table holds something else than numbers; also a TypeError
 +- UsageError      the command, the config, a header or a file cannot be used; exit 2, nothing written
 |   +- LeakError       a test would say nothing, because the model has seen its rows or is given its labels
 +- RunError        the run had to stop; exit 1
     +- StrictError     a line was rejected while --strict was set
     +- SourceError     a log became unreadable
     +- SinkError       the output could not be written
     +- Unavailable     a server does not answer; it is tried again for a while
     +- Busy            a service has too much to do; ask again later
     +- WorkerDied      a worker process of a service has ended before it answered

UserWarning
 +- TiedScores      so many rows have the same score that a detector flags far fewer than it was asked to
"""


class PeerwatchError(Exception):
    """The base class. The message is one sentence for the user."""


class BadEvent(PeerwatchError):  # noqa: N818 (the line is bad; the run has no error)
    """A line is not an event. The message is the reason, without file and line."""


class BadInput(PeerwatchError, ValueError):  # noqa: N818 (named for the value that was given)
    """A parameter or value is invalid. The message names it and what is expected."""


class TooFewRows(BadInput):
    """A detector needs more rows than there are."""


class NotFitted(BadInput, AttributeError):  # noqa: N818 (named like the others)
    """A detector is asked before it has been fitted."""


class NotNumbers(BadInput, TypeError):  # noqa: N818 (named like the others)
    """A table holds something else than numbers."""


class UsageError(PeerwatchError):
    """The request cannot be carried out as given. Nothing has been written."""


class Unreachable(UsageError):  # noqa: N818 (it is what the server is, and it may pass)
    """A server does not answer, or another program has the port. Nothing has been written."""

    @classmethod
    def server(cls, name: object, why: object) -> "Unreachable":
        """The error for a server: its name, without secrets, and why it cannot be reached."""
        return cls(f"cannot reach {name}: {why}; start the server, or name another")


class LeakError(UsageError):
    """Training or test data that would make every figure worthless. The message says what leaks."""


class RunError(PeerwatchError):
    """The run could not continue."""


class StrictError(RunError):
    """A line was rejected while `--strict` was set."""


class SourceError(RunError):
    """A log could not be read any further."""


class SinkError(RunError):
    """An output could not be written any further."""


class Unavailable(RunError):  # noqa: N818 (it is what the server is, and it may pass)
    """A server does not answer at present. The text says why, without the server's name.

    `progressed` says that some of what it was given has been done since it failed last; it asks not to be tried again
    before `retry_after` seconds.
    """

    def __init__(self, why: str, *, progressed: bool = False, retry_after: float = 0.0) -> None:
        super().__init__(why)
        self.progressed = progressed
        self.retry_after = retry_after


class Busy(RunError):  # noqa: N818 (it passes)
    """A service has too much to do. The message says when to ask again."""


class WorkerDied(RunError):  # noqa: N818 (the service goes on with another)
    """A worker process has ended before it answered."""


class TiedScores(UserWarning):
    """So many rows have the same score that a detector flags far fewer than it was asked to."""
