"""Words out of Praat's and ELAN's tiers: forms, choice of the tier, times of annotations without any, hostile files."""

import pympi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.errors import DataError
from data_tools.speech.transcript import Cue, OtherFormError, read_transcript

WORDS = [(0.0, 0.4, ""), (0.4, 1.25, 'see item [3] and "intervals [4]:"'), (1.25, 2.0, "two\nlines ! <here>")]
PHONES = [(0.0, 2.0, "s iy")]
EXPECTED = [
    Cue(0.4, 1.25, 'see item [3] and "intervals [4]:"', "words"),
    Cue(1.25, 2.0, "two lines ! <here>", "words"),
]


def long_form(tiers, length_s=2.0):
    """As Praat writes "Save as text file", word for word."""
    lines = [f"xmin = 0 \nxmax = {length_s} \ntiers? <exists> \nsize = {len(tiers)} \nitem []: "]
    for n, (name, intervals) in enumerate(tiers.items(), start=1):
        lines.append(f'    item [{n}]:\n        class = "IntervalTier" \n        name = "{name}" ')
        lines.append(f"        xmin = 0 \n        xmax = {length_s} \n        intervals: size = {len(intervals)} ")
        for k, (start, end, text) in enumerate(intervals, start=1):
            quoted = text.replace('"', '""')
            lines.append(f"        intervals [{k}]:\n            xmin = {start} \n            xmax = {end} ")
            lines.append(f'            text = "{quoted}" ')
    return 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n' + "\n".join(lines) + "\n"


def short_form(tiers, length_s=2.0):
    parts = [f"0\n{length_s}\n<exists>\n{len(tiers)}"]
    for name, intervals in tiers.items():
        parts.append(f'"IntervalTier"\n"{name}"\n0\n{length_s}\n{len(intervals)}')
        for start, end, text in intervals:
            quoted = text.replace('"', '""')
            parts.append(f'{start}\n{end}\n"{quoted}"')
    return 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n' + "\n".join(parts)


def cues(folder, name, content, **options):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_transcript(path, **options)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("form", [long_form, short_form])
def test_textgrid_in_its_forms_and_encodings(tmp_path, form, end, encoding):
    text = form({"words": WORDS, "phones": PHONES}).replace("\n", end)
    assert cues(tmp_path, "a.TextGrid", text.encode(encoding)) == EXPECTED


def test_a_point_tier_and_comments_are_passed_over(tmp_path):
    text = short_form({"words": WORDS}).replace("<exists>\n1", "<exists>\n2 ! two tiers")
    text = text.replace('"IntervalTier"', '"TextTier"\n"marks"\n0\n2\n1\n0.5\n"click"\n"IntervalTier"', 1)
    assert cues(tmp_path, "a.TextGrid", text) == EXPECTED
    none = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n1\n<absent>\n'
    with pytest.raises(OtherFormError, match=r"its tiers with times: none"):
        cues(tmp_path, "a.TextGrid", none)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["words", "phones"], ["words"]),
        (["Anna - words", "Anna - phones", "Ben - words", "Ben - phones"], ["Anna - words", "Ben - words"]),
        (["utterances", "words"], ["utterances"]),
        (["ORT-MAU", "KAN-MAU", "MAU", "TRN"], ["TRN"]),
        (["Anna", "Ben", "gestures"], ["Anna", "Ben"]),
        (["wordTokens", "translation of words"], ["wordTokens"]),
    ],
)
def test_tiers_of_words_by_their_names(tmp_path, names, expected):
    tiers = {name: [(0, 2, f"said in {name}")] for name in names}
    found = cues(tmp_path, "a.TextGrid", long_form(tiers))
    assert [cue.speaker for cue in found] == expected
    assert [cue.text for cue in found] == [f"said in {name}" for name in expected]


def test_a_tier_that_is_named(tmp_path):
    text = long_form({"words": WORDS, "Ben's": [(0.5, 1, "hm")]})
    assert cues(tmp_path, "a.TextGrid", text, tiers=["Ben's"]) == [Cue(0.5, 1.0, "hm", "Ben's")]
    both = cues(tmp_path, "a.TextGrid", text, tiers=["words", "Ben's"])
    assert both == sorted([*EXPECTED, Cue(0.5, 1.0, "hm", "Ben's")], key=lambda cue: cue.start_s)
    with pytest.raises(DataError, match=r"has no tier 'Anna'; its tiers with times are 'words', \"Ben's\""):
        cues(tmp_path, "a.TextGrid", text, tiers=["Anna"])
    with pytest.raises(OtherFormError, match="no tier whose name says that it holds words"):
        cues(tmp_path, "a.TextGrid", long_form({"Anna": WORDS}), by_name=True)
    with pytest.raises(DataError, match="has no tiers, and 'words' was named"):
        cues(tmp_path, "a.srt", "1\n00:00:01,000 --> 00:00:02,000\nHi\n", tiers=["words"])


def test_marks_of_silence_and_noise_are_no_words(tmp_path):
    labels = ["sil", "<p:>", "SP", "[laughs]", "#", "...", "silly", "a <b> c", "sil sil"]
    text = long_form({"words": [(n / 10, n / 10 + 0.1, label) for n, label in enumerate(labels)]})
    assert [cue.text for cue in cues(tmp_path, "a.TextGrid", text)] == ["silly", "a <b> c", "sil sil"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda text: text[: len(text) // 2], "ends in the middle|a quote that nothing closes"),
        (lambda text: text.replace("xmax = 1.25 ", "xmax = soon ", 1), "damaged TextGrid"),
        (lambda text: text.replace("size = 3 ", "size = 30000000000 ", 1), "damaged TextGrid|ends in the middle"),
        (lambda text: text.replace("size = 3 ", "size = -3 ", 1), "-3 in place of a count"),
        (lambda text: text.replace("TextGrid", "Sound", 1), "is no TextGrid"),
        (lambda text: "just words", "is no TextGrid"),
        (lambda text: "ooBinaryFile\x08TextGrid", "binary form; save it as text"),
    ],
)
def test_damaged_textgrids_are_named(tmp_path, change, match):
    with pytest.raises(DataError, match=match):
        cues(tmp_path, "a.TextGrid", change(long_form({"words": WORDS, "phones": PHONES})))


def test_no_part_of_a_short_form_is_lost_in_silence(tmp_path):
    """Cut off anywhere it is an error, or all words are there."""
    text = short_form({"words": WORDS})
    for length in range(len(text)):
        with pytest.raises(DataError):
            cues(tmp_path, "a.TextGrid", text[:length])


EAF = """<?xml version="1.0" encoding="{encoding}"?>
<ANNOTATION_DOCUMENT AUTHOR="" DATE="2020-01-01T00:00:00+00:00" FORMAT="3.0" VERSION="3.0">
<HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">
<MEDIA_DESCRIPTOR MEDIA_URL="file:///etc/passwd" MIME_TYPE="x"/></HEADER>
<TIME_ORDER><TIME_SLOT TIME_SLOT_ID="t1" TIME_VALUE="1000"/><TIME_SLOT TIME_SLOT_ID="t2"/>
<TIME_SLOT TIME_SLOT_ID="t3"/><TIME_SLOT TIME_SLOT_ID="t4" TIME_VALUE="4000"/></TIME_ORDER>
<TIER TIER_ID="clauses"><ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="t1" TIME_SLOT_REF2="t4">
<ANNOTATION_VALUE>caf\u00e9 &amp; cake</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION></TIER>
<TIER TIER_ID="parts" PARENT_REF="clauses">
<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a2" TIME_SLOT_REF1="t1" TIME_SLOT_REF2="t2">
<ANNOTATION_VALUE>one</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a3" TIME_SLOT_REF1="t2" TIME_SLOT_REF2="t3">
<ANNOTATION_VALUE>two</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION></TIER>
<TIER TIER_ID="words" PARENT_REF="parts">
<ANNOTATION><REF_ANNOTATION ANNOTATION_ID="a4" ANNOTATION_REF="a3"><ANNOTATION_VALUE>x</ANNOTATION_VALUE>
</REF_ANNOTATION></ANNOTATION>
<ANNOTATION><REF_ANNOTATION ANNOTATION_ID="a5" ANNOTATION_REF="a3" PREVIOUS_ANNOTATION="a4">
<ANNOTATION_VALUE>y</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION></TIER>
</ANNOTATION_DOCUMENT>
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1"])
def test_eaf_with_times_of_its_own_or_of_others(tmp_path, encoding):
    content = EAF.format(encoding=encoding).encode(encoding)
    (clause,) = cues(tmp_path, "a.eaf", content, tiers=["clauses"])
    assert clause == Cue(1.0, 4.0, "café & cake", "clauses")
    # Slots without a time lie evenly between those that have one; parts of one annotation share its time.
    assert cues(tmp_path, "a.eaf", content, tiers=["parts"]) == [Cue(1, 2, "one", "parts"), Cue(2, 3, "two", "parts")]
    assert cues(tmp_path, "a.eaf", content) == [Cue(2, 2.5, "x", "words"), Cue(2.5, 3, "y", "words")]


def test_eaf_as_another_program_writes_it(tmp_path):
    eaf = pympi.Eaf()
    for tier in ("Anna", "Ben"):
        eaf.add_tier(tier)
    eaf.add_annotation("Anna", 100, 900, "Hello <Ben>")
    eaf.add_annotation("Ben", 800, 1500, "Hi")
    eaf.remove_tier("default")
    eaf.to_file(str(tmp_path / "a.eaf"))
    assert read_transcript(tmp_path / "a.eaf") == [Cue(0.1, 0.9, "Hello <Ben>", "Anna"), Cue(0.8, 1.5, "Hi", "Ben")]


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">]>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY c SYSTEM "file:///etc/passwd">]>'
ELSEWHERE = '<!DOCTYPE a SYSTEM "http://127.0.0.1:9/x">'


def declaring(declared):
    return lambda text: text.replace("<ANN", f"{declared}<ANN", 1).replace("one", "&c;")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (declaring(BOMB), "document type"),
        (declaring(OUTSIDE), "document type"),
        (declaring(ELSEWHERE), "document type"),
        (lambda text: text.replace("one", "&nbsp;"), "undefined entity"),
        (lambda text: text[: len(text) // 2], "damaged eaf file"),
        (lambda text: text.replace('ANNOTATION_REF="a3"', 'ANNOTATION_REF="a5"'), "'a[45]' belongs to none with times"),
        (lambda text: text.replace('ANNOTATION_REF="a3"', 'ANNOTATION_REF="a9"'), "'a4' belongs to none with times"),
        (lambda text: text.replace('REF2="t3"', 'REF2="t9"'), "no time slot 't9'"),
        (lambda text: text.replace('VALUE="1000"', 'VALUE="soon"'), "damaged eaf file"),
        (lambda text: text.replace('ANNOTATION_ID="a2"', ""), "damaged eaf file"),
        (lambda text: text.replace('ANNOTATION_ID="a2"', 'ANNOTATION_ID="a1"'), "two annotations 'a1'"),
        (lambda text: text.replace("ANNOTATION_DOCUMENT", "html"), "outermost element is 'html'"),
        (lambda text: "<a>" * 100_000, "deeper than 32"),
        (lambda text: "", "damaged eaf file"),
        (lambda text: text.replace('encoding="utf-8"', 'encoding="utf-99"'), "damaged eaf file"),
    ],
)  # fmt: skip
def test_hostile_and_damaged_eaf_files_are_refused(tmp_path, change, match):
    with pytest.raises(DataError, match=match) as caught:
        cues(tmp_path, "a.eaf", change(EAF.format(encoding="utf-8")))
    assert len(str(caught.value)) < 600


PIECES = st.sampled_from(
    ['"', '""', "<exists>", "0", "1", "2.5", "\n", "!", '"IntervalTier"', "xmin =", '"words"', "-1", "1e999", "a"]
)


@settings(max_examples=200, deadline=None)
@given(parts=st.lists(PIECES, max_size=30))
def test_any_textgrid_ends_in_cues_or_one_sentence(tmp_path_factory, parts):
    path = tmp_path_factory.getbasetemp() / "any.TextGrid"
    path.write_text('"ooTextFile" "TextGrid" ' + " ".join(parts), encoding="utf-8")
    try:
        found = read_transcript(path)
    except DataError:
        return
    assert all(cue.text and cue.start_s >= 0 for cue in found)
