"""What every reader gives back: ids become file names and paths come out of tables, so neither is trusted."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.corpora.readers import CORPORA, read_release
from data_tools.corpora.release import Release
from data_tools.errors import DataError
from data_tools.records import Utterance

PLAIN = Utterance("v_1", "v", "s", "", 0.0, 1.0, "hello", {"sad": 1.0}, None, "videos/v.mp4", "videos/v.mp4")


def taken(tmp_path, **changes):
    release = Release(tmp_path)
    release.add(replace(PLAIN, **changes))
    assert len(release.utterances) + len(release.rejects) == 1
    return [reject.reason for reject in release.rejects]


@pytest.mark.parametrize(
    "name", ["v_1", "-3g5yACwYnA_2", "a b", "Zürich_1", "视频_0001", "it's_1", 'q"_1', "a;b&$(c)", "x" * 200]
)
def test_a_name_that_a_file_can_have_is_taken(tmp_path, name):
    assert taken(tmp_path, utterance_id=name) == []
    assert taken(tmp_path, dialogue_id=name) == []
    (tmp_path / f".{name}.12345.tmp.mp4").touch()


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".hidden",
        "../up",
        "a/b",
        "a\\b",
        "/etc/passwd",
        "a\nb",
        "a\0b",
        "a\rb",
        "\u202eabc",
        "\udcff",
        "x" * 201,
    ],
)
def test_a_name_that_no_file_may_have_is_a_reject(tmp_path, name):
    assert taken(tmp_path, utterance_id=name) == ["id:unsafe"]
    assert taken(tmp_path, dialogue_id=name) == ["id:unsafe"]


@pytest.mark.parametrize("path", ["/etc/passwd", "../v.mp4", "a/../../v.mp4", "..", "v\0.mp4"])
def test_a_source_outside_the_release_is_a_reject(tmp_path, path):
    assert taken(tmp_path, source_video=path) == ["path:outside"]
    assert taken(tmp_path, source_audio=path) == ["path:outside"]


@given(name=st.text(max_size=60), path=st.text(max_size=60))
def test_what_is_taken_stays_in_its_folder(tmp_path_factory, name, path):
    root = tmp_path_factory.getbasetemp() / "release"
    release = Release(root)
    release.add(replace(PLAIN, utterance_id=name, source_video=path))
    for utterance in release.utterances:
        assert (root / f"{utterance.utterance_id}.mp4").resolve().parent == root.resolve()
        assert (root / utterance.source_video).resolve().is_relative_to(root.resolve())
    for reject in release.rejects:
        assert reject.detail.encode()  # every reject can be written down


def test_an_option_that_the_reader_does_not_have_is_refused(tmp_path):
    with pytest.raises(DataError, match="the reader of iemocap has no option nonsense; it has: "):
        read_release("iemocap", tmp_path, ["ang"], {"nonsense": 1})


def test_an_utterance_without_a_file_is_a_reject_unless_it_needs_none(tmp_path, monkeypatch):
    def read_some(root, emotions):
        release = Release(root)
        for name, changes in (("a", {"source_video": ""}), ("v", {"source_audio": ""}), ("t", {"text": " "})):
            release.add(replace(PLAIN, utterance_id=name, **changes))
        release.add(replace(PLAIN, utterance_id="none", source_video="", source_audio=""))
        return release

    monkeypatch.setitem(CORPORA, "some", read_some)
    for modalities, kept in (("av", {"t"}), ("a", {"a", "t"}), ("tv", {"v"}), ("v", {"v", "t"})):
        release = read_release("some", tmp_path, [], modalities=modalities)
        assert {utterance.utterance_id for utterance in release.utterances} == kept
        assert {reject.utterance_id for reject in release.rejects} == {"a", "v", "t", "none"} - kept
    assert {r.utterance_id: r.reason for r in read_release("some", tmp_path, [], modalities="tav").rejects} == {
        "a": "no_video",
        "v": "no_audio",
        "t": "no_words",
        "none": "no_video",
    }
