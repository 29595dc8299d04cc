"""Reads YAML config files, keeping the line of each value."""

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from peerwatch.errors import UsageError
from peerwatch.settings.model import RENAMED, Layer, keys


def read_config(path: Path) -> Layer:
    """Read a YAML config file. A key without a value counts as not set.

    Raises:
        UsageError: the file cannot be read, is not YAML, or has an unknown or repeated key.
    """
    try:
        root = yaml.compose(path.read_text(encoding="utf-8-sig"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise UsageError(f"cannot read the config {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: the config is not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(f"{path}:{line}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not valid YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise UsageError(f"{path}: not valid YAML: nested too deeply") from None
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    if root is not None:
        for key, node, origin in _scalars(root, path, ""):
            values[key], origins[key] = node, origin
    return Layer(values, origins)


def _scalars(node: yaml.Node, path: Path, prefix: str) -> Iterator[tuple[str, Any, str]]:
    """Yield the dotted key, value and origin of every setting in a mapping."""
    origin = f"{path}:{node.start_mark.line + 1}"
    if node.tag == "tag:yaml.org,2002:null":
        return
    if not isinstance(node, yaml.MappingNode):
        where = f'"{prefix.removesuffix(".")}"' if prefix else "the config"
        raise UsageError(f"{origin}: {where} must be a mapping of keys to values")
    known = [key for key, _ in keys()]
    sections = {key[:dot] for key in known for dot, sign in enumerate(key) if sign == "."}
    seen = set()
    for key_node, value_node in node.value:
        origin = f"{path}:{key_node.start_mark.line + 1}"
        if not isinstance(key_node, yaml.ScalarNode):
            raise UsageError(f"{origin}: a key must be a word, not a list or a mapping")
        key = f"{prefix}{key_node.value}"
        if key in seen:
            raise UsageError(f'{origin}: the key "{key}" appears twice')
        seen.add(key)
        if key in known:
            value = _construct(value_node, origin, key)
            if value is not None:
                yield key, value, origin
        elif key in RENAMED:
            raise UsageError(f'{origin}: "{key}" is now called "{RENAMED[key]}"; rename it')
        elif key in sections:
            yield from _scalars(value_node, path, f"{key}.")
        else:
            close = {name.lower(): name for name in (*known, *sections)}
            near = difflib.get_close_matches(key.lower(), close, n=1)
            hint = f'did you mean "{close[near[0]]}"?' if near else f"the known keys are {', '.join(known)}"
            raise UsageError(f'{origin}: unknown key "{key}"; {hint}')


def _construct(node: yaml.Node, origin: str, key: str) -> Any:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node, deep=True)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError) as error:
        why = str(error).splitlines() or [type(error).__name__]
        raise UsageError(f'{origin}: the value of "{key}" cannot be read: {why[0]}') from None
    finally:
        loader.dispose()
