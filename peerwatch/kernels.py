"""Compiles kernels to machine code and caches it.

A kernel is a function over flat arrays and numbers that numba compiles. The cached machine code is called directly, by
address. So a start with a filled cache never imports numba, which alone takes longer than judging a small log.

The cache has one file for each kernel. Its name is a digest of everything the machine code depends on: the code of the
kernel and of the functions that it calls, the global values that they use, the compiler and the processor.
"""

import ctypes
import hashlib
import mmap
import os
import struct
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import EnumType
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeGuard, TypeVar

import llvmlite
import llvmlite.binding as llvm
import numpy as np
from numpy.typing import NDArray

Int8s = NDArray[np.int8]
Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Float64s = NDArray[np.float64]

F = TypeVar("F", bound=Callable[..., Any])

_ARRAYS: Final[dict[Any, tuple[str, Any]]] = {
    Int8s: ("int8[::1]", np.dtype(np.int8)),
    Int32s: ("int32[::1]", np.dtype(np.int32)),
    Int64s: ("int64[::1]", np.dtype(np.int64)),
    Bytes: ("uint8[::1]", np.dtype(np.uint8)),
    Float64s: ("float64[::1]", np.dtype(np.float64)),
}
_NUMBERS: Final[dict[Any, str]] = {int: "int64", bool: "boolean", float: "float64"}
_NO_BYTES: Final = ctypes.c_char * 0
_COMPILING: Final = 384 << 20
"""Address space, in bytes, that compiling needs at most."""
_CHECKSUM: Final = hashlib.sha256().digest_size
_PLAIN: Final = (int, float, complex, str, bytes, type(None), type(...))
_LENGTH: Final = struct.Struct("<Q")


class Kernel:
    """A function compiled to machine code, which runs without the interpreter lock. Call it like the function.

    Arrays must be one-dimensional, contiguous and of the annotated type. The result is an int or None. Plain functions
    that a kernel calls are compiled with it.

    Arguments are passed as a row of 64-bit slots, of which the first takes the result. An array takes two: its address
    and its number of items.
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
        """For each argument, the dtype of the array's items or the type of the number."""
        self._places = ctypes.c_int64 * (1 + sum(1 if kind in _NUMBERS else 2 for kind in annotations.values()))
        self._known: list[tuple[Any, tuple[int, int]]] = [(_NO_BYTES, (0, 0))] * len(self.kinds)
        """For each argument, the last array passed, with its address and length."""
        self._code: Any = None

    def bind(self, address: int) -> None:
        """Call the machine code at `address` from now on."""
        self._code = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.POINTER(ctypes.c_int64))(address)

    @property
    def is_loaded(self) -> bool:
        """Whether the machine code is loaded."""
        return self._code is not None

    def __call__(self, *arguments: Any) -> int:
        """Run the machine code, loading all kernels first if necessary.

        Raises:
            TypeError: an argument has the wrong type.
            RuntimeError: the kernel raised an exception.
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
    """Return the address of an array's items.

    Raises:
        TypeError: the array is not contiguous.
    """
    try:
        return ctypes.addressof(_NO_BYTES.from_buffer(array))  # type: ignore[arg-type] # an array is a buffer
    except (TypeError, ValueError):  # read-only, empty or not contiguous
        if not array.flags.c_contiguous:
            raise TypeError("the items of an array do not lie one behind the other") from None
        address: int = array.__array_interface__["data"][0]
        return address


def kernel(function: F) -> F:
    """Make a function a kernel. Its annotations are its signature."""
    made = Kernel(function)
    registered.append(made)
    return made  # type: ignore[return-value] # called like the function


registered: list[Kernel] = []
"""All kernels of the modules imported so far."""
_engines: list[Any] = []


def load(compiling: Callable[[], None] = lambda: None, uncached: Callable[[str, str], None] = lambda *_: None) -> None:
    """Load the machine code of all registered kernels, compiling those that are not in the cache.

    `compiling` is called before anything is compiled. If the cache cannot be used (a read-only install without a home
    directory, a full disk, a damaged file), the kernels are compiled for this process only. If it cannot be written,
    `uncached` is called with its path and the reason.

    Raises:
        MemoryError: there is too little memory to compile.
    """
    missing = [each for each in registered if not each.is_loaded]
    if not missing:
        return
    common = facts()
    keys = {each: key(each, common) for each in missing}
    objects = _read_cache(keys.values())
    unknown = {name: each for each, name in keys.items() if name not in objects}
    if unknown:
        compiling()
        compiled = _compile(unknown)
        write_cache(compiled, uncached)
        objects |= compiled
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target_machine())
    for pair in objects.values():
        for code in pair:
            engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _engines.append(engine)  # it owns the memory the code lies in
    for each, name in keys.items():
        each.bind(engine.get_function_address(name))


Objects = dict[str, tuple[bytes, bytes]]
"""For each kernel, by key: the object file with its code, and the one with its entry point, which is named like the
key."""


def _compile(kernels: Mapping[str, Kernel]) -> Objects:
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
            if _is_ours(called):
                if called not in made:
                    made[called] = dispatcher(called)
                known[name] = made[called]
        return numba.njit(**options)(types.FunctionType(function.__code__, known, function.__name__))

    objects: Objects = {}
    for name, each in kernels.items():
        entry = dispatcher(each.function)  # type: ignore[arg-type]
        entry.compile(each.signature)
        (result,) = entry.overloads.values()
        code = result.library._get_compiled_object()  # noqa: SLF001
        objects[name] = code, _compile_entry(name, each.kinds, result.fndesc.llvm_func_name)
    return objects


def _check_room() -> None:
    """Check that there is enough memory to compile: without it the compiler ends the process, or hangs.

    Raises:
        MemoryError: there is not.
    """
    try:
        mmap.mmap(-1, _COMPILING, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=0).close()
    except OSError:
        raise MemoryError from None


def _compile_entry(name: str, kinds: Sequence[Any], symbol: str) -> bytes:
    """An object file with a function `name` that takes a row of arguments and calls the kernel at `symbol` with them.

    Machine code is called as numba's own wrapper calls it (numba/core/callconv.py, CPUCallConv, and datamodel.py,
    ArrayModel): pointers to the result and to an exception, then each array as (memory info, parent, number of items,
    bytes an item, data, shape, strides); the status is 0 unless something was raised.
    """
    from llvmlite import ir  # noqa: PLC0415

    word, pointer = ir.IntType(64), ir.IntType(64).as_pointer()
    module = ir.Module()
    module.triple = llvm.get_process_triple()
    entry = ir.Function(module, ir.FunctionType(ir.IntType(32), [pointer]), name)
    builder = ir.IRBuilder(entry.append_basic_block())
    passed: list[Any] = [entry.args[0], builder.alloca(pointer)]
    place = 0

    def following() -> Any:
        nonlocal place
        place += 1
        return builder.load(builder.gep(entry.args[0], [word(place)]))

    for kind in kinds:
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


def _is_ours(value: Any) -> TypeGuard[types.FunctionType]:
    """Whether a value is a function of peerwatch, which is compiled along with the kernels that call it."""
    return isinstance(value, types.FunctionType) and value.__module__.startswith("peerwatch.")


def key(kernel: Kernel, common: str) -> str:
    """Return the name of a kernel's machine code: a digest of everything that it depends on.

    That is `common` (the result of `facts`, which applies to all kernels), the kernel's signature, its code, and the
    code of all functions that it calls, directly or indirectly, with their defaults and the global values that they
    use. Comments, docstrings, line numbers and module names are left out.

    Raises:
        TypeError: a function uses a global value that cannot be part of a digest.
    """
    numbers: dict[Any, int] = {kernel.function: 0}
    functions: list[Any] = [kernel.function]
    text = common + kernel.signature
    for function in functions:  # grows on the way
        digest, called = _described(function)
        text += digest
        for each in called:
            if each not in numbers:
                numbers[each] = len(functions)
                functions.append(each)
            text += f" {numbers[each]}"
    return f"kernel-{_digest(text)[:32]}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def facts() -> str:
    """Return a digest of what all machine code depends on: the compiler and its use, Python's version, the CPU."""
    numba_version = b""
    with suppress(OSError):
        numba_version = Path(llvmlite.__file__).parents[1].joinpath("numba", "_version.py").read_bytes()
    return _digest(repr((
        numba_version, llvmlite.__version__, sys.implementation.cache_tag, llvm.get_process_triple(),
        llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten(), _checks_bounds(),
        *(_code_text(each.__code__, each.__doc__) for each in (_compile, _compile_entry, _target_machine)),
    )))  # fmt: skip


@cache
def _described(function: types.FunctionType) -> tuple[str, list[types.FunctionType]]:
    """Return a digest of a function's code, defaults and global values, and the functions that it calls."""
    defaults = function.__defaults__ or (), tuple((function.__kwdefaults__ or {}).items())
    texts, called = [_code_text(function.__code__, function.__doc__), _value_text(defaults)], []
    for name in dict.fromkeys(_names(function.__code__)):
        if name in function.__globals__:
            value = function.__globals__[name]
            value = value.function if isinstance(value, Kernel) else value
            if _is_ours(value):
                texts.append(name)
                called.append(value)
            else:
                texts.append(f"{name} {_value_text(value)}")
    return _digest(repr(texts)), called


def _names(code: types.CodeType) -> Iterator[str]:
    """Yield the names that code looks up, as globals or as attributes."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _code_text(code: types.CodeType, docstring: str | None = None) -> str:
    """Return the parts of a code object that decide what it does, as text."""
    first, *others = code.co_consts or (None,)
    constants = [None if first == docstring else first, *others]  # a docstring is the first one
    return repr((
        code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags, code.co_code.hex(),
        [_value_text(each) for each in constants], code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars,
        code.co_exceptiontable,
    ))  # fmt: skip


def _value_text(value: Any) -> str:
    """Return a value as text that is the same in every process, and differs for different values.

    Raises:
        TypeError: there is no such text.
    """
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(_value_text, value))})"
    if isinstance(value, frozenset):
        return f"{{{', '.join(sorted(map(_value_text, value)))}}}"
    if isinstance(value, types.CodeType):
        return _code_text(value)
    if isinstance(value, np.ndarray):
        return f"{value.dtype.str} {value.shape} {value.tobytes()!r}"
    if isinstance(value, EnumType):
        members: Mapping[str, Any] = value.__members__
        return repr([(name, member.value) for name, member in members.items()])
    if isinstance(value, types.ModuleType) and not value.__name__.startswith("peerwatch."):
        return value.__name__  # one of those that numba knows
    raise TypeError(f"a kernel uses {value!r}: name the number or function itself, at the top of its module")


def cache_directory() -> Path:
    """Return the directory of the cache.

    Raises:
        RuntimeError: there is no home directory.
    """
    base = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(base, "peerwatch")


def _read_cache(names: Iterable[str]) -> Objects:
    """Read the named kernels from the cache. Missing, damaged or other users' files are left out."""
    objects: Objects = {}
    with suppress(RuntimeError):
        directory = cache_directory()
        for name in names:
            with suppress(OSError), Path(directory, name).open("rb", buffering=0) as file:
                if os.fstat(file.fileno()).st_uid in {0, os.geteuid()}:
                    content = file.read()
                    checksum, content = content[:_CHECKSUM], content[_CHECKSUM:]
                    if hashlib.sha256(content).digest() == checksum:
                        end = _LENGTH.size + _LENGTH.unpack_from(content)[0]
                        objects[name] = content[_LENGTH.size : end], content[end:]
    return objects


def write_cache(objects: Objects, uncached: Callable[[str, str], None]) -> None:
    """Write machine code to the cache, each kernel completely or not at all.

    If that fails, `uncached` is called with the path and the reason.
    """
    try:
        directory = cache_directory()
    except RuntimeError:
        uncached("~", "there is no home directory")
        return
    for name, (code, entry) in objects.items():
        content = _LENGTH.pack(len(code)) + code + entry
        new = directory / f"{name}.{os.getpid()}"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            new.write_bytes(hashlib.sha256(content).digest() + content)
            new.replace(directory / name)
        except OSError as error:
            with suppress(OSError):
                new.unlink()
            uncached(os.fsencode(directory).decode(errors="backslashreplace"), error.strerror or str(error))
            return


def grown(array: NDArray[Any], size: int) -> NDArray[Any]:
    """Return the array if it has `size` items, else a copy at least twice as long, filled up with zeros."""
    if size <= len(array):
        return array
    larger = np.zeros(max(size, 2 * len(array)), array.dtype)
    larger[: len(array)] = array
    return larger
