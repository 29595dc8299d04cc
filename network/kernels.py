"""How kernels are compiled, and the selection routine they share.

A kernel is a function over flat arrays that numba turns into machine code. Each declares its signature, so that it is
compiled when its module is imported and never in the middle of live work, and a wrong array type is an error at once.
"""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np
from numba import types
from numpy.typing import NDArray

Int8s = NDArray[np.int8]
Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]
Bytes = NDArray[np.uint8]

i1s: Any = types.int8[::1]
i4s: Any = types.int32[::1]
i8s: Any = types.int64[::1]
u1s: Any = types.uint8[::1]
text: Any = types.Array(types.uint8, 1, "C", readonly=True)
i4: Any = types.int32
i8: Any = types.int64
u8: Any = types.uint64
f8: Any = types.float64
flag: Any = types.boolean
nothing: Any = types.void

F = TypeVar("F", bound=Callable[..., Any])


def use_cache() -> bool:
    """Give the compiled kernels a cache directory of their own that is named after all their sources.

    Returns whether all kernels are in it, so that a start need not compile.

    Numba alone compares each function's own file, not the files of the functions it calls: after an upgrade or an
    edit a stale kernel could go on judging.
    """
    sources = sorted(path for room in ("network", "detectors") for path in _PACKAGE.joinpath(room).glob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    base = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    directory = Path(base, "peerwatch", f"kernels-{digest}")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        warm = (directory / COMPLETE).exists()
    except OSError:
        return False  # numba looks for another place, or `kernel` does without
    numba.config.CACHE_DIR = str(directory)  # type: ignore[attr-defined] # numba makes it at run time
    return warm


def mark_compiled() -> None:
    """Remember that all kernels are in the cache."""
    with suppress(OSError):
        Path(numba.config.CACHE_DIR, COMPLETE).touch()  # type: ignore[attr-defined]


COMPLETE = "complete"
_PACKAGE = Path(__file__).parents[1]
COMPILED = use_cache()
"""Whether the kernels were compiled before this process began."""


def kernel(signature: Any) -> Callable[[F], F]:
    """Compile for `signature` without the interpreter lock, from the cache where the disk allows one.

    A cache that cannot be used in whatever way (a read-only install without a home, a full disk, a damaged file) must
    not stop anything: the kernel is then compiled anew for this process.
    """

    def compile_for(function: F) -> F:
        try:
            compiled: F = numba.njit(signature, cache=True, nogil=True)(function)
        except Exception:  # noqa: BLE001 (what a cache raises is numba's business)
            compiled = numba.njit(signature, nogil=True)(function)
        return compiled

    return compile_for


def grown(array: NDArray[Any], size: int) -> NDArray[Any]:
    """The array itself if it has `size` places, else a copy with at least twice its places, new ones zero."""
    if size <= len(array):
        return array
    larger = np.zeros(max(size, 2 * len(array)), array.dtype)
    larger[: len(array)] = array
    return larger


@kernel(i8(i8s, i8, i8))
def kth_largest(values: Int64s, count: int, k: int) -> int:
    """The k-th largest (from 1) of `values[:count]`, which are reordered.

    Hoare's quickselect (CACM 1961, algorithm 65). The pivot's place comes from a fixed linear congruential sequence:
    the same on every run, and no ordinary input makes it quadratic.
    """
    low, high = 0, count - 1
    target = k - 1
    state = 12345
    while low < high:
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        pivot = values[low + state % (high - low + 1)]
        i, j = low, high
        while i <= j:
            while values[i] > pivot:
                i += 1
            while values[j] < pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if target <= j:
            high = j
        elif target >= i:
            low = i
        else:
            break
    return values[target]  # type: ignore[no-any-return]
