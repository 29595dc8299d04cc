"""Every exception peerwatch raises on purpose.

PeerwatchError
 +- BadEvent        a line is not an event; it is rejected and the run goes on
 +- BadInput        a detector was given parameters or values that it cannot judge; a ValueError, too
 +- UsageError      the command, the config, a header or a file cannot be used; exit 2, nothing written
 +- RunError        the run had to stop; exit 1
     +- StrictError     a line was rejected while --strict was set
     +- SourceError     a log became unreadable
     +- SinkError       the output could not be written
"""


class PeerwatchError(Exception):
    """The base of the tree; its text is one sentence for a person."""


class BadEvent(PeerwatchError):  # noqa: N818 (it is what the line is, the run has no error)
    """A line is not an event. The text is the reason, without file and line."""


class BadInput(PeerwatchError, ValueError):  # noqa: N818 (it is what was given)
    """What a detector was given cannot be judged. The text says which parameter or value, and what is expected."""


class UsageError(PeerwatchError):
    """What the user asked for cannot be done as asked. Nothing has been written."""


class RunError(PeerwatchError):
    """The run could not go on."""


class StrictError(RunError):
    """A line was rejected and --strict forbids it."""


class SourceError(RunError):
    """A log could not be read any further."""


class SinkError(RunError):
    """An output could not be written any further."""
