"""Label maps: other names for emotions, and what becomes of those without a counterpart."""

import pandas as pd
import pytest

from data_tools.label_map import LabelMap, map_labels

MAP = LabelMap("test", ["anger", "happy", "fear"], {"here": {"ang": "anger", "hap": "happy", "exc": "happy"}})


def table_of(rows):
    """rows: (anger, happiness, excitement, frustration)."""
    names = ("label_ang", "label_hap", "label_exc", "label_fru")
    first = {"utterance_id": [str(i) for i in range(len(rows))], "text": "", "clip": "", "wav": ""}
    labels = {name: pd.Series([row[k] for row in rows], dtype="float32") for k, name in enumerate(names)}
    return pd.DataFrame(first | labels | {"sentiment": 0.0})


def test_the_larger_of_merged_labels_counts_and_the_others_are_left_out_and_counted():
    rows = [(1, 0, 0, 0), (0, 0.4, 0.6, 0), (0, 0, 0, 1), (0.9, 0, 0, 0.8), (0, 0, 0, 0), (0.2, 0, 0, 0.7)]
    table, kept, mapped = map_labels(table_of(rows), MAP, MAP.corpora["here"], ["anger", "happy", "fear"])
    assert kept.tolist() == [True, True, False, True, True, False]
    assert table[["label_anger", "label_happy", "label_fear"]].round(3).to_numpy().tolist() == [
        pytest.approx(row) for row in [(1, 0, 0), (0, 0.6, 0), (0, 0, 0), (0.9, 0, 0), (0, 0, 0), (0.2, 0, 0)]
    ]
    assert (mapped.left_out, mapped.beside_others) == ({"fru": 2}, {"fru": 1})
    assert table.columns.tolist() == [
        "utterance_id", "text", "clip", "wav", "label_anger", "label_happy", "label_fear", "sentiment"
    ]  # fmt: skip


def test_a_counterpart_that_is_not_asked_for_is_none():
    _, kept, mapped = map_labels(table_of([(1, 0, 0, 0), (0, 1, 0, 0)]), MAP, MAP.corpora["here"], ["happy"])
    assert kept.tolist() == [False, True]
    assert (mapped.counterparts, mapped.left_out) == ({"hap": "happy", "exc": "happy"}, {"ang": 1})


def test_a_corpus_that_is_not_listed_has_the_names_of_the_map():
    assert MAP.counterparts("mine", ["happy", "bored"]) == {"happy": "happy"}
    assert MAP.counterparts("here", ["happy", "hap"]) == {"hap": "happy"}
