"""JSON with a row a line, rounding, and rows that take the place of older ones."""

import json

import pytest

from benchmarks.rows import LONGEST_LINE, as_json, read_rows, rounded, write_result
from data_tools.errors import DataError


def test_json_has_a_line_a_row_and_is_the_same_value():
    rows = [{"work": "a", "losses": [1.0, 0.5], "versions": {"torch": "2"}}, {"work": "ü", "top_p": None}]
    text = as_json(rows)
    assert json.loads(text) == rows
    assert text.split("\n") == ["[", f" {json.dumps(rows[0])},", ' {"work": "ü", "top_p": null}', "]"]
    assert as_json([]) == "[]"
    assert json.loads(as_json((1, {}))) == [1, {}]


def test_what_is_too_long_for_a_line_has_a_line_for_each_member():
    long = {"name": "x", "modes": [{"mode": "m", "values": list(range(300))} for _ in range(3)]}
    lines = as_json({"seeds": 3, "datasets": [long]}).split("\n")
    assert json.loads("".join(lines)) == {"seeds": 3, "datasets": [long]}
    assert max(map(len, lines)) <= LONGEST_LINE
    assert [line.strip()[:10] for line in lines[:5]] == ["{", '"seeds": 3', '"datasets"', "{", '"name": "x']
    assert sum('"mode": "m"' in line for line in lines) == 3


def test_floats_alone_are_rounded_to_eight_digits():
    value = {"s": [0.123456789, 1234567891.5, 3, True, None, "1.23456789"], "n": {"zero": 0.0, "tiny": -1.23456789e-9}}
    assert rounded(value) == {
        "s": [0.12345679, 1234567900.0, 3, True, None, "1.23456789"],
        "n": {"zero": 0.0, "tiny": -1.2345679e-9},
    }
    assert rounded(rounded(value)) == rounded(value)


def test_what_was_written_is_read_again_and_damage_is_named(tmp_path):
    assert read_rows(tmp_path / "x.json") == []
    files = write_result(tmp_path, "x", [{"a": 1}], "# page\n")
    assert files == [tmp_path / "x.json", tmp_path / "x.md"]
    assert read_rows(files[0]) == [{"a": 1}]
    assert files[1].read_text() == "# page\n"
    files[0].write_text("[{")
    with pytest.raises(DataError, match=r"x.json is damaged"):
        read_rows(files[0])
