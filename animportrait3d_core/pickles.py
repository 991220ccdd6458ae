"""Reads pickles without running anything in them.

A pickle is a program for a small stack machine, and Python's own machine imports and calls whatever the program names.
This one never imports and never calls: it builds numbers, texts, lists and dictionaries, and notes every other object
as an inert `Record` (a name, arguments, a state). Names must be on an allow-list, which maps each to a function of ours
that turns a finished record into a value; any other name is refused before anything else is looked at. NumPy's own
unpickling is not used either, since a crafted dtype can make it misread memory.
"""

from __future__ import annotations

import dataclasses
import math
import pickletools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from .errors import IncompatibleCheckpoint, InvalidInput

MAX_DEPTH = 200  # nesting of containers; real model files stay under 10
MAX_ELEMENTS = 1 << 28  # elements of one array: SMPL-X's largest has 15 million


@dataclasses.dataclass(eq=False)
class Record:
    """An object of the file, not made: what it is called, and the arguments and state it would have been made with.

    items: what would have been put into it one by one, pairs of (key, value) for a mapping.
    """

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = dataclasses.field(default_factory=list)

    __hash__ = None  # type: ignore[assignment]  # an unbuilt object cannot be a dictionary's key


@dataclasses.dataclass(frozen=True)
class Global:
    """A class or function that the file names and nobody looks up."""

    name: str


Builder = Callable[[Record], Any]
_MARK = object()
_PYTHON2_MODULES = {"copy_reg": "copyreg", "__builtin__": "builtins", "numpy._core": "numpy.core"}


def restricted_unpickle(
    data: bytes,
    builders: Mapping[str, Builder],
    source: str,
    persistent: Callable[[Any], Any] | None = None,
    others: Builder | None = None,
) -> Any:
    """Value of a pickle, in which only the names in `builders` may occur, or any if there is a builder for `others`.

    data: the pickle.  builders: 'module.name' -> function that makes a value of a `Record` whose arguments and state
    are already values (`NUMPY_BUILDERS` is a start).  source: the file's name, for messages.  persistent: makes a value
    of a persistent id (torch checkpoints name their storages so); refused if None.  others: makes a value of a record
    of any other name, for pickles of whole networks that mention classes nobody needs; refused if None.

    Raises `IncompatibleCheckpoint` for a name that is not allowed, `InvalidInput` for a damaged pickle.
    """
    machine = _Machine(frozenset(builders), source, persistent, any_name=others is not None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of texts with a wrong escape sequence
            tree = machine.run(data)
        return _Resolver(builders, source, others).value(tree, 0)
    except (IncompatibleCheckpoint, InvalidInput):
        raise
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, MemoryError) as error:
        raise InvalidInput(f"restricted_unpickle: '{source}' holds a damaged pickle ({str(error)[:200]}).") from error


class _Machine:
    """The stack machine of pickle protocols 0 to 5, without imports and calls."""

    def __init__(
        self, allowed: frozenset[str], source: str, persistent: Callable[[Any], Any] | None, any_name: bool
    ) -> None:
        self.allowed = allowed | {"copyreg._reconstructor", "builtins.object"}
        self.source = source
        self.persistent = persistent
        self.any_name = any_name
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(data):
            name = opcode.name
            if name == "STOP":
                return self.stack.pop()
            if name in _PUSHED_ARGUMENTS:
                self.stack.append(argument)
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name]())
            else:
                handler = _HANDLERS.get(name)
                if handler is None:
                    raise InvalidInput(f"restricted_unpickle: '{self.source}' uses pickle opcode {name}: refused.")
                handler(self, argument)
        raise ValueError("it does not end")

    def refuse(self, name: str) -> None:
        raise IncompatibleCheckpoint(
            f"restricted_unpickle: '{self.source}' asks for '{name[:99]}', which is not needed in a file of this kind. "
            "Nothing of it was run. Obtain the file again from its official source."
        )

    def pop_to_mark(self) -> list[Any]:
        items = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def name_global(self, module: str, name: str) -> None:
        for old, new in _PYTHON2_MODULES.items():
            if module == old or module.startswith(old + "."):
                module = new + module[len(old) :]
        full = f"{module}.{name}"
        if full not in self.allowed and not self.any_name:
            self.refuse(full)
        self.stack.append(Global(full))

    def make(self, made_of: Any, arguments: Any) -> None:
        if self.any_name and isinstance(made_of, Record):  # the result of a call is called: still nothing is made
            made_of = Global(f"{made_of.name}()")
        if not isinstance(made_of, Global) or not isinstance(arguments, tuple):
            self.refuse(f"a call of {type(made_of).__name__}")
        if made_of.name == "copyreg._reconstructor":  # (class, base, state of the base)
            made_of, arguments = arguments[0], ()
        self.stack.append(Record(made_of.name, arguments))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, Record):
            self.refuse(f"a state for {type(target).__name__}")
        target.state = state

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if self.any_name and isinstance(target, Record):
            target = target.items
        if not isinstance(target, list):
            self.refuse(f"appending to {_kind(target)}")
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Record):  # an OrderedDict, say: filled after it was made
            target.items.extend(zip(items[::2], items[1::2], strict=True))
        elif isinstance(target, dict):
            target.update(_pair_dict(items))
        else:
            self.refuse(f"items for {_kind(target)}")

    def add_to_set(self) -> None:
        items = self.pop_to_mark()
        if not isinstance(self.stack[-1], set):
            self.refuse(f"adding to {_kind(self.stack[-1])}")
        self.stack[-1].update(map(_checked_key, items))

    def load_persistent(self, identity: Any) -> None:
        if self.persistent is None:
            self.refuse(f"persistent id {identity[:80] if isinstance(identity, str) else _kind(identity)}")
        else:
            self.stack.append(self.persistent(identity))


def _kind(value: Any) -> str:
    return value.name if isinstance(value, (Record, Global)) else type(value).__name__


def _checked_key(key: Any) -> Any:
    """A key of a dictionary or item of a set: flat, since hashing a tuple nested a million times ends the process."""
    flat = (str, bytes, int, float, type(None))
    if not isinstance(key, flat) and not (isinstance(key, tuple) and all(isinstance(part, flat) for part in key)):
        raise TypeError(f"a dictionary's key is a {_kind(key)}")
    return key


# Opcodes whose decoded argument is the value.
_PUSHED_ARGUMENTS = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING BINBYTES "
    "SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8".split()
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
    "MARK": lambda: _MARK,
}


def _tuple_of(count: int) -> Callable[[_Machine, Any], None]:
    def handler(machine: _Machine, _: Any) -> None:
        if len(machine.stack) < count:
            raise IndexError("its stack is too short")
        machine.stack[-count:] = [tuple(machine.stack[-count:])]

    return handler


def _pair_dict(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(map(_checked_key, items[::2]), items[1::2], strict=True))


def _stack_global(machine: _Machine, _: Any) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise TypeError("a global's name is no text")
    machine.name_global(module, name)


def _reduce(machine: _Machine, _: Any) -> None:
    arguments = machine.stack.pop()
    machine.make(machine.stack.pop(), arguments)


def _new_object_ex(machine: _Machine, _: Any) -> None:
    keywords, arguments, made_of = machine.stack.pop(), machine.stack.pop(), machine.stack.pop()
    if keywords:
        machine.refuse("keyword arguments")
    machine.make(made_of, arguments)


def _object_on_mark(machine: _Machine, _: Any) -> None:
    items = machine.pop_to_mark()
    machine.make(items[0], tuple(items[1:]))


def _instance(machine: _Machine, argument: str) -> None:
    arguments = tuple(machine.pop_to_mark())
    machine.name_global(*argument.split(" ", 1))
    machine.make(machine.stack.pop(), arguments)


def _put(machine: _Machine, index: int) -> None:
    machine.memo[index] = machine.stack[-1]


def _get(machine: _Machine, index: int) -> None:
    machine.stack.append(machine.memo[index])


_HANDLERS: dict[str, Callable[[_Machine, Any], Any]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "POP": lambda machine, _: machine.stack.pop(),
    "POP_MARK": lambda machine, _: machine.pop_to_mark(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "LIST": lambda machine, _: machine.stack.append(machine.pop_to_mark()),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_to_mark())),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "DICT": lambda machine, _: machine.stack.append(_pair_dict(machine.pop_to_mark())),
    "FROZENSET": lambda machine, _: machine.stack.append(frozenset(map(_checked_key, machine.pop_to_mark()))),
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.pop_to_mark()),
    "SETITEM": lambda machine, _: machine.set_items([machine.stack.pop(), machine.stack.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    "ADDITEMS": lambda machine, _: machine.add_to_set(),
    "PUT": _put,
    "BINPUT": _put,
    "LONG_BINPUT": _put,
    "MEMOIZE": lambda machine, _: _put(machine, len(machine.memo)),
    "GET": _get,
    "BINGET": _get,
    "LONG_BINGET": _get,
    "GLOBAL": lambda machine, argument: machine.name_global(*argument.split(" ", 1)),
    "STACK_GLOBAL": _stack_global,
    "INST": _instance,
    "OBJ": _object_on_mark,
    "REDUCE": _reduce,
    "NEWOBJ": _reduce,
    "NEWOBJ_EX": _new_object_ex,
    "BUILD": lambda machine, _: machine.build(),
    "PERSID": lambda machine, argument: machine.load_persistent(argument),
    "BINPERSID": lambda machine, _: machine.load_persistent(machine.stack.pop()),
}


class _Resolver:
    """Turns a tree with records into values, innermost first, each shared object once."""

    def __init__(self, builders: Mapping[str, Builder], source: str, others: Builder | None) -> None:
        self.builders = builders
        self.others = others
        self.source = source
        self.done: dict[int, tuple[Any, Any]] = {}  # id -> (original kept alive, value)
        self.open: set[int] = set()

    def value(self, node: Any, depth: int) -> Any:
        if node is _MARK:
            raise ValueError("a mark is left in a value")
        if not isinstance(node, (list, tuple, dict, Record)):
            return node
        key = id(node)
        if key in self.done:
            return self.done[key][1]
        if key in self.open or depth > MAX_DEPTH:
            raise InvalidInput(f"restricted_unpickle: '{self.source}' nests itself or is deeper than {MAX_DEPTH}.")
        self.open.add(key)
        result = self.inner(node, depth + 1)
        self.open.discard(key)
        self.done[key] = (node, result)
        return result

    def inner(self, node: Any, depth: int) -> Any:
        if isinstance(node, list):
            return [self.value(item, depth) for item in node]
        if isinstance(node, tuple):
            return tuple(self.value(item, depth) for item in node)
        if isinstance(node, dict):
            return {name: self.value(item, depth) for name, item in node.items()}
        builder = self.builders.get(node.name, self.others)
        if builder is None:  # copyreg._reconstructor and object by themselves make nothing
            raise InvalidInput(f"restricted_unpickle: '{self.source}' uses '{node.name[:120]}' in an unusual way.")
        arguments, state = self.value(node.arguments, depth), self.value(node.state, depth)
        return builder(Record(node.name, arguments, state, self.value(node.items, depth)))


def _raw_bytes(value: Any) -> bytes:
    """Python 2 wrote arrays as texts of bytes."""
    if not isinstance(value, (str, bytes, bytearray)):
        raise TypeError(f"an array's contents are a {_kind(value)}")
    return value.encode("latin-1") if isinstance(value, str) else bytes(value)


def _build_dtype(record: Record) -> Any:
    """Plain number and text types by their name alone; nothing of the state but the byte order is believed."""
    import numpy as np

    code = str(record.arguments[0])
    if code in ("O", "O8", "O4", "object"):
        return np.dtype(object)
    order = record.state[1] if isinstance(record.state, tuple) and len(record.state) > 1 else "="
    dtype = np.dtype(code)
    if dtype.kind not in "biufcSU" or order not in ("<", ">", "|", "="):
        raise InvalidInput(f"restricted_unpickle: an array of type '{code[:9]}' is refused, expected numbers or texts.")
    return dtype if order == "|" else np.dtype(order + dtype.str[1:])


def array_from_bytes(data: bytes, dtype: Any, shape: tuple[int, ...], fortran_order: bool = False) -> Any:
    """NumPy array over a copy of raw bytes, whose number must fit dtype and shape."""
    import numpy as np

    if any(not isinstance(size, int) or size < 0 for size in shape) or math.prod(shape) > MAX_ELEMENTS:
        raise InvalidInput(f"restricted_unpickle: an array {shape} is refused, at most {MAX_ELEMENTS} elements.")
    count = math.prod(shape)
    if len(data) != count * dtype.itemsize:
        raise InvalidInput(
            f"restricted_unpickle: {len(data)} bytes for an array {list(shape)} of {dtype}, "
            f"expected {count * dtype.itemsize}."
        )
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran_order else "C").copy()


def _build_array(record: Record) -> Any:
    """An ndarray from (version, shape, dtype, fortran order, bytes or list of objects)."""
    import numpy as np

    if not isinstance(record.state, tuple) or len(record.state) != 5:
        raise InvalidInput("restricted_unpickle: an array without contents.")
    _, shape, dtype, fortran_order, data = record.state
    if not isinstance(dtype, np.dtype):
        raise InvalidInput("restricted_unpickle: an array without a type.")
    if dtype.hasobject:
        if not isinstance(data, list):
            raise TypeError("an array of objects without a list")
        values = np.empty(len(data), dtype=object)
        for index, item in enumerate(data):
            values[index] = item
        return values.reshape(shape, order="F" if fortran_order else "C")
    return array_from_bytes(_raw_bytes(data), dtype, shape, bool(fortran_order))


def _build_scalar(record: Record) -> Any:
    dtype, data = record.arguments
    return array_from_bytes(_raw_bytes(data), dtype, ())[()]


def _build_frombuffer(record: Record) -> Any:
    """NumPy's protocol 5 form: (buffer, dtype, shape, order)."""
    data, dtype, shape, order = record.arguments
    return array_from_bytes(_raw_bytes(data), dtype, shape, order == "F")


def _build_bytes(record: Record) -> bytes:
    text, encoding = record.arguments
    if encoding != "latin1" or not isinstance(text, str):
        raise InvalidInput(f"restricted_unpickle: bytes in encoding {encoding!r:.80}, expected 'latin1'.")
    return text.encode("latin-1")


def _build_empty_bytes(record: Record) -> bytes:
    if record.arguments:
        raise InvalidInput("restricted_unpickle: a call of bytes with arguments is refused.")
    return b""


def _build_ordered_dict(record: Record) -> dict[Any, Any]:
    pairs = [*(record.arguments[0] if record.arguments else []), *record.items]
    return {_checked_key(key): value for key, value in pairs}


NUMPY_BUILDERS: dict[str, Builder] = {
    "numpy.ndarray": _build_array,
    "numpy.core.multiarray._reconstruct": _build_array,
    "numpy.core.multiarray.scalar": _build_scalar,
    "numpy.core.numeric._frombuffer": _build_frombuffer,
    "numpy.dtype": _build_dtype,
    "_codecs.encode": _build_bytes,
    "builtins.bytes": _build_empty_bytes,  # how protocols 0 to 2 write b""
    "collections.OrderedDict": _build_ordered_dict,
}
