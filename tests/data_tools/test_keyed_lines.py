import pytest

from data_tools.errors import DataError
from data_tools.keyed_lines import KeyedLines


def test_the_last_value_of_a_key_counts_and_comes_back(tmp_path):
    lines = KeyedLines(tmp_path / "new" / "lines")
    for key, value in (("b", 1), ("a", {"é": [None, "x\ty\n"]}), ("b", 2)):
        lines.append(key, value)
    for found in (lines, KeyedLines(lines.path)):
        assert (found.read("a"), found.read("b"), found.read("c")) == ({"é": [None, "x\ty\n"]}, 2, None)
        assert ("a" in found, "c" in found, sorted(found)) == (True, False, ["a", "b"])


def test_tidied_the_file_is_the_same_in_any_order_of_work(tmp_path):
    for name, keys in (("x", "cabda"), ("y", "bacd"), ("z", "abcd")):
        lines = KeyedLines(tmp_path / name)
        for key in keys:
            lines.append(key, key * 2)
        lines.tidy()
        assert [lines.read(key) for key in "abcd"] == ["aa", "bb", "cc", "dd"]
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes() == (tmp_path / "z").read_bytes()
    assert (tmp_path / "x").read_bytes() == b'"a"\t"aa"\n"b"\t"bb"\n"c"\t"cc"\n"d"\t"dd"\n'


def test_a_key_that_was_dropped_is_gone_after_tidying_and_without_keys_there_is_no_file(tmp_path):
    lines = KeyedLines(tmp_path / "lines")
    lines.append("a", 1)
    lines.append("b", 2)
    lines.drop("a")
    lines.tidy()
    assert list(KeyedLines(lines.path)) == ["b"]
    lines.append("c", 3)
    assert KeyedLines(lines.path).read("c") == 3
    lines.drop("b")
    lines.drop("c")
    lines.tidy()
    assert not lines.path.exists()
    lines.append("d", 4)
    assert KeyedLines(lines.path).read("d") == 4


@pytest.mark.parametrize("torn", [b'"c"', b'"c"\t{"x": ', b'"c"\t{"x": 1}', b"\0\0\0"])
def test_a_line_without_its_end_is_not_there(tmp_path, torn):
    whole = KeyedLines(tmp_path / "lines")
    whole.append("a", 1)
    before = whole.path.read_bytes()
    with whole.path.open("ab") as file:
        file.write(torn)
    lines = KeyedLines(whole.path)
    assert list(lines) == ["a"]
    lines.tidy()
    assert whole.path.read_bytes() == before
    with whole.path.open("ab") as file:
        file.write(torn)
    lines = KeyedLines(whole.path)
    lines.append("b", 2)
    assert KeyedLines(whole.path).read("b") == 2
    assert whole.path.read_bytes() == before + b'"b"\t2\n'


def test_a_damaged_line_costs_its_own_key(tmp_path):
    path = tmp_path / "lines"
    path.write_bytes(b'"a"\t1\n"b\t2\n"c"\t[3\n"d"\t4\n')
    lines = KeyedLines(path)
    assert dict(lines.read_all(["a", "b", "c", "d"])) == {"a": 1, "b": None, "c": None, "d": 4}


def test_what_cannot_be_written_is_an_error_with_the_name(tmp_path):
    (tmp_path / "lines").mkdir()
    with pytest.raises(DataError, match=r"cannot write .*lines: .*; check permissions"):
        KeyedLines(tmp_path / "lines").append("a", 1)
