"""Tables that a stranger made: cells stay the text that they were, and all else is a DataError."""

import codecs
import csv
import io
import json
import random

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_tools.corpora import parquet_child, tables
from data_tools.corpora.tables import TABLE_SUFFIXES, read_table
from data_tools.errors import DataError
from data_tools.processes import REFUSED

# What other readers turn into numbers, dates, nothing, or run.
TEMPTING = ["007", "1e5", "NA", "nan", "None", "True", "2024-01-02", "1_000", "0x1F", "=cmd|' /C calc'!A0", "-1", "٣"]


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def cells(path, **options):
    table = read_table(path, **options)
    return table.rows.to_dict("records")


def as_csv(rows, **options):
    text = io.StringIO(newline="")
    csv.writer(text, **options).writerows(rows)
    return text.getvalue()


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet"])
def test_cells_stay_what_they_are_in_every_format(tmp_path, ending):
    path = tmp_path / f"t{ending}"
    frame = pd.DataFrame({"id": TEMPTING, "text": [f"  {word}, said “I”\n" for word in TEMPTING]})
    if ending in {".csv", ".tsv"}:
        frame.to_csv(path, index=False, sep="," if ending == ".csv" else "\t")
    elif ending == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=ending != ".json", force_ascii=False)
    table = read_table(path)
    assert table.rows.to_dict("list") == frame.to_dict("list")
    assert table.bad == []
    assert ending in TABLE_SUFFIXES


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_line_ends_and_separators_of_a_csv(tmp_path, end, delimiter):
    rows = [["video", "label", "text"], ["a.mp4", "x", 'he said "no", twice'], ["b.mp4", "y", "1\n2"]]
    text = as_csv(rows, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    path = write(tmp_path, "t.csv", text)
    table = read_table(path)
    assert table.rows.to_numpy().tolist() == rows[1:]
    assert list(table.rows.index) == [2, 3]


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.encode(),
        lambda text: text.encode("utf-8-sig"),
        lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
        lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
        lambda text: codecs.BOM_UTF32_LE + text.encode("utf-32-le"),
        lambda text: codecs.BOM_UTF32_BE + text.encode("utf-32-be"),
    ],
)
@pytest.mark.parametrize("name", ["t.csv", "t.json"])
def test_encodings_with_and_without_a_mark(tmp_path, encode, name):
    text = "id,text\nü,视频 😀\n" if name == "t.csv" else '[{"id": "ü", "text": "视频 😀"}]'
    assert cells(write(tmp_path, name, encode(text))) == [{"id": "ü", "text": "视频 😀"}]


def test_another_encoding_is_never_guessed(tmp_path):
    path = write(tmp_path, "t.csv", "id,text\na,ok\nb,naïve\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"t.csv is not utf-8 text \(line 3, byte b'\\xef'\).*encoding: cp1252"):
        read_table(path)
    assert cells(path, encoding="cp1252")[1] == {"id": "b", "text": "naïve"}
    for unknown in ("nonsense", "zip", "undefined"):
        with pytest.raises(DataError, match="cannot be read as|is not undefined text"):
            read_table(path, unknown)


def test_a_ragged_row_is_named_by_its_line_and_shifts_nothing(tmp_path):
    text = 'id,text\n1,"two\nlines"\n2\n\n3,a,b\n,\n4,ok\n5,\0\n'
    table = read_table(write(tmp_path, "t.csv", text))
    assert table.unit == "line"
    assert table.rows.to_dict("index") == {2: {"id": "1", "text": "two\nlines"}, 8: {"id": "4", "text": "ok"}}
    assert table.bad == [
        (4, "it has 1 cells, the header 2"),
        (6, "it has 3 cells, the header 2"),
        (9, "the cell 'text' holds a NUL character"),
    ]


def test_columns_without_a_name_are_left_out(tmp_path):
    path = tmp_path / "t.csv"
    pd.DataFrame({"id": ["a", "b"]}).to_csv(path)  # with its index, as pandas does unless it is told otherwise
    assert cells(path) == [{"id": "a"}, {"id": "b"}]


def test_json_rows_of_another_form_are_named(tmp_path):
    text = (
        '[{"a": 1e400, "b": NaN}, {"b": null, "c": true}, 3, {"a": [1]}, {"a": {}}, {"a": 1, "a": 2}, {"a": "\\ud800"}]'
    )
    table = read_table(write(tmp_path, "t.json", text))
    # Two of the objects have cells that the other lacks.
    assert table.rows.to_dict("records") == [{"a": "1e400", "b": "NaN", "c": ""}, {"a": "", "b": "", "c": "true"}]
    assert [number for number, _ in table.bad] == [3, 4, 5, 6, 7]
    assert "not an object" in table.bad[0][1]
    assert "holds a list or an object" in table.bad[1][1]
    assert "occurs twice" in table.bad[3][1]
    assert "surrogate" in table.bad[4][1]


def test_json_lines_keep_what_can_be_read(tmp_path):
    lines = ['{"a": 1}', "", '{"a": ', "[" * 50_000, '{"a": "x\u2028y"}', '{"a": ' + "9" * 9000 + "}", "7"]
    table = read_table(write(tmp_path, "t.jsonl", "\r\n".join(lines)))
    assert table.rows["a"].to_dict() == {1: "1", 5: "x\u2028y", 6: "9" * 9000}
    assert [number for number, _ in table.bad] == [3, 4, 7]
    assert "nested too deeply" in table.bad[1][1]


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("t.csv", b"", "t.csv is empty; expected a line with the names"),
        ("t.csv", b"\n\n \n", "is empty"),
        ("t.csv", b"id,text\n\n", "has no row that can be used"),
        ("t.csv", b"id,text\n1\n", "no row that can be used; line 2: it has 1 cells"),
        ("t.csv", b"id, id\n1,2\n", "two columns called 'id'"),
        ("t.csv", b'id,text\n1,"never closed\n2,b\n', "t.csv, line 2: unexpected end of data"),
        ("t.csv", b'id,text\n1,"a" b\n', "t.csv, line 2: .* written"),
        ("t.csv", b"id,text\n1," + b"x" * 140_000, "line 2: field larger than field limit"),
        ("t.csv", "id,text\n1,2\n".encode("utf-16-le"), "UTF-16 without a mark"),
        ("t.csv", b"PK\x03\x04\x14\x00\x06\x00\xff\xfe", "is not utf-8 text"),
        ("t.json", b"{}", "holds no list; expected"),
        ("t.json", b"[", "is not JSON"),
        ("t.json", b"[" * 100_000, "is not JSON: it is nested too deeply"),
        ("t.json", b'{"a":' * 100_000, "is not JSON: it is nested too deeply"),
        ("t.json", b"[]", "no row that can be used"),
        ("t.json", b'[{"a": "' + b"x" * 140_000 + b'"}]', "row 1: the cell 'a' has 140000 characters; the limit is"),
        ("t.parquet", b"", "cannot be used as a Parquet table: it does not begin with PAR1"),
        ("t.parquet", b"PAR1" + b"\0" * 100 + b"PAR1", "cannot be used as a Parquet table: OSError: "),
        ("t.xlsx", b"PK", "is a spreadsheet; save it as CSV"),
        ("t.txt", b"a", "is no table by its name; expected one of .csv"),
    ],
)
def test_what_is_no_table_is_said(tmp_path, name, content, match):
    with pytest.raises(DataError, match=match):
        read_table(write(tmp_path, name, content))


def test_what_is_no_file_is_said(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match="is not a file"):
        read_table(tmp_path / "folder.csv")
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_table(tmp_path / "gone.csv")


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_limits(tmp_path, monkeypatch, ending):
    path = tmp_path / f"t.{ending}"
    frame = pd.DataFrame({"a": ["1234567890"] * 200, "b": ["x"] * 200})
    {"csv": frame.to_csv, "json": lambda p: frame.to_json(p, orient="records"), "parquet": frame.to_parquet}[ending](
        path
    )
    for name, value, match in (
        ("MAX_ROWS", 199, "rows"),
        ("MAX_CELLS", 399, "cells"),
        ("MAX_BYTES", path.stat().st_size - 1, "bytes; the limit for a table"),
        ("MAX_CELL_CHARACTERS", 9, "the limit is 9|larger than field limit"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(tables, name, value)
            if name == "MAX_CELL_CHARACTERS" and ending == "csv":
                continue  # that one is the csv module's own limit; its test is above
            with pytest.raises(DataError, match=match):
                read_table(path)
    assert len(cells(path)) == 200


def test_a_parquet_bomb_is_refused_before_it_unfolds(tmp_path):
    path = tmp_path / "bomb.parquet"
    # A million times one text of a megabyte: a terabyte, in a file of a few kilobytes.
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(1_000_000, np.int32)), pa.array(["x" * 10**6]))
    pq.write_table(pa.table({"text": column}), path, compression="zstd")
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match="unfolds to more than 134217728 characters"):
        read_table(path)
    many = tmp_path / "many.parquet"
    pq.write_table(pa.table({"a": pa.nulls(2_000_000, pa.int8())}), many)
    with pytest.raises(DataError, match="holds 2000000 rows.*split it"):
        read_table(many)
    wide = tmp_path / "wide.parquet"
    pq.write_table(
        pa.table({"a": ["".join(random.Random(0).choices("ab", k=10**6))] * 150}), wide, use_dictionary=False
    )
    with pytest.raises(DataError, match="bytes unpacked"):
        read_table(wide)


def test_parquet_types(tmp_path):
    path = tmp_path / "t.parquet"
    plain = {
        "whole": pa.array([3, None]),
        "real": pa.array([0.1, float("nan")]),
        "flag": pa.array([True, False]),
        "category": pa.array(["x", None]).dictionary_encode(),
        "time": pa.array([61_500_000, 0], pa.time64("us")),
        "": pa.array([1, 2]),
    }
    pq.write_table(pa.table(plain), path)
    assert cells(path) == [
        {"whole": "3", "real": "0.1", "flag": "true", "category": "x", "time": "00:01:01.500000"},
        {"whole": "", "real": "nan", "flag": "false", "category": "", "time": "00:00:00"},
    ]
    for odd in (pa.array([[1.0], [2.0]]), pa.array([{"a": 1}, {"a": 2}]), pa.array([b"\xff", b""])):
        pq.write_table(pa.table({"id": ["a", "b"], "odd": odd}), path)
        with pytest.raises(DataError, match="'odd' .* no plain values; leave out such columns"):
            read_table(path)
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["id", "id"]), path)
    with pytest.raises(DataError, match="two columns called 'id'"):
        read_table(path)


# Surrogates cannot be written to a file, and NUL has a test of its own.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
ROWS = st.lists(st.tuples(TEXTS, TEXTS).filter(lambda row: any(cell.strip() for cell in row)), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(rows=ROWS, delimiter=st.sampled_from(",;\t"), end=st.sampled_from(["\n", "\r\n", "\r"]))
@example(rows=[(";", ";"), (";", ";")], delimiter=",", end="\r")
def test_any_text_comes_back_from_csv(tmp_path_factory, rows, delimiter, end):
    text = as_csv([["one", "two"], *rows], delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    path = write(tmp_path_factory.getbasetemp(), "round.csv", text)
    table = read_table(path)
    assert [tuple(row) for row in table.rows.to_numpy()] == rows
    assert table.bad == []
    # And as many other readers see it.
    frame = pd.read_csv(path, dtype=str, keep_default_na=False, sep=delimiter, skip_blank_lines=False)
    assert len(frame) == len(rows)


@settings(max_examples=100, deadline=None)
@given(rows=ROWS)
def test_any_text_comes_back_from_json_and_parquet(tmp_path_factory, rows):
    records = [{"one": one, "two": two} for one, two in rows]
    folder = tmp_path_factory.getbasetemp()
    assert cells(write(folder, "round.json", json.dumps(records))) == records
    assert cells(write(folder, "round.jsonl", "\n".join(json.dumps(r, ensure_ascii=False) for r in records))) == records
    # Without the process of its own, which takes half a second.
    pd.DataFrame(records).to_parquet(folder / "round.parquet")
    header, *found = parquet_child.read(str(folder / "round.parquet"), 10**6, 100, 100)
    assert (header, [tuple(row) for row in found]) == (["one", "two"], rows)


def only_a_table_or_a_data_error(path):
    """Whether it is a table; anything else that is raised fails the test."""
    try:
        table = read_table(path)
    except DataError:
        return False
    assert len(table.rows)
    assert all(isinstance(cell, str) for cell in table.rows.to_numpy().ravel())
    numbers = [*table.rows.index, *(number for number, _ in table.bad)]
    assert len(set(numbers)) == len(numbers)
    return True


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
@settings(max_examples=120, deadline=None)
@given(content=st.binary(max_size=300) | st.text('",;\t\r\n{}[]:a1\0\ufeff', max_size=60).map(str.encode))
def test_any_bytes_give_a_table_or_a_data_error(tmp_path_factory, suffix, content):
    only_a_table_or_a_data_error(write(tmp_path_factory.getbasetemp(), f"bytes{suffix}", content))


def test_a_library_that_breaks_down_or_hangs_on_a_file_costs_that_file_only(tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"
    pd.DataFrame({"id": ["a"]}).to_parquet(path)
    monkeypatch.setattr(tables, "TIME_LIMIT_S", 0)
    with pytest.raises(DataError, match="reading it took more than 0 s"):
        read_table(path)
    monkeypatch.setattr(tables, "TIME_LIMIT_S", 60)
    monkeypatch.setattr(parquet_child, "__file__", str(write(tmp_path, "crash.py", "import os; os.abort()")))
    with pytest.raises(DataError, match=r"t.parquet cannot be used .* broke down on it \(exit status -6\)"):
        read_table(path)
    assert parquet_child.REFUSED == REFUSED


@pytest.mark.parametrize(
    ("suffix", "times"),
    [
        (".csv", 150),
        (".json", 150),
        (".jsonl", 150),
        (".parquet", 12),
        pytest.param(".parquet", 150, marks=pytest.mark.slow),
    ],
)
def test_damaged_tables(tmp_path, suffix, times):
    path = tmp_path / f"t{suffix}"
    frame = pd.DataFrame({"id": [f"ü{i}" for i in range(40)], "x": np.arange(40) / 8, "text": ['a "b"\nc'] * 40})
    write_as = {".csv": frame.to_csv, ".parquet": frame.to_parquet}
    write_as.get(suffix, lambda p: frame.to_json(p, orient="records", lines=suffix == ".jsonl"))(path)
    whole = path.read_bytes()
    chance = random.Random(f"{suffix} {times}")
    for _ in range(times):
        content = bytearray(whole[: chance.choice([len(whole), chance.randrange(len(whole))])])
        for _ in range(chance.randrange(8)):
            if content:
                content[chance.randrange(len(content))] = chance.randrange(256)
        path.write_bytes(content)
        only_a_table_or_a_data_error(path)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("line", ["sep=;", '"sep=;"', "SEP=|", "sep=\t"])
def test_the_first_line_of_excel_names_the_delimiter(tmp_path, line, end):
    delimiter = line.strip('"')[-1]
    rows = [delimiter.join(cells) for cells in (["id", "text"], ["a", "x, y"], ["b"], ["c", "z"])]
    table = read_table(write(tmp_path, "t.csv", end.join([line, *rows, ""])))
    assert table.rows.to_dict("list") == {"id": ["a", "c"], "text": ["x, y", "z"]}
    assert list(table.rows.index) == [3, 5]
    assert table.bad == [(4, "it has 1 cells, the header 2")]


def test_a_column_may_be_called_sep(tmp_path):
    assert cells(write(tmp_path, "t.csv", "sep=;,b\n1,2\n")) == [{"sep=;": "1", "b": "2"}]


def test_a_repeated_header_is_no_row_and_may_change_the_order(tmp_path):
    table = read_table(write(tmp_path, "t.csv", "id,text,\na,x,\n id,TEXT,\nb,y,\ntext,,id\nz,,c\nid,text,more\n"))
    assert table.rows.to_dict("list") == {"id": ["a", "b", "c", "more"], "text": ["x", "y", "z", "id"]}
    assert table.bad == [(3, tables.HEADER_AGAIN), (5, tables.HEADER_AGAIN)]
    rows = [{"id": "a", "text": "x"}, {"id": "id", "text": "Text"}]
    assert read_table(write(tmp_path, "t.json", json.dumps(rows))).bad == [(2, tables.HEADER_AGAIN)]
    pd.DataFrame(rows).to_parquet(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").bad == [(2, tables.HEADER_AGAIN)]


def test_a_mark_holds_against_a_named_encoding(tmp_path):
    assert cells(write(tmp_path, "t.csv", "id\n你\n".encode("utf-16")), encoding="cp1252") == [{"id": "你"}]
