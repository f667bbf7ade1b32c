"""The file of ELAN that `predict --out` writes, as XML and as another program reads it, and transcripts in tiers."""

import os
import shutil
from datetime import datetime
from itertools import pairwise
from urllib.parse import urljoin
from xml.etree import ElementTree

import numpy as np
import pympi
import pytest

from data_tools.media.audio import write_wav
from data_tools.speech.transcript import read_transcript
from pipeline.predict import predict
from pipeline.progress import Reporter
from pipeline.settings import ConfigError
from pipeline.timeline.elan import write_eaf

QUIET = Reporter(quiet=True)
PARTS = [
    {"start_s": 0.5, "end_s": 2.0, "text": "Hello <b>&\x01 \ud800you", "predicted": ["hap"], "absent": []},
    {"start_s": 1.5, "end_s": 2.5, "text": "overlaps", "predicted": [], "absent": ["no face", "no sound"]},
    {"start_s": 2.0, "end_s": 2.0, "text": "", "predicted": [], "absent": ["no words"]},
    {"start_s": 3.0, "end_s": 4.2344, "text": "last", "predicted": ["sad", "hap"], "absent": []},
]
SEGMENTS = [{**part, "scores": {"hap": 0.7, "sad": 0.9}} for part in PARTS]


@pytest.fixture
def film(tmp_path):
    path = tmp_path / "films of mine" / "my film.mp4"
    path.parent.mkdir()
    path.write_bytes(b"film")
    return path


def tiers_of(path):
    """(tier -> [(start ms, end ms, text)], root element), by the rules of the format that hold for every reader."""
    root = ElementTree.parse(path).getroot()
    assert root.tag == "ANNOTATION_DOCUMENT"
    datetime.fromisoformat(root.attrib["DATE"])
    assert set(root.attrib) >= {"AUTHOR", "DATE", "FORMAT", "VERSION"}
    order = ["HEADER", "TIME_ORDER", "TIER", "LINGUISTIC_TYPE", "CONSTRAINT"]
    places = [order.index(element.tag) for element in root]
    assert places == sorted(places)
    slots = {slot.attrib["TIME_SLOT_ID"]: int(slot.attrib["TIME_VALUE"]) for slot in root.iter("TIME_SLOT")}
    assert list(slots.values()) == sorted(slots.values())
    kinds = {kind.attrib["LINGUISTIC_TYPE_ID"] for kind in root.iter("LINGUISTIC_TYPE")}
    ids, found = [], {}
    for tier in root.iter("TIER"):
        assert tier.attrib["LINGUISTIC_TYPE_REF"] in kinds
        found[tier.attrib["TIER_ID"]] = [
            (
                slots[each.attrib["TIME_SLOT_REF1"]],
                slots[each.attrib["TIME_SLOT_REF2"]],
                each.findtext("ANNOTATION_VALUE"),
            )
            for each in tier.iter("ALIGNABLE_ANNOTATION")
        ]
        ids += [each.attrib["ANNOTATION_ID"] for each in tier.iter("ALIGNABLE_ANNOTATION")]
    assert len(set(ids)) == len(ids)
    for annotations in found.values():
        assert all(start < end for start, end, _ in annotations)
        assert all(before[1] <= after[0] for before, after in pairwise(annotations)), "ELAN has one at a time in a tier"
    return found, root


def test_tiers_of_words_emotions_and_what_was_absent(film, tmp_path):
    target = tmp_path / "out" / "film.eaf"
    write_eaf(target, film, SEGMENTS, "multi-label")
    tiers, root = tiers_of(target)
    assert tiers == {
        "words": [(500, 2000, "Hello <b>&\ufffd \ufffdyou"), (3000, 4234, "last")],
        "emotion": [(500, 2000, "hap 0.700"), (2000, 2001, "none"), (3000, 4234, "sad 0.900, hap 0.700")],
        "absent": [(2000, 2001, "no words")],
        "words-2": [(1500, 2500, "overlaps")],
        "emotion-2": [(1500, 2500, "none")],
        "absent-2": [(1500, 2500, "no face; no sound")],
    }
    (media,) = root.iter("MEDIA_DESCRIPTOR")
    assert media.attrib["MIME_TYPE"] == "video/mp4"
    assert media.attrib["MEDIA_URL"] == f"file:///{str(film.resolve()).lstrip('/')}"
    base = f"file://{target.resolve()}"
    assert urljoin(base, media.attrib["RELATIVE_MEDIA_URL"]) == f"file://{film.resolve()}"
    assert root.find("HEADER").attrib["TIME_UNITS"] == "milliseconds"


def test_other_readers_find_the_same(film, tmp_path):
    target = tmp_path / "film.eaf"
    write_eaf(target, film, SEGMENTS, "multi-label")
    eaf = pympi.Eaf(str(target))
    for name, annotations in tiers_of(target)[0].items():
        assert eaf.get_annotation_data_for_tier(name) == annotations
    words = [(cue.start_s, cue.end_s, cue.text) for cue in read_transcript(target)]
    assert words == [(0.5, 2.0, "Hello <b>&\ufffd \ufffdyou"), (1.5, 2.5, "overlaps"), (3.0, 4.234, "last")]


def test_the_same_answer_is_the_same_file(film, tmp_path):
    os.utime(film, (0, 2**40))
    for name in ("one.eaf", "two.eaf"):
        write_eaf(tmp_path / name, film, SEGMENTS, "multi-label")
    assert (tmp_path / "one.eaf").read_bytes() == (tmp_path / "two.eaf").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["films of mine", "one.eaf", "two.eaf"]
    write_eaf(tmp_path / "one.eaf", film, [], "multi-label")  # no copy of the earlier one is left behind
    assert tiers_of(tmp_path / "one.eaf")[0] == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["films of mine", "one.eaf", "two.eaf"]


def test_sentiment_has_a_number(film, tmp_path):
    write_eaf(tmp_path / "a.eaf", film, [{**SEGMENTS[0], "scores": {"sentiment": -0.5}}], "sentiment")
    assert tiers_of(tmp_path / "a.eaf")[0]["emotion"] == [(500, 2000, "sentiment -0.500")]


GRID = """File type = "ooTextFile"
Object class = "TextGrid"

0 4 <exists> 2
"IntervalTier" "Anna - words" 0 4 4
0 0.5 ""
0.5 0.9 "so"
0.9 1.2 "glad"
2 2.6 "yes"
"IntervalTier" "Anna - phones" 0 4 1
0 4 "s"
"""


@pytest.fixture
def talk(tmp_path):
    samples = np.random.default_rng(0).normal(0, 0.1, 16_000 * 4).astype(np.float32)
    write_wav(tmp_path / "talk.wav", samples, 16_000)
    return tmp_path / "talk.wav"


def test_tiers_of_words_are_segments_between_pauses(run, talk, tmp_path):
    (tmp_path / "talk.TextGrid").write_text(GRID, encoding="utf-16")
    (entry,) = predict(run, [talk], str(tmp_path / "talk.TextGrid"), "cpu", QUIET, out=tmp_path / "out")["files"]
    assert entry["cut_by"] == "transcript"
    times = [(part["start_s"], part["end_s"], part["text"]) for part in entry["segments"]]
    assert times == [(0.5, 1.2, "so glad"), (2.0, 2.6, "yes")]
    assert [name for name in entry["written"] if name.endswith(".eaf")] == [str(tmp_path / "out" / "talk.eaf")]
    # What was written is read again as a transcript, with the same segments.
    for name in ("talk.eaf", "talk.segments.csv"):
        (again,) = predict(run, [talk], str(tmp_path / "out" / name), "cpu", QUIET)["files"]
        assert [(part["start_s"], part["end_s"], part["text"]) for part in again["segments"]] == times
        assert again["scores"] == pytest.approx(entry["scores"], abs=1e-6)


def test_a_tier_by_name(run, talk, tmp_path):
    (tmp_path / "talk.TextGrid").write_text(GRID, encoding="utf-8")
    path = str(tmp_path / "talk.TextGrid")
    (entry,) = predict(run, [talk], path, "cpu", QUIET, tier=["Anna - phones"])["files"]
    assert [part["text"] for part in entry["segments"]] == ["s"]
    with pytest.raises(ConfigError, match="has no tier 'Ben'"):
        predict(run, [talk], path, "cpu", QUIET, tier=["Ben"])
    with pytest.raises(ConfigError, match="--tier words says where the words of --transcript stand"):
        predict(run, [talk], None, "cpu", QUIET, tier=["words"])


def test_files_where_an_eaf_lies_already(run, talk, tmp_path):
    """The film's own annotations stay."""
    shutil.copy(talk, tmp_path / "b.wav")
    (tmp_path / "b.eaf").write_text("mine", encoding="utf-8")
    (entry,) = predict(run, [tmp_path / "b.wav"], None, "cpu", QUIET, out=tmp_path)["files"]
    assert (tmp_path / "b.eaf").read_text(encoding="utf-8") == "mine"
    assert str(tmp_path / "b-2.eaf") in entry["written"]
