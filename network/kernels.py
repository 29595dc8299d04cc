"""How kernels become machine code.

A kernel is a function over flat arrays and numbers that numba compiles. The machine code is kept in a cache and called
directly, by address: a start with a filled cache never imports numba, which alone takes longer than a small log.
"""

import ctypes
import hashlib
import json
import os
import types
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import llvmlite
import llvmlite.binding as llvm
import numpy as np
from numpy.typing import NDArray

Int8s = NDArray[np.int8]
Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]
Bytes = NDArray[np.uint8]

F = TypeVar("F", bound=Callable[..., Any])

_ARRAYS: Final[dict[Any, tuple[str, Any]]] = {
    Int8s: ("int8[::1]", np.dtype(np.int8)),
    Int32s: ("int32[::1]", np.dtype(np.int32)),
    Int64s: ("int64[::1]", np.dtype(np.int64)),
    Bytes: ("uint8[::1]", np.dtype(np.uint8)),
}
_NUMBERS: Final[dict[Any, tuple[str, Any]]] = {
    int: ("int64", ctypes.c_int64),
    float: ("float64", ctypes.c_double),
    bool: ("boolean", ctypes.c_bool),
}
_NULL: Final = ctypes.c_void_p(None)
_NO_BYTES: Final = ctypes.c_char * 0
_PACKAGE: Final = Path(__file__).parents[1]
_CHECKSUM: Final = hashlib.sha256().digest_size


class Kernel:
    """A function as machine code, without the interpreter lock; call it like the function.

    Arrays must be one-dimensional, contiguous and of the annotated type. The result is an int or None. Plain functions
    that a kernel calls are compiled with it.

    Machine code is called as numba's own wrapper calls it (numba/core/callconv.py, CPUCallConv, and datamodel.py,
    ArrayModel): pointers to the result and to an exception, then each array as (memory info, parent, number of items,
    bytes an item, data, shape, strides); the status is 0 unless something was raised.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.name = f"{function.__module__}.{function.__qualname__}"
        self.__doc__ = function.__doc__
        annotations = dict(function.__annotations__)
        result = annotations.pop("return")
        arguments = ", ".join((_ARRAYS.get(kind) or _NUMBERS[kind])[0] for kind in annotations.values())
        self.signature = f"{'void' if result is None else _NUMBERS[result][0]}({arguments})"
        self._kinds = [(_ARRAYS[kind][1], None) if kind in _ARRAYS else (None, _NUMBERS[kind][1])
                       for kind in annotations.values()]  # fmt: skip
        self._boxed: list[tuple[Any, tuple[Any, ...]]] = [(None, ())] * len(self._kinds)
        self._code: Any = None
        _kernels.append(self)

    def bind(self, address: int) -> None:
        """Call the machine code at `address` from now on."""
        self._code = ctypes.CFUNCTYPE(ctypes.c_int32)(address)

    @property
    def is_loaded(self) -> bool:
        """Whether there is machine code to call."""
        return self._code is not None

    def __call__(self, *arguments: Any) -> int | None:
        """Run the machine code.

        Raises:
            TypeError: an argument is not of its type.
            RuntimeError: the kernel raised something.
        """
        if self._code is None:
            load()
        result = ctypes.c_int64()
        passed = [ctypes.byref(result), _NULL]
        for place, (argument, (array, number)) in enumerate(zip(arguments, self._kinds, strict=True)):
            if number is not None:
                passed.append(number(argument))
                continue
            known, boxed = self._boxed[place]
            if known is not argument:
                if argument.dtype != array or not argument.flags.c_contiguous or argument.ndim != 1:
                    raise TypeError(f"{self.name}: argument {place + 1} is not a contiguous array of {array}")
                boxed = _box(argument)
                self._boxed[place] = argument, boxed  # the state's arrays come again with every batch
            passed.extend(boxed)
        if self._code(*passed) != 0:
            raise RuntimeError(f"{self.name} failed")
        return result.value


def _box(array: NDArray[Any]) -> tuple[Any, ...]:
    if array.flags.writeable and array.size:
        address = ctypes.addressof(_NO_BYTES.from_buffer(array))  # type: ignore[arg-type] # an array is a buffer
    else:
        address = array.__array_interface__["data"][0]
    length, width = ctypes.c_int64(array.size), ctypes.c_int64(array.itemsize)
    return _NULL, _NULL, length, width, ctypes.c_void_p(address), length, width


def kernel(function: F) -> F:
    """Make a kernel of a function; its annotations are its signature."""
    return Kernel(function)  # type: ignore[return-value] # called like the function


_kernels: list[Kernel] = []
_engines: list[Any] = []


def load(compiling: Callable[[], None] = lambda: None) -> None:
    """Load the machine code of all kernels made so far; tell and compile what is not in the cache.

    A cache that cannot be used in whatever way (a read-only install without a home, a full disk, a damaged file) must
    not stop anything: the kernels are then compiled for this process alone.
    """
    missing = [each for each in _kernels if not each.is_loaded]
    if not missing:
        return
    objects = _read_cache()
    unknown = [each for each in missing if each.name not in objects]
    if unknown:
        compiling()
        objects |= _compile(unknown)
        _write_cache(objects)
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    for each in missing:
        engine.add_object_file(llvm.ObjectFileRef.from_data(objects[each.name][1]))
    engine.finalize_object()
    _engines.append(engine)  # it owns the memory the code lies in
    for each in missing:
        each.bind(engine.get_function_address(objects[each.name][0]))


Objects = dict[str, tuple[str, bytes]]
"""Of each kernel, by name: the symbol to call and the object file with it."""


def _compile(kernels: Iterable[Kernel]) -> Objects:
    import numba  # noqa: PLC0415 (half a second, for nothing if the cache is filled)

    options: dict[str, Any] = {"nogil": True, "_nrt": False, "error_model": "numpy", "no_cpython_wrapper": True,
               "no_cfunc_wrapper": True}  # fmt: skip
    made: dict[Any, Any] = {}

    def dispatcher(function: types.FunctionType) -> Any:
        """As numba wants it: the functions of ours that it calls are replaced by their dispatchers."""
        known = {**function.__globals__}
        for name in function.__code__.co_names:
            called = known.get(name)
            called = called.function if isinstance(called, Kernel) else called
            if isinstance(called, types.FunctionType) and called.__module__.startswith("peerwatch."):
                if called not in made:
                    made[called] = dispatcher(called)
                known[name] = made[called]
        return numba.njit(**options)(types.FunctionType(function.__code__, known, function.__name__))

    objects: Objects = {}
    for each in kernels:
        entry = dispatcher(each.function)  # type: ignore[arg-type]
        entry.compile(each.signature)
        (result,) = entry.overloads.values()
        objects[each.name] = result.fndesc.llvm_func_name, result.library._get_compiled_object()  # noqa: SLF001
    return objects


def cache_file() -> Path:
    """Named after everything the machine code depends on: all sources, the compiler's versions, the processor."""
    sources = sorted(path for room in ("network", "detectors") for path in _PACKAGE.joinpath(room).glob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources))
    numba_version = Path(llvmlite.__file__).parents[1] / "numba" / "_version.py"
    with suppress(OSError):
        digest.update(numba_version.read_bytes())
    for fact in (llvmlite.__version__, llvm.get_process_triple(), llvm.get_host_cpu_name()):
        digest.update(fact.encode())
    digest.update(llvm.get_host_cpu_features().flatten().encode())
    base = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(base, "peerwatch", f"kernels-{digest.hexdigest()[:16]}")


def _read_cache() -> Objects:
    """What the cache holds; nothing if it is absent, damaged or somebody else's."""
    with suppress(OSError, RuntimeError):
        path = cache_file()
        if path.stat().st_uid in {0, os.geteuid()}:
            content = path.read_bytes()
            checksum, content = content[:_CHECKSUM], content[_CHECKSUM:]
            if hashlib.sha256(content).digest() == checksum:
                listed, _, code = content.partition(b"\n")
                return {name: (symbol, code[begin:end]) for name, symbol, begin, end in json.loads(listed)}
    return {}


def _write_cache(objects: Objects) -> None:
    listed, code = [], b""
    for name, (symbol, each) in sorted(objects.items()):
        listed.append((name, symbol, len(code), len(code) + len(each)))
        code += each
    content = json.dumps(listed).encode() + b"\n" + code
    with suppress(OSError, RuntimeError):
        path = cache_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f"{path.name}.{os.getpid()}")
        new.write_bytes(hashlib.sha256(content).digest() + content)
        new.replace(path)


def grown(array: NDArray[Any], size: int) -> NDArray[Any]:
    """The array itself if it has `size` places, else a copy with at least twice its places, new ones zero."""
    if size <= len(array):
        return array
    larger = np.zeros(max(size, 2 * len(array)), array.dtype)
    larger[: len(array)] = array
    return larger
