"""File names as text."""

import os


def shown(path: str | bytes | os.PathLike[str]) -> str:
    """A file's name in a form that every log and terminal takes, even if the name is not UTF-8."""
    return os.fsencode(path).decode(errors="backslashreplace")
