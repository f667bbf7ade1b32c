"""Pickles read as data: numbers, texts, lists, tuples, dicts and numpy arrays, and nothing that runs.

A pickle is a program for a small machine, and one of its instructions calls any function by name. The machine here is
our own, and knows no such instruction: what is asked to be called is compared with the handful of names by which numpy
(old and new) writes an array, and those are not called either; the array is made from the bytes. Everything else is
refused. Work and memory grow with the file's size alone: each instruction costs the same, whatever it repeats, and a
value is never walked through, printed or compared here, as a few bytes can nest it into one of endless size.
"""

import pickletools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from data_tools.errors import DataError
from data_tools.impostor import check_genuine

# MMSA's largest file, CMU-MOSEI without alignment, has 12 GB; its lists and texts take some hundred thousand
# instructions. What one of them makes has up to a hundred bytes, beside what is in the file.
MAX_BYTES = 2**35
MAX_INSTRUCTIONS = 5_000_000
MAX_DIMENSIONS = 8
_KINDS = "biufUS"
# Of one Python list without items.
_LIST_BYTES = 64


class _RefusedError(ValueError):
    """A pickle that asks for something else than plain data."""


class _Mark:
    """A place on the stack, to which a later instruction goes back."""


@dataclass(frozen=True)
class _Name:
    """One of the names in _KNOWN; it stands for what numpy calls there."""

    name: str


@dataclass
class _DType:
    """A dtype: its code, and the byte order that BUILD may give it. code: such as f4, U12 or O8."""

    code: str
    order: str = "<"

    def numpy(self) -> np.dtype[Any]:
        """The dtype; only numbers and texts of a fixed size, and O, which stands for a list."""
        if self.code[:1] == "O":
            return np.dtype(object)
        if self.code[:1] not in _KINDS or not self.code[1:].isdecimal() or len(self.code) > 10:
            raise _RefusedError(f"an array of {self.code!r}")
        dtype = np.dtype(("" if self.order == "|" else self.order) + self.code)
        if not dtype.itemsize:
            raise _RefusedError("an array of items without size")
        return dtype


@dataclass
class _Array:
    """An array before and after BUILD gave it its content."""

    value: np.ndarray[Any, Any] | list[Any] | None = None


_MODULES = {"numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric"}
_KNOWN = {(module, name) for module in _MODULES for name in ("_reconstruct", "scalar", "_frombuffer")} | {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    # How bytes are written in protocols before 3; empty ones are bytes().
    ("_codecs", "encode"),
    ("__builtin__", "bytes"),
}


def read_plain_pickle(path: Path) -> Any:
    """The content of a pickle that holds plain data alone, of any protocol from 0 to 5.

    Numbers, texts and bytes, None, lists, tuples, dicts with texts or whole numbers as keys, and numpy arrays of
    numbers or texts; an array of objects comes as a list of its items. Sharing is kept, so a value may be in several
    places, or in itself: walk through what you expect only.

    Raises:
        DataError: no such file, more than MAX_BYTES, damaged, or it asks for anything else; says what and where.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise DataError(f"{path} has {size} bytes, more than the {MAX_BYTES} that a file of features may have")
        check_genuine(path)
        with path.open("rb") as file:
            return _Machine(_Bounded(file, size), size).run()
    except _RefusedError as error:
        raise DataError(
            f"{path} holds {error}: only numpy arrays and plain containers are read from a pickle"
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, EOFError, MemoryError) as error:
        raise DataError(f"{path} is no pickle, or a damaged one ({type(error).__name__}: {error!s:.200})") from None


class _Bounded:
    """A file whose reads never ask for more than it has: a damaged length is an end, not an allocation."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file = file
        self.size = size

    def read(self, count: int) -> bytes:
        """`count` bytes, or fewer at the end."""
        return self.file.read(max(0, min(count, self.size - self.file.tell())))

    def readline(self) -> bytes:
        """Up to the next line end."""
        return self.file.readline()

    def tell(self) -> int:
        """The place of the next byte."""
        return self.file.tell()


class _Machine:
    """Stack and memo, and one method for each instruction that is needed for plain data."""

    def __init__(self, file: _Bounded, size: int) -> None:
        self.file = file
        # Bytes that instructions may make anew of what is in the file: texts into bytes, lists into arrays.
        self.budget = 4 * size + 4096
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Value that the instructions leave when they stop."""
        instructions = pickletools.genops(cast(BinaryIO, self.file))
        for number, (opcode, argument, position) in enumerate(instructions):
            if number >= MAX_INSTRUCTIONS:
                raise _RefusedError(f"more than {MAX_INSTRUCTIONS} instructions")
            if opcode.name == "STOP":
                result = self.pop()
                if self.stack:
                    raise ValueError("values are left over")
                return _content(result)
            if opcode.name in _LITERALS:
                self.stack.append(argument)
            elif opcode.name in _ACTIONS:
                _ACTIONS[opcode.name](self, argument)
            elif opcode.name not in _WITHOUT_EFFECT:
                raise _RefusedError(f"the instruction {opcode.name} at byte {position}")
        raise EOFError("it has no end")

    def pop(self) -> Any:
        """The topmost value."""
        value = self.stack.pop()
        if value is _Mark:
            raise IndexError("a mark in place of a value")
        return value

    def pop_marked(self) -> list[Any]:
        """The values down to the last mark, which goes too."""
        at = len(self.stack) - 1
        while self.stack[at] is not _Mark:
            at -= 1
            if at < 0:
                raise IndexError("no mark")
        values = self.stack[at + 1 :]
        del self.stack[at:]
        return values

    def spend(self, count: int) -> None:
        """Refuse to make more of a file than a multiple of it."""
        self.budget -= count
        if self.budget < 0:
            raise _RefusedError("contents that are far larger than the file")

    def extend(self, values: list[Any]) -> None:
        """Put `values` at the end of the list on the stack."""
        target = self.stack[-1]
        if type(target) is not list:
            raise TypeError(f"items for a {type(target).__name__}")
        target.extend(map(_content, values))

    def update(self, values: list[Any]) -> None:
        """Put the keys and values into the dict on the stack."""
        target = self.stack[-1]
        if type(target) is not dict or len(values) % 2:
            raise TypeError(f"keys and values for a {type(target).__name__}")
        target.update(zip(map(_key, values[::2]), map(_content, values[1::2]), strict=True))

    def name(self, module: Any, name: Any) -> None:
        """Put a name on the stack, where it is one of numpy's for arrays."""
        if type(module) is not str or type(name) is not str:
            raise TypeError("a name that is no text")
        if (module, name) not in _KNOWN:
            raise _RefusedError(f"the name {module:.100}.{name:.100}")
        self.stack.append(_Name(name))

    def call(self) -> None:
        """Put the result of numpy's function on the stack, made here from its arguments."""
        arguments, function = self.pop(), self.pop()
        if type(function) is not _Name or type(arguments) is not tuple:
            raise _RefusedError("a call of something that is no function of numpy")
        self.stack.append(_CALLS[function.name](self, *arguments))

    def build(self) -> None:
        """Give a dtype its byte order, or an array its shape and bytes."""
        state, target = self.pop(), self.stack[-1]
        if type(target) is _DType and type(state) is tuple:
            # (version, order, subarray, names, fields, itemsize, alignment, flags); only plain kinds have Nones there.
            if state[1] not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
                raise _RefusedError("an array of records")
            target.order = state[1]
        elif type(target) is _Array and type(state) is tuple and target.value is None:
            _, shape, dtype, by_columns, content = state
            target.value = self.array(content, dtype, shape, "F" if by_columns else "C")
        else:
            raise _RefusedError(f"a state for a {type(target).__name__}")

    def array(self, content: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray[Any, Any] | list[Any]:
        """An array that shares the bytes; one of objects as a list of them."""
        if type(dtype) is not _DType or type(shape) is not tuple or order not in ("C", "F"):
            raise TypeError("an array without dtype, shape or order")
        if len(shape) > MAX_DIMENSIONS or any(type(n) is not int or n < 0 for n in shape):
            raise _RefusedError("an array of a shape that no array has")
        kind = dtype.numpy()
        if kind.hasobject:
            if type(content) is not list:
                raise TypeError("an array of objects without a list of them")
            self.spend(8 * len(content) + _LIST_BYTES * _lists(shape))
            values = np.empty(len(content), object)
            for i, value in enumerate(content):
                values[i] = value
            return values.reshape(shape, order=order).tolist()
        if type(content) is str:  # a byte string of Python 2
            content = self.encode(content, "latin1")
        if type(content) not in (bytes, bytearray):
            raise TypeError("an array without bytes")
        if kind.kind == "U" and (np.frombuffer(content, kind.byteorder + "u4") > sys.maxunicode).any():
            raise _RefusedError("texts of characters that there are not")
        return self.checked(np.frombuffer(content, kind).reshape(shape, order=order))

    def checked(self, value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """`value`; refused where nothing of it is in the file, but going through it would take for ever."""
        if not value.size:
            self.spend(_lists(value.shape))
        return value

    def scalar(self, dtype: Any, content: Any = None) -> Any:
        """One number or text, as Python has it."""
        value = self.array(content, dtype, (), "C")
        if isinstance(value, np.ndarray):
            self.spend(value.nbytes)
            return value.item()
        raise _RefusedError("one object as an array")

    def encode(self, text: Any, encoding: Any = None) -> bytes:
        """Bytes that an old protocol has written as text."""
        if type(text) is not str or encoding != "latin1":
            raise _RefusedError("a text to encode in another way than numpy does")
        self.spend(len(text))
        return text.encode("latin-1")


def _content(value: Any) -> Any:
    """`value` as it goes into a container: an array as itself; what is half made or a name may not be there."""
    if type(value) is _Array:
        if value.value is None:
            raise TypeError("an array without content")
        return value.value
    return value


def _key(value: Any) -> Any:
    # A tuple of tuples of tuples, each twice the one before, would take for ever to hash.
    if type(value) not in (str, int):
        raise _RefusedError(f"a dict with a {type(value).__name__} as key")
    # Larger whole numbers can have one hash, and then each is compared with all that are there.
    if type(value) is int and abs(value) >= sys.hash_info.modulus:
        raise _RefusedError("a dict with so large a number as key")
    return value


def _lists(shape: Sequence[int]) -> int:
    """Number of nested lists of an array of this shape: of (10 ** 9, 0) a billion, from no byte."""
    count, of_axis = 1, 1
    for length in shape[:-1]:
        of_axis *= length
        count += of_axis
    return count


def _reconstruct(_: _Machine, kind: Any, *_unused: Any) -> _Array:
    if type(kind) is not _Name or kind.name != "ndarray":
        raise _RefusedError("an array of another class")
    return _Array()


def _dtype(_: _Machine, code: Any, *_unused: Any) -> _DType:
    if type(code) is not str:
        raise _RefusedError("a dtype that is no text")
    return _DType(code)


def _frombuffer(machine: _Machine, content: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> _Array:
    value = machine.array(content, dtype, shape, "C" if order == "K" else order)
    if order != "K":
        return _Array(value)
    if not isinstance(value, np.ndarray) or type(axes) is not tuple or any(type(axis) is not int for axis in axes):
        raise TypeError("an array of turned axes that don't say which")
    return _Array(machine.checked(value.transpose(axes)))


def _no_bytes(_: _Machine) -> bytes:
    return b""


_CALLS: dict[str, Callable[..., Any]] = {
    "_reconstruct": _reconstruct,
    "_frombuffer": _frombuffer,
    "dtype": _dtype,
    "scalar": _Machine.scalar,
    "encode": _Machine.encode,
    "bytes": _no_bytes,
}


def _push(value: Callable[[], Any]) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.stack.append(value())


def _tuple_of(count: int) -> Callable[[_Machine, Any], None]:
    def make(machine: _Machine, _: Any) -> None:
        values = [machine.pop() for _ in range(count)][::-1]
        machine.stack.append(tuple(map(_content, values)))

    return make


def _put(machine: _Machine, index: Any) -> None:
    place = len(machine.memo) if index is None else index
    if not 0 <= place < 2**32:  # as `_key`; PUT has its number as a text of any length
        raise _RefusedError("a note under so large a number")
    machine.memo[place] = machine.stack[-1]


def _dict(machine: _Machine, _: Any) -> None:
    values = machine.pop_marked()
    machine.stack.append({})
    machine.update(values)


# Instructions whose argument is the value.
_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_WITHOUT_EFFECT = {"PROTO", "FRAME"}
_ACTIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    "NONE": _push(lambda: None),
    "NEWTRUE": _push(lambda: True),
    "NEWFALSE": _push(lambda: False),
    "EMPTY_LIST": _push(list),
    "EMPTY_TUPLE": _push(tuple),
    "EMPTY_DICT": _push(dict),
    "MARK": _push(lambda: _Mark),
    "POP": lambda machine, _: machine.stack.pop(),
    "POP_MARK": lambda machine, _: machine.pop_marked(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "PUT": _put,
    "BINPUT": _put,
    "LONG_BINPUT": _put,
    "MEMOIZE": _put,
    "GET": lambda machine, index: machine.stack.append(machine.memo[index]),
    "BINGET": lambda machine, index: machine.stack.append(machine.memo[index]),
    "LONG_BINGET": lambda machine, index: machine.stack.append(machine.memo[index]),
    "APPEND": lambda machine, _: machine.extend([machine.pop()]),
    "APPENDS": lambda machine, _: machine.extend(machine.pop_marked()),
    "LIST": lambda machine, _: machine.stack.append(list(map(_content, machine.pop_marked()))),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(map(_content, machine.pop_marked()))),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "DICT": _dict,
    "SETITEM": lambda machine, _: machine.update([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.update(machine.pop_marked()),
    "GLOBAL": lambda machine, text: machine.name(*text.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.name(*[machine.pop(), machine.pop()][::-1]),
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
}
