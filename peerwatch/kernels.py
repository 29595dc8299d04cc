"""How kernels become machine code.

A kernel is a function over flat arrays and numbers that numba compiles. The machine code is kept in a cache and called
directly, by address: a start with a filled cache never imports numba, which alone takes longer than a small log.
"""

import ctypes
import hashlib
import json
import mmap
import os
import struct
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
_NUMBERS: Final[dict[Any, str]] = {int: "int64", bool: "boolean", float: "float64"}
_NO_BYTES: Final = ctypes.c_char * 0
_PACKAGE: Final = Path(__file__).parent
_COMPILING: Final = 384 << 20
"""Bytes of address space that compiling takes at most."""
_CHECKSUM: Final = hashlib.sha256().digest_size


class Kernel:
    """A function as machine code, without the interpreter lock; call it like the function.

    Arrays must be one-dimensional, contiguous and of the annotated type. The result is an int or None. Plain functions
    that a kernel calls are compiled with it.

    The arguments are handed over as a row of 64-bit places, the first for the result; of an array its address and the
    number of its items.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.name = f"{function.__module__}.{function.__qualname__}"
        self.__doc__ = function.__doc__
        annotations = dict(function.__annotations__)
        result = annotations.pop("return")
        arguments = ", ".join(_ARRAYS[kind][0] if kind in _ARRAYS else _NUMBERS[kind] for kind in annotations.values())
        self.signature = f"{'void' if result is None else _NUMBERS[result]}({arguments})"
        self.kinds = [_ARRAYS[kind][1] if kind in _ARRAYS else kind for kind in annotations.values()]
        """Of each argument the type of the array's items, or that of the number."""
        self._places = ctypes.c_int64 * (1 + sum(1 if kind in _NUMBERS else 2 for kind in annotations.values()))
        self._known: list[tuple[Any, tuple[int, int]]] = [(_NO_BYTES, (0, 0))] * len(self.kinds)
        """Of each argument the last array, and where its items lie."""
        self._code: Any = None
        _kernels.append(self)

    def bind(self, address: int) -> None:
        """Call the machine code at `address` from now on."""
        self._code = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.POINTER(ctypes.c_int64))(address)

    @property
    def is_loaded(self) -> bool:
        """Whether there is machine code to call."""
        return self._code is not None

    def __call__(self, *arguments: Any) -> int:
        """Run the machine code.

        Raises:
            TypeError: an argument is not of its type.
            RuntimeError: the kernel raised something.
        """
        if self._code is None:
            load()
        row: list[int] = [0]
        for argument, kind, (place, known) in zip(arguments, self.kinds, enumerate(self._known), strict=True):
            if argument is known[0]:  # the state's arrays come again with every batch
                row += known[1]
            elif kind is int or kind is bool:
                row.append(argument)
            elif kind is float:
                row += struct.unpack("q", struct.pack("d", argument))
            elif argument.dtype == kind and argument.ndim == 1:
                where = _address(argument), len(argument)
                self._known[place] = argument, where
                row += where
            else:
                raise TypeError(f"{self.name} wants a row of {kind}, not {argument.ndim} axes of {argument.dtype}")
        places = self._places(*row)
        if self._code(places) != 0:
            raise RuntimeError(f"{self.name} failed")
        result: int = places[0]
        return result


def _address(array: NDArray[Any]) -> int:
    """Where the items lie.

    Raises:
        TypeError: they do not lie in one row.
    """
    try:
        return ctypes.addressof(_NO_BYTES.from_buffer(array))  # type: ignore[arg-type] # an array is a buffer
    except (TypeError, ValueError):  # read-only, empty or not contiguous
        if not array.flags.c_contiguous:
            raise TypeError("the items of an array do not lie one behind the other") from None
        address: int = array.__array_interface__["data"][0]
        return address


def kernel(function: F) -> F:
    """Make a kernel of a function; its annotations are its signature."""
    return Kernel(function)  # type: ignore[return-value] # called like the function


_kernels: list[Kernel] = []
_engines: list[Any] = []


def load(compiling: Callable[[], None] = lambda: None, uncached: Callable[[str, str], None] = lambda *_: None) -> None:
    """Load the machine code of all kernels made so far; tell and compile what is not in the cache.

    A cache that cannot be used in whatever way (a read-only install without a home, a full disk, a damaged file) must
    not stop anything: the kernels are then compiled for this process alone. `uncached` is told of a cache that cannot
    be written: where it would be, and why not.

    Raises:
        MemoryError: there is not enough to compile.
    """
    missing = [each for each in _kernels if not each.is_loaded]
    if not missing:
        return
    objects = _read_cache()
    unknown = [each for each in missing if each.name not in objects]
    if unknown:
        compiling()
        objects |= _compile(unknown)
        write_cache(objects, uncached)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target_machine())
    for each in missing:
        for code in objects[each.name]:
            engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _engines.append(engine)  # it owns the memory the code lies in
    for each in missing:
        each.bind(engine.get_function_address(each.name))


Objects = dict[str, tuple[bytes, bytes]]
"""Of each kernel, by name: the object file with its code, and the one with the entry that has its name."""


def _compile(kernels: Iterable[Kernel]) -> Objects:
    _check_room()
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
        code = result.library._get_compiled_object()  # noqa: SLF001
        objects[each.name] = code, _compile_entry(each, result.fndesc.llvm_func_name)
    return objects


def _check_room() -> None:
    """See that there is room for compiling: the compiler ends the process, or hangs, if it runs out of it.

    Raises:
        MemoryError: there is none.
    """
    try:
        mmap.mmap(-1, _COMPILING, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=0).close()
    except OSError:
        raise MemoryError from None


def _compile_entry(kernel: Kernel, symbol: str) -> bytes:
    """An object file with a function of the kernel's name that takes a row of arguments and calls the kernel with them.

    Machine code is called as numba's own wrapper calls it (numba/core/callconv.py, CPUCallConv, and datamodel.py,
    ArrayModel): pointers to the result and to an exception, then each array as (memory info, parent, number of items,
    bytes an item, data, shape, strides); the status is 0 unless something was raised.
    """
    from llvmlite import ir  # noqa: PLC0415

    word, pointer = ir.IntType(64), ir.IntType(64).as_pointer()
    module = ir.Module()
    module.triple = llvm.get_process_triple()
    entry = ir.Function(module, ir.FunctionType(ir.IntType(32), [pointer]), kernel.name)
    builder = ir.IRBuilder(entry.append_basic_block())
    passed: list[Any] = [entry.args[0], builder.alloca(pointer)]
    place = 0

    def following() -> Any:
        nonlocal place
        place += 1
        return builder.load(builder.gep(entry.args[0], [word(place)]))

    for kind in kernel.kinds:
        if kind is int:
            passed.append(following())
        elif kind is bool:
            passed.append(builder.trunc(following(), ir.IntType(8)))
        elif kind is float:
            passed.append(builder.bitcast(following(), ir.DoubleType()))
        else:
            data, items = builder.inttoptr(following(), pointer), following()
            null, width = pointer(None), word(kind.itemsize)
            passed += null, null, items, width, data, items, width
    called = ir.Function(module, ir.FunctionType(ir.IntType(32), [each.type for each in passed]), symbol)
    builder.ret(builder.call(called, passed))
    code: bytes = _target_machine().emit_object(llvm.parse_assembly(str(module)))
    return code


def _target_machine() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(jit=True)


def _checks_bounds() -> str:
    return os.environ.get("NUMBA_BOUNDSCHECK", "")  # numba's own switch, for tests


def cache_file() -> Path:
    """Named after everything the machine code depends on: all sources, the compiler's versions, the processor."""
    sources = sorted(path for room in (".", "network", "judging") for path in _PACKAGE.joinpath(room).glob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources))
    numba_version = Path(llvmlite.__file__).parents[1] / "numba" / "_version.py"
    with suppress(OSError):
        digest.update(numba_version.read_bytes())
    facts = llvmlite.__version__, llvm.get_process_triple(), llvm.get_host_cpu_name(), _checks_bounds()
    digest.update(" ".join(facts).encode())
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
                return {name: (code[begin:middle], code[middle:end]) for name, begin, middle, end in json.loads(listed)}
    return {}


def write_cache(objects: Objects, uncached: Callable[[str, str], None]) -> None:
    """Keep machine code for other processes, all of it or nothing; `uncached` hears where and why it cannot be."""
    listed, code = [], b""
    for name, (kernel_code, entry) in sorted(objects.items()):
        begin, middle = len(code), len(code) + len(kernel_code)
        listed.append((name, begin, middle, middle + len(entry)))
        code += kernel_code + entry
    content = json.dumps(listed).encode() + b"\n" + code
    try:
        path = cache_file()
    except RuntimeError:
        uncached("~", "there is no home directory")
        return
    new = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_bytes(hashlib.sha256(content).digest() + content)
        new.replace(path)
    except OSError as error:
        with suppress(OSError):
            new.unlink()
        uncached(os.fsencode(path.parent).decode(errors="backslashreplace"), error.strerror or str(error))


def grown(array: NDArray[Any], size: int) -> NDArray[Any]:
    """The array itself if it has `size` places, else a copy with at least twice its places, new ones zero."""
    if size <= len(array):
        return array
    larger = np.zeros(max(size, 2 * len(array)), array.dtype)
    larger[: len(array)] = array
    return larger
