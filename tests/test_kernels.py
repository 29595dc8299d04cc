"""Which changes of a source make for new machine code: those that can change what it does, and no other."""

import os
import subprocess
import sys
import types
from pathlib import Path

import llvmlite.binding
import pytest
from support import ROOT

from peerwatch import kernels
from peerwatch.kernels import Kernel, key
from peerwatch.network.scanner import scan

SOURCE = '''
import enum
import numpy as np
from peerwatch.kernels import Int32s, Int64s

LIMIT = 7
TABLE = np.array([1, 2, 3])
OTHER = 1


class Kind(enum.IntEnum):
    ONE = 1


def unrelated(x):
    return x + OTHER


def deepest(x):
    return x + 1


def helper(x, step=2):
    """Helps."""
    return deepest(x) * step


def kernel(rows: Int64s, flag: bool) -> int:
    """Count."""
    total = 0
    for row in rows:
        if row < LIMIT and flag:  # small ones
            total += helper(row, 1) + TABLE[0] + Kind.ONE
    return total
'''


def key_of(source: str, module: str = "peerwatch.example") -> str:
    """The key of the kernel in a source."""
    space = types.ModuleType(module).__dict__
    exec(compile(source, f"{module}.py", "exec"), space)  # noqa: S102 (a source is what this is about)
    return key(Kernel(space["kernel"]), "facts")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 7", "LIMIT = 8"), ("LIMIT = 7", "LIMIT = 7.0"), ("[1, 2, 3]", "[1, 2, 4]"),
        ("([1, 2, 3])", "([1, 2, 3], np.int32)"), ("ONE = 1", "ONE = 2"), ("x + 1", "x + 2"), ("x + 1", "x - 1"),
        ("step=2", "step=3"), ("step=2", "*, step=2"), ("rows: Int64s", "rows: Int32s"), ("flag: bool", "flag: int"),
        ("-> int", "-> float"), ("total = 0", "total = 1"), ("row < LIMIT", "row <= LIMIT"),
        ("helper(row, 1)", "deepest(row)"),
        ("LIMIT and flag", "TABLE[1] and flag"), ("def helper", "deepest = unrelated\n\n\ndef helper"),
    ],
)  # fmt: skip
def test_a_change_of_what_a_kernel_does_changes_its_key(old: str, new: str) -> None:
    """Its code, annotations, globals and their types; the code, defaults and globals of whatever it calls."""
    assert old in SOURCE
    assert key_of(SOURCE.replace(old, new)) != key_of(SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  # small ones", "  # those below the limit"), ('"""Count."""', '"""Count the small ones."""'),
        ('"""Helps."""', '"""Helps a lot."""'), ("\nLIMIT", "\n\n\n# the limit\nLIMIT"), ("x + OTHER", "x - OTHER"),
        ("OTHER = 1", "OTHER = 2"), ("def unrelated", "def another(x):\n    return x\n\n\ndef unrelated"),
        ("step=2", "step: int = 2"), ("    return total", "\n    return total"),
    ],
)  # fmt: skip
def test_a_change_of_anything_else_leaves_the_key(old: str, new: str) -> None:
    """Comments, docstrings, lines, functions and globals that it does not use, the annotations of what it calls."""
    assert old in SOURCE
    assert key_of(SOURCE.replace(old, new)) == key_of(SOURCE)


def test_a_moved_file_keeps_its_machine_code() -> None:
    """Neither the module's name nor its path is part of the key."""
    assert key_of(SOURCE, "peerwatch.elsewhere.moved") == key_of(SOURCE)


def test_what_has_no_value_to_tell_is_refused() -> None:
    """Rather than machine code that is out of date: an object, or a constant within a module of ours."""
    for value in ("LIMIT = object()", "LIMIT = {7: 7}", "from peerwatch import kernels as LIMIT"):
        with pytest.raises(TypeError, match="a kernel uses"):
            key_of(SOURCE.replace("LIMIT = 7", value))


def test_the_compiler_and_the_processor_are_part_of_each_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever all machine code depends on changes all keys: versions, the processor, checks, how it is compiled."""
    function: Kernel = scan  # type: ignore[assignment]
    seen = {key(function, kernels.facts())}
    for owner, name, value in (
        (llvmlite, "__version__", "0"), (llvmlite.binding, "get_host_cpu_name", lambda: "abacus"),
        (kernels, "_compile", lambda _: {}), (sys.implementation, "cache_tag", "cpython-2"),
    ):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, value)
            seen.add(key(function, kernels.facts()))
    monkeypatch.setenv("NUMBA_BOUNDSCHECK", "" if os.environ.get("NUMBA_BOUNDSCHECK") else "1")
    seen.add(key(function, kernels.facts()))
    assert len(seen) == 6


def test_keys_are_the_same_in_every_process(tmp_path: Path) -> None:
    """Whatever the order of hashes; each kernel has its own."""
    code = (
        "from peerwatch.runtime import runner; from peerwatch import kernels as k; f = k.facts();"
        "print(*(f'{each.name} {k.key(each, f)}' for each in k.registered), sep='\\n')"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True,
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
        ).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip
    (lines,) = (each.splitlines() for each in printed)
    assert len({line.split()[1] for line in lines}) == len(lines)
    assert {line.split()[0] for line in lines} <= {each.name for each in kernels.registered}
