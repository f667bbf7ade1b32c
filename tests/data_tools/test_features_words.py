import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.errors import DataError
from data_tools.sequences.align import (
    Word,
    average_within,
    find_words,
    intervals,
    read_wdseg,
    read_words_csv,
    wdseg_path,
)
from data_tools.sequences.steps import Steps
from data_tools.sequences.words import read_vectors, split_words, vectors_of

GLOVE = "the 0.1 -0.2\n. . . 1 2\ncat 3e-1 4\nthe 9 9\n"


def write(folder, content, name="file.txt"):
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_wanted_vectors_are_read(tmp_path):
    vectors = read_vectors(write(tmp_path, GLOVE), {"the", "cat", ". . .", "dog"})
    assert {word: values.tolist() for word, values in vectors.items()} == {
        "the": pytest.approx([0.1, -0.2]),
        "cat": pytest.approx([0.3, 4]),
        ". . .": [1, 2],
    }
    assert vectors_of(["cat", "dog"], vectors, 2).tolist() == [pytest.approx([0.3, 4]), [0, 0]]
    assert vectors_of([], vectors, 2).shape == (0, 2)


def test_the_header_of_word2vec_is_skipped(tmp_path):
    assert list(read_vectors(write(tmp_path, "400000 2\n" + GLOVE), {"cat"})) == ["cat"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "no word vectors"),
        ("word\n", "0 numbers"),
        ("word" + " 1" * 2049, "2049 numbers"),
        ("the 1 2\nshort 1\n", "line 2: 1 numbers"),
        ("the 1 x\n", "line 1: not all"),
        ("the 1 nan\n", "not finite"),
        ("the 1 1e999\n", "not finite"),
        (b"\x80\x05\x95" * 40_000, "more than 65536 bytes"),
        ("the" * 70_000, "more than 65536 bytes"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, content, problem):
    with pytest.raises(DataError, match=problem):
        read_vectors(write(tmp_path, content), {"the", "short"})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="none.txt cannot be read"):
        read_vectors(tmp_path / "none.txt", {"the"})


@settings(deadline=None)
@given(content=st.binary(max_size=200))
def test_any_bytes_give_vectors_or_an_error(tmp_path_factory, content):
    path = write(tmp_path_factory.getbasetemp(), content, "any.txt")
    try:
        found = read_vectors(path, {"the", "a"})
    except DataError:
        return
    assert set(found) <= {"the", "a"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I don’t know!", ["i", "don't", "know", "!"]),
        ("", []),
        ("  \n", []),
        ("Größe, 3.5", ["größe", ",", "3", ".", "5"]),
        ("我爱你", ["我爱你"]),
    ],
)
def test_texts_are_split_into_words_and_marks(text, words):
    assert split_words(text) == words


WDSEG = """\t SFrm  EFrm    SegAScr Word
\t    0    12    -123456 <s>
\t   13    45    -900000 EXCUSE(2)
\t   46    60   -1000 ++LAUGHTER++
\t   61    70   -1000 <sil>
\t   71   100   -2000000 ME
\t  101   110     -1 </s>
Total score:    -58000000
"""


def test_iemocaps_alignment_has_frames_of_10_ms(tmp_path):
    words = read_wdseg(write(tmp_path, WDSEG))
    assert [word.text for word in words] == ["excuse", "me"]
    np.testing.assert_allclose(intervals(words), [[0.13, 0.46], [0.71, 1.01]], atol=1e-6)


def test_the_alignment_lies_beside_the_sentence():
    wav = "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav"
    expected = "Session1/sentences/ForcedAlignment/Ses01F_impro01/Ses01F_impro01_F000.wdseg"
    assert wdseg_path(wav).as_posix() == expected
    assert wdseg_path("Videos/a.mp4") is None
    assert wdseg_path("a.wav") is None


def test_a_sidecar_is_read_in_time_order(tmp_path):
    content = '\ufeffword,start_s,end_s\r\n"so, then",0.5,0.75\r\nyes,0,0.25\r\n'
    assert read_words_csv(write(tmp_path, content)) == [Word("yes", 0, 0.25), Word("so, then", 0.5, 0.75)]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("word,start_s\na,1\n", "lacks the columns end_s"),
        ("", "lacks the columns"),
        ("word,start_s,end_s\na,x,1\n", "line 2: start_s and end_s must be numbers"),
        ("word,start_s,end_s\na,1\n", "line 2: start_s and end_s"),
        ("word,start_s,end_s\na,2,1\n", "line 2: a word from 2.0 s to 1.0 s"),
        ("word,start_s,end_s\na,nan,nan\n", "line 2"),
        ("word,start_s,end_s\na,0,inf\n", "line 2"),
        ("word,start_s,end_s\n" + "x" * 140_000, "not a line of CSV"),
    ],
)
def test_a_sidecar_of_another_kind_is_refused(tmp_path, content, problem):
    with pytest.raises(DataError, match=problem):
        read_words_csv(write(tmp_path, content))


def test_words_are_found_beside_the_clip_then_in_the_release(tmp_path):
    source = "Session1/sentences/wav/D/U.wav"
    aligned = tmp_path / "raw" / "Session1/sentences/ForcedAlignment/D/U.wdseg"
    aligned.parent.mkdir(parents=True)
    aligned.write_text(WDSEG)
    (tmp_path / "data").mkdir()
    assert find_words(tmp_path / "data", "U.wav", None, source) is None
    assert len(find_words(tmp_path / "data", "U.wav", tmp_path / "raw", source)) == 2
    write(tmp_path / "data", "word,start_s,end_s\na,0,1\n", "U.words.csv")
    assert find_words(tmp_path / "data", "U.wav", tmp_path / "raw", source) == [Word("a", 0, 1)]


def test_a_word_is_the_mean_of_its_steps_weighed_by_shared_time():
    times = np.array([[0, 1], [1, 2], [2, 3]], np.float32)
    steps = Steps(np.array([[1, 10], [2, 20], [4, 40]], np.float32), times)
    found = average_within(steps, np.array([[0.5, 2], [2.25, 2.5], [5, 6], [1, 1]], np.float32))
    # The first word has half a second of step 0 and one second of step 1.
    np.testing.assert_allclose(found.values, [[5 / 3, 50 / 3], [4, 40], [0, 0], [0, 0]], rtol=1e-6)
    assert found.times.tolist() == [[0.5, 2], [2.25, 2.5], [5, 6], [1, 1]]


def test_alignment_of_nothing_is_zero():
    nothing = Steps(np.zeros((0, 3), np.float32), np.zeros((0, 2), np.float32))
    assert average_within(nothing, np.array([[0, 1]], np.float32)).values.tolist() == [[0, 0, 0]]
    steps = Steps(np.ones((2, 3), np.float32), np.array([[0, 1], [1, 2]], np.float32))
    assert average_within(steps, np.zeros((0, 2), np.float32)).values.shape == (0, 3)
