"""File names as text."""

import json
import os


def shown(path: str | bytes | os.PathLike[str]) -> str:
    """A file's name in a form that every log and terminal takes, even if the name is not UTF-8."""
    return os.fsencode(path).decode(errors="backslashreplace")


def readable(user: str) -> str:
    """A user's id as a person can read it: quoted and escaped if it has spaces or what is not printed."""
    plain = user.isprintable() and " " not in user
    return user if plain else json.dumps(user)
