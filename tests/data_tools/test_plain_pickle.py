import contextlib
import os
import pickle
import struct
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.corpora.mmsa import plain_pickle
from data_tools.corpora.mmsa.plain_pickle import read_plain_pickle
from data_tools.errors import DataError

PROTOCOLS = range(6)
ARRAYS = {
    "float32": np.arange(6, dtype=np.float32).reshape(2, 3),
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "turned": np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
    "big endian": np.arange(3, dtype=">i2"),
    "bool": np.array([True, False]),
    "texts": np.array(["ab", "c"]),
    "bytes": np.array([b"ab", b"c"]),
    "empty": np.zeros((0, 5), np.float32),
    "none": np.array(2.5),
}
# Larger ones are refused as keys: any number of them can share one place of a dict.
KEYS = st.text() | st.integers(1 - sys.hash_info.modulus, sys.hash_info.modulus - 1)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner),
    max_leaves=12,
)


def read(folder, content):
    path = folder / "file.pkl"
    path.write_bytes(content)
    return read_plain_pickle(path)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("pickles")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_read_as_numpy_wrote_them(place, name, protocol):
    found = read(place, pickle.dumps([ARRAYS[name]] * 2, protocol))
    np.testing.assert_array_equal(found[0], ARRAYS[name])
    assert found[0].dtype == ARRAYS[name].dtype
    assert found[0] is found[1]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_scalars_and_arrays_of_objects_become_pythons_own(place, protocol):
    objects = np.array(["a", None, 3, np.float32(0.5)], object)
    written = {"o": objects, "two": np.array([["a", "b"], ["c", "d"]], object), "f": np.float64(2.5), "i": np.int64(7)}
    found = read(place, pickle.dumps(written, protocol))
    assert found == {"o": ["a", None, 3, 0.5], "two": [["a", "b"], ["c", "d"]], "f": 2.5, "i": 7}


@given(value=PLAIN, protocol=st.sampled_from(PROTOCOLS))
@settings(deadline=None)
def test_plain_values_come_back(place, value, protocol):
    assert read(place, pickle.dumps(value, protocol)) == value


def test_old_names_of_numpy_are_known(place):
    new = pickle.dumps(ARRAYS["float32"], 2)
    assert b"numpy._core.multiarray" in new
    old = new.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    np.testing.assert_array_equal(read(place, old), ARRAYS["float32"])


def test_a_pickle_of_python_2_is_read(place):
    """Bytes are strings there: what numpy 1 wrote under Python 2 with protocol 2, put together by hand."""
    values = struct.pack("<3f", 1, 2, 3)
    content = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x03\x85"
        b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"U" + bytes([len(values)]) + values + b"tb."
    )
    assert read(place, content).tolist() == [1, 2, 3]


class Evil:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


class WithState:
    def __reduce__(self):
        return (dict, (), {"a": 1}, None, None)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "call",
    [
        (os.system, ("touch {mark}",)),
        (eval, ("open('{mark}', 'w')",)),
        (getattr, ("text", "upper")),
        (np.load, ("{mark}",)),
        (np.ndarray, ((1 << 40,),)),
        (bytearray, (1 << 40,)),
        (bytes, (5,)),
        (dict, ()),
        (np.dtype, (np.float32,)),
    ],
    ids=lambda call: call[0].__name__,
)
def test_calls_are_refused_and_not_made(tmp_path, call, protocol):
    mark = tmp_path / "it ran"
    function, arguments = call
    arguments = tuple(a.format(mark=mark) if isinstance(a, str) else a for a in arguments)
    with pytest.raises(DataError, match="only numpy arrays and plain containers|is no pickle"):
        read(tmp_path, pickle.dumps({"train": Evil(function, arguments)}, protocol))
    assert not mark.exists()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "value",
    [WithState(), {1, 2}, frozenset("a"), 1j, len, slice(1), range(3), {(1, 2): 3}, {1.5: 2}, Evil, object(),
     np.array([1j]), np.zeros(2, "f4,i4"), np.array(["2020-01-01"], "M8[D]"), np.random.default_rng(0)],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_not_plain_is_refused(place, value, protocol):
    with pytest.raises(DataError, match="file.pkl (holds|is no pickle)"):
        read(place, pickle.dumps([value], protocol))


def reconstructed(state):
    return b"\x80\x03cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R" + state + b"b."


def dtype(code=b"f4", state=b"(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"):
    return b"cnumpy\ndtype\nX" + struct.pack("<I", len(code)) + code + b"K\x00K\x01\x87R" + state


def array(shape, content, kind=None):
    return reconstructed(b"(K\x01" + shape + (kind or dtype()) + b"\x89" + content + b"t")


FOUR = b"C\x04\x00\x00\x80?"
HUGE = b"\x8a\x08" + struct.pack("<q", 1 << 60)
CRAFTED = {
    "a shape beyond the bytes": array(HUGE + b"\x85", FOUR),
    "a shape that overflows": array(HUGE + HUGE + b"\x86", FOUR),
    "a negative shape": array(b"J\xff\xff\xff\xff\x85", FOUR),
    "a shape of texts": array(b"X\x01\x00\x00\x00a\x85", FOUR),
    "a nested shape": array(b"))\x86\x85", FOUR),
    "too many axes": array(b"(" + b"K\x01" * 40 + b"t", FOUR),
    "bytes that are no multiple": array(b"K\x01\x85", b"C\x03\x00\x00\x00"),
    "objects from bytes": array(b"K\x01\x85", b"C\x08" + b"\x41" * 8, dtype(b"O8")),
    "items without size": array(HUGE + b"\x85", b"C\x00", dtype(b"U0")),
    "items of a huge size": array(b"K\x01\x85", FOUR, dtype(b"U999999999")),
    "an odd dtype": array(b"K\x01\x85", FOUR, dtype(b"f4,f4")),
    "a dtype of a path": array(b"K\x01\x85", FOUR, dtype(b"float32; import os")),
    "a record dtype": array(
        b"K\x01\x85", FOUR, dtype(state=b"(K\x03X\x01\x00\x00\x00|N)}J\x00\x00\x00\x00K\x01K\x00tb")
    ),
    "a state of one part": array(b"K\x01\x85", FOUR, dtype(state=b"K\x03\x85b")),
    "an array without content": b"\x80\x03cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R.",
    "a state twice": array(b"K\x01\x85", FOUR)[:-1] + b"(K\x01K\x01\x85" + dtype() + b"\x89" + FOUR + b"tb.",
    "another class": b"\x80\x03cnumpy.core.multiarray\n_reconstruct\ncnumpy\ndtype\nK\x00\x85C\x01b\x87R.",
    "a state for a list": b"\x80\x02]}b.",
    "a call of a text": b"\x80\x02X\x01\x00\x00\x00a)R.",
    "a call with a list": b"\x80\x02cnumpy\ndtype\n]R.",
    "inst": b"(ios\nsystem\n.",
    "obj": b"(cnumpy\nndarray\no.",
    "newobj": b"\x80\x02cnumpy\nndarray\n)\x81.",
    "newobj_ex": b"\x80\x04cnumpy\nndarray\n)}\x92.",
    "ext1": b"\x80\x02\x82\x01.",
    "persid": b"Pabc\n.",
    "binpersid": b"K\x01Q.",
    "next_buffer": b"\x80\x05\x97.",
    "stack_global of lists": b"\x80\x04]]\x93.",
    "a length beyond the file": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"ab.",
    "a text beyond the file": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"ab.",
    "a bytearray beyond the file": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"ab.",
    "a number of 5000 digits": b"L" + b"9" * 5000 + b"L\n.",
    "an empty stack": b".",
    "two results": b"NN.",
    "no stop": b"\x80\x02]",
    "a value in place of a mark": b"\x80\x02]e.",
    "a mark in place of a value": b"\x80\x02(.",
    "items for a number": b"\x80\x02K\x01K\x02a.",
    "an odd dict": b"\x80\x02}(K\x01u.",
    "an unknown memo": b"\x80\x02h\x07.",
    "nothing": b"",
    "no pickle": b"PK\x03\x04zip",
    "torch": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
    "a scalar of objects": b"\x80\x03cnumpy.core.multiarray\nscalar\n" + dtype(b"O8") + b"]\x86R.",
}


@pytest.mark.parametrize("name", CRAFTED)
def test_crafted_pickles_are_refused_with_a_sentence(place, name):
    with pytest.raises(DataError, match="file.pkl (holds|is no pickle)"):
        read(place, CRAFTED[name])


def test_a_huge_memo_number_costs_nothing(place):
    assert read(place, b"\x80\x02]r\xff\xff\xff\xffj\xff\xff\xff\xff\x86.") == ([], [])


def doubled(times, make=b"\x86"):
    """() -> ((), ()) -> and so on: 2 ** times leaves from a few bytes each."""
    return b")" + b"".join(b"q\x00h\x00" + make for _ in range(times))


def test_values_that_nest_into_endless_size_are_never_walked_through(place):
    found = read(place, b"\x80\x02" + doubled(100) + b".")
    assert found[0] is found[1]
    with pytest.raises(DataError, match="dict with a tuple as key"):
        read(place, b"\x80\x02}" + doubled(100) + b"Ns.")
    for content in (
        array(doubled(100), FOUR),
        array(doubled(100) + b"\x85", FOUR),
        array(b"K\x01\x85", FOUR, doubled(100)),
    ):
        with pytest.raises(DataError):
            read(place, content)
    with pytest.raises(DataError):
        read(place, b"\x80\x04" + doubled(100) + doubled(100) + b"\x93.")
    with pytest.raises(DataError, match="to encode"):
        read(place, b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00a" + doubled(100) + b"\x86R.")


def test_deep_nesting_is_no_stack_overflow(place):
    depth = 200_000
    found = read(place, b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b".")
    for _ in range(depth - 1):
        (found,) = found
    assert found == []


def test_a_small_file_makes_no_large_content(place):
    text = b"X" + struct.pack("<I", 100_000) + b"a" * 100_000 + b"q\x00"
    encoded = b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R0"
    assert read(place, b"\x80\x02" + text + encoded + b".") == "a" * 100_000
    with pytest.raises(DataError, match="far larger than the file"):
        read(place, b"\x80\x02" + text + encoded * 100 + b".")
    objects = b"](" + b"N" * 10_000 + b"eq\x000"
    one = array(b"M\x10\x27\x85", b"h\x00", dtype(b"O8"))[2:-1] + b"0"
    with pytest.raises(DataError, match="far larger than the file"):
        read(place, b"\x80\x03" + objects + one * 100 + b"N.")


@pytest.mark.parametrize("kind", [object, np.float32])
@pytest.mark.parametrize("shape", [(10**9, 0), (1, 10**9, 0), (10**12, 10**3, 0)])
def test_an_array_without_items_has_no_endless_axis(place, kind, shape):
    """A few bytes; as lists, or gone through row by row, it would fill any memory."""
    for order in "CF":
        content = pickle.dumps(np.empty(shape, kind, order), 4)
        assert len(content) < 300
        with pytest.raises(DataError, match="far larger than the file"):
            read(place, content)


def test_turning_the_axes_gives_no_endless_one_either(place):
    turned = pickle.dumps(np.empty((0, 10**9), np.float32).T, 5)
    with pytest.raises(DataError, match="far larger than the file"):
        read(place, turned)


def test_empty_arrays_of_usual_shapes_are_read(place):
    assert read(place, pickle.dumps(np.empty((0, 50, 768), np.float32), 4)).shape == (0, 50, 768)
    assert read(place, pickle.dumps(np.empty((0, 768), object), 4)) == []
    assert read(place, pickle.dumps(np.empty((3, 0), object), 4)) == [[], [], []]


def test_limits_of_size_and_instructions(place, monkeypatch):
    content = pickle.dumps(list(range(100)))
    monkeypatch.setattr(plain_pickle, "MAX_INSTRUCTIONS", 50)
    with pytest.raises(DataError, match="more than 50 instructions"):
        read(place, content)
    monkeypatch.setattr(plain_pickle, "MAX_BYTES", 10)
    with pytest.raises(DataError, match="more than the 10"):
        read(place, content)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="none.pkl cannot be read"):
        read_plain_pickle(tmp_path / "none.pkl")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_cut_file_is_refused_wherever_it_ends(place, protocol):
    content = pickle.dumps({"a": ARRAYS["float32"], "t": ARRAYS["texts"], "x": [1, ("b", 2.5)]}, protocol)
    for end in range(len(content)):
        with pytest.raises(DataError):
            read(place, content[:end])


@given(data=st.data(), protocol=st.sampled_from(PROTOCOLS))
@settings(deadline=None, max_examples=300)
def test_flipped_bytes_give_a_value_or_an_error(place, data, protocol):
    content = bytearray(
        pickle.dumps({"a": ARRAYS["float32"], "o": np.array(["x", 1], object), "l": [1, "b"]}, protocol)
    )
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DataError):
        read(place, bytes(content))


@given(content=st.binary(max_size=300))
@settings(deadline=None, max_examples=300)
def test_any_bytes_give_a_value_or_an_error(place, content):
    with contextlib.suppress(DataError):
        read(place, content)


@pytest.mark.parametrize("order", ["<", ">"])
def test_texts_of_no_characters_are_refused_before_python_falls_over_them(place, order):
    words = np.array(["ab", "é"], f"{order}U2")
    np.testing.assert_array_equal(read(place, pickle.dumps(words)), words)
    codes = words.view(f"{order}u4").copy()
    codes[0] = 0x110000
    with pytest.raises(DataError, match="texts of characters that there are not"):
        read(place, pickle.dumps(words).replace(words.tobytes(), codes.tobytes()))
