from __future__ import annotations

import collections
import os
import pickle
import pickletools
import struct
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy

from animportrait3d_core.errors import AnimPortraitError, IncompatibleCheckpoint, InvalidInput
from animportrait3d_core.pickles import NUMPY_BUILDERS, Global, restricted_unpickle


def unpickle(data: bytes):
    return restricted_unpickle(data, NUMPY_BUILDERS, "demo.pkl")


leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
plain_values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(plain_values, st.integers(2, 5))
def test_plain_values_survive_every_binary_protocol(value, protocol):
    assert unpickle(pickle.dumps(value, protocol)) == value


@settings(max_examples=60, deadline=None)
@given(
    hypothesis_numpy.arrays(
        dtype=st.sampled_from(["<f4", ">f8", "<i8", ">u2", "?", "<c8", "<U3", "S2"]),
        shape=hypothesis_numpy.array_shapes(min_dims=0, max_dims=3, max_side=4),
    ),
    st.integers(2, 5),
    st.booleans(),
)
def test_arrays_survive_every_binary_protocol(array, protocol, fortran):
    array = np.asfortranarray(array) if fortran else array
    back = unpickle(pickle.dumps({"a": array}, protocol))["a"]
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


def test_scalars_object_arrays_and_ordered_dicts():
    value = collections.OrderedDict(
        count=np.float32(2.5), parts=np.array([{"a": 1}, None], dtype=object), single=np.array({"b": [2]}, dtype=object)
    )
    back = unpickle(pickle.dumps(value, 2))
    assert list(back) == ["count", "parts", "single"]
    assert back["count"] == np.float32(2.5)
    assert back["parts"].tolist() == [{"a": 1}, None]
    assert back["single"].item() == {"b": [2]}


def test_shared_objects_stay_shared_and_are_built_once():
    array = np.arange(3)
    back = unpickle(pickle.dumps([array, array]))
    assert back[0] is back[1]


class Calls:
    """A pickle that calls `function(*arguments)` when it is loaded by Python."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def attacks(marker: str) -> dict[str, bytes]:
    """Pickles that create the file `marker` when Python loads them, or that need a name no model file needs."""
    import builtins
    import functools
    import operator

    make = f"open({marker!r}, 'w').close()"
    nested = Calls(getattr, Calls(__import__, "os"), "system")
    state_trick = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"}(U\x0c__setstate__cposix\nsystem\nub."
    )
    attribute = Calls(operator.attrgetter("system"), Calls(__import__, "os"))
    pure = {
        "os.system": Calls(os.system, f"touch {marker}"),
        "builtins.eval": Calls(builtins.eval, make),
        "builtins.exec": Calls(builtins.exec, make),
        "subprocess.run": Calls(subprocess.run, ["touch", marker]),
        "nested in a list": [1, {"weights": (Calls(os.system, f"touch {marker}"),)}],
        "nested reduce": nested,
        "attrgetter": attribute,
        "methodcaller": Calls(operator.methodcaller("touch"), Calls(__import__, "pathlib")),
        "partial": functools.partial(os.system, f"touch {marker}"),
        "numpy object array": np.array([Calls(os.system, f"touch {marker}")], dtype=object),
        "numpy memmap": Calls(np.memmap, marker, "uint8", "w+", 0, (4,)),
        "numpy load": Calls(np.load, marker),
    }
    made = {name: pickle.dumps(value) for name, value in pure.items()}
    made |= {f"{name}, protocol 0": pickle.dumps(value, 0) for name, value in pure.items()}
    command = f"touch {marker}".encode()
    made["setstate"] = state_trick
    made["GLOBAL posix"] = b"cposix\nsystem\n(S'" + command + b"'\ntR."
    made["INST"] = b"(S'" + command + b"'\nios\nsystem\n."
    made["OBJ"] = b"(cos\nsystem\nS'" + command + b"'\no."
    path = b"X" + struct.pack("<I", len(marker)) + marker.encode()
    made["NEWOBJ"] = b"\x80\x02cio\nFileIO\n" + path + b"X\x01\0\0\0w\x86\x81."
    made["dotted name"] = b"\x80\x04\x8c\x05numpy\x94\x8c\x11ndarray.__class__\x94\x93."
    made["persistent id"] = b"\x80\x02(X\x07\0\0\0storagecos\nsystem\nX\x01\0\0\0000tQ."
    made["persistent text"] = b"P" + command + b"\n."
    made["reconstructor"] = b"ccopy_reg\n_reconstructor\n(cos\nsystem\nc__builtin__\nobject\nNtR."
    made["extension"] = b"\x80\x02\x82\x01."
    return made


ATTACKS = sorted(attacks("unused"))


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_in_a_pickle_runs(name, tmp_path):
    marker = tmp_path / "ran"
    with pytest.raises(AnimPortraitError):
        unpickle(attacks(str(marker))[name])
    assert not marker.exists()


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_runs_where_other_names_are_allowed_either(name, tmp_path):
    """Whole networks mention classes that nobody needs; they are noted, never looked up."""
    marker, noted = tmp_path / "ran", []
    try:
        value = restricted_unpickle(attacks(str(marker))[name], NUMPY_BUILDERS, "net.pkl", others=noted.append)
        assert noted or isinstance(value, Global)
    except AnimPortraitError as error:
        assert str(error).startswith("restricted_unpickle: ")
    assert not marker.exists()


@pytest.mark.parametrize("name", ["os.system", "builtins.exec", "GLOBAL posix", "INST"])
def test_the_attacks_are_real(name, tmp_path):
    """What the restricted reader refuses does run in Python's own, so the test above can fail."""
    marker = tmp_path / "ran"
    pickle.loads(attacks(str(marker))[name])
    assert marker.exists()


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("os.system", r"'(posix|nt)\.system'"),
        ("builtins.eval", r"'builtins\.eval'"),
        ("attrgetter", r"'operator\.attrgetter'"),
        ("partial", r"'functools\.partial'"),
        ("setstate", r"'posix\.system'"),
        ("INST", r"'os\.system'"),
        ("dotted name", r"'numpy\.ndarray\.__class__'"),
        ("persistent text", "persistent id touch"),
    ],
)
def test_the_refusal_names_what_was_asked_for(name, named):
    with pytest.raises(IncompatibleCheckpoint, match=named):
        unpickle(attacks("unused")[name])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b".",
        b"\x80\x04",
        b"\x80\x02]q\x00h\x00a.",  # a list inside itself
        b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".",
        b"\x80\x02cnumpy\nndarray\n)R.",
        b"\x80\x02(.",
        b"\x80\x02h\x05.",
        b"\x80\x02}]K\x01s.",  # a list as a key
        b"\x80\x02K\x01K\x02a.",
        b"\x80\x02K\x01}b.",
        b"\x80\x02cnumpy\nndarray\n}b.",  # a state for a class: would change it for everybody
        b"\x80\x02K\x01" + b"\x85" * 100_000 + b".",
        b"\x80\x02}K\x01" + b"\x85" * 100_000 + b"Ns.",  # hashing this key would end the process
    ],
)
def test_damaged_pickles_are_named_errors(data):
    with pytest.raises(AnimPortraitError):
        unpickle(data)


def test_every_truncation_is_a_named_error():
    data = pickle.dumps({"weights": np.arange(6.0).reshape(2, 3), "names": ["a", "b"]})
    for length in range(len(data)):
        with pytest.raises(AnimPortraitError):
            unpickle(data[:length])


def test_every_flipped_byte_gives_a_value_or_a_named_error():
    data = pickle.dumps({"weights": np.arange(6.0).reshape(2, 3), "names": ["a", "b"], "n": np.int64(4)})
    values, refused = 0, 0
    for position in range(len(data)):
        for flip in (0x01, 0x80, 0xFF):
            changed = bytearray(data)
            changed[position] ^= flip
            try:
                unpickle(bytes(changed))
                values += 1
            except AnimPortraitError:
                refused += 1
    assert values + refused == 3 * len(data)
    assert refused > len(data)


def test_huge_claims_are_refused_before_memory_is_taken():
    array = pickle.dumps(np.zeros(2), 2)
    shape = array.replace(b"K\x02\x85q", b"\x8a\x06\xff\xff\xff\xff\xff\x00\x85q")
    assert shape != array
    with pytest.raises(InvalidInput, match="elements"):
        unpickle(shape)


def test_crafted_dtype_is_refused():
    """NumPy believes a dtype's pickled flags; a void type that claims to hold no objects would read raw pointers."""
    data = pickle.dumps(np.zeros(2, dtype=[("a", "O")]), 2)
    with pytest.raises(AnimPortraitError, match="V8"):
        unpickle(data)


def test_persistent_ids_go_to_the_given_function():
    data = b"\x80\x02(X\x07\0\0\0storageX\x01\0\0\0" + b"0tQ."
    value = restricted_unpickle(data, NUMPY_BUILDERS, "demo.pth", persistent=lambda identity: list(identity))
    assert value == ["storage", "0"]


def test_opcodes_are_all_decided():
    """Every opcode of the installed Python is handled, or is one that is refused on purpose."""
    from animportrait3d_core import pickles

    known = pickles._PUSHED_ARGUMENTS | set(pickles._CONSTANTS) | set(pickles._HANDLERS) | {"STOP"}
    refused = {"EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"}
    assert {opcode.name for opcode in pickletools.opcodes} == known | refused
