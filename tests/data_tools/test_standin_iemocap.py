"""The stand-in IEMOCAP against the real release's layout, line formats and media facts."""

import csv
import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

DIALOGUE = re.compile(r"^Ses0[1-5][FM]_(impro0[1-8][ab]?|script0[1-3]_[1-3]b?)$")
UTTERANCE = re.compile(r"^Ses0[1-5][FM]_(impro0[1-8][ab]?|script0[1-3]_[1-3]b?)_[FM](\d{3}|XX\d)$")
LABEL = re.compile(r"^\[(\d+\.\d{4}) - (\d+\.\d{4})\]\t(\S+)\t(\w+)\t\[(\d\.\d{4}), (\d\.\d{4}), (\d\.\d{4})\]$")
SPOKEN = re.compile(r"^(\S+) \[(\d{3}\.\d{4})-(\d{3}\.\d{4})\]: (.*)$")
CATEGORY = re.compile(r"^C-(E\d|F1|M1):\t([A-Z][a-z]+; ?)+\t\(.*\)$")
ATTRIBUTE = re.compile(r"^A-(E\d|F1|M1):\tval [1-5]; act [1-5]; dom  [1-5]?;\t\(.*\)$")


@pytest.fixture(scope="module")
def release(standin_iemocap):
    return standin_iemocap.folder


def visible(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


def labels(release: Path) -> dict[str, tuple[float, float, str, Path]]:
    """Utterance -> start, end, label, dialogue file: read by the formats written in the release's documentation."""
    found = {}
    for path in visible(release, "Session*/dialog/EmoEvaluation/*.txt"):
        for line in path.read_text().splitlines():
            if match := LABEL.match(line):
                found[match[3]] = (float(match[1]), float(match[2]), match[4], path)
    return found


def test_every_dialogue_has_its_video_sound_labels_and_words(release):
    assert sorted(path.name for path in release.glob("Session*")) == [f"Session{number}" for number in range(1, 6)]
    for session in release.glob("Session*"):
        dialog = session / "dialog"
        names = {path.stem for path in visible(dialog, "avi/DivX/*.avi")}
        assert names
        assert all(DIALOGUE.match(name) and name[4] == session.name[-1] for name in names)
        for pattern in ("wav/*.wav", "EmoEvaluation/*.txt", "transcriptions/*.txt"):
            assert {path.stem for path in visible(dialog, pattern)} == names
        for folder in ("Attribute", "Categorical", "Self-evaluation"):
            assert len(list((dialog / "EmoEvaluation" / folder).iterdir())) == len(names)
        assert {path.stem for path in visible(dialog, "lab/*/*.lab")} == names


def test_label_files_hold_only_lines_of_the_known_formats(release):
    for path in visible(release, "Session*/dialog/EmoEvaluation/*.txt"):
        lines = path.read_text().splitlines()
        assert lines[:2] == ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
        unknown = [
            line for line in lines[2:] if line and not any(kind.match(line) for kind in (LABEL, CATEGORY, ATTRIBUTE))
        ]
        assert unknown == []
        assert sum(bool(LABEL.match(line)) for line in lines) * 7 == sum(line[1:2] == "-" for line in lines)


def test_a_rater_without_dom_occurs(release):
    text = "".join(path.read_text() for path in visible(release, "Session*/dialog/EmoEvaluation/*.txt"))
    assert "; dom  ;\t" in text
    assert re.search(r"dom  \d;\t", text)


def test_two_raters_agree_on_each_label_and_on_none_where_it_is_xxx(release):
    words = {
        "ang": "Anger",
        "exc": "Excited",
        "fru": "Frustration",
        "hap": "Happiness",
        "neu": "Neutral",
        "sad": "Sadness",
    }
    seen = set()
    for path in visible(release, "Session*/dialog/EmoEvaluation/*.txt"):
        for block in path.read_text().strip().split("\n\n")[1:]:
            rows = block.splitlines()
            label = LABEL.match(rows[0])[4]
            votes = [row.split("\t")[1] for row in rows if row.startswith("C-E")]
            agreed = max(sum(vote.split(";")[0] == word for vote in votes) for word in words.values())
            if label in words:
                assert sum(words[label] in vote for vote in votes) >= 2
            elif label == "xxx":
                assert agreed <= 1
            seen.add(label)
    assert seen == {*words, "xxx"}


def test_words_and_labels_agree_on_times_and_xx_lines_are_labelled_nowhere(release):
    known = labels(release)
    spoken: dict[str, tuple[float, float]] = {}
    unlabelled, without_id = [], []
    for path in visible(release, "Session*/dialog/transcriptions/*.txt"):
        for line in path.read_text().splitlines():
            if match := SPOKEN.match(line):
                assert UTTERANCE.match(match[1])
                assert match[1].rsplit("_", 1)[0] == path.stem
                (unlabelled if "XX" in match[1] else []).append(match[1])
                spoken[match[1]] = (float(match[2]), float(match[3]))
            else:
                assert re.match(r"^[MF]: ", line)
                without_id.append(line)
    assert {name: times for name, times in spoken.items() if "XX" not in name} == {
        name: (start, end) for name, (start, end, *_) in known.items()
    }
    assert without_id
    assert {name[4] for name in unlabelled} == {"3", "5"}
    assert len(unlabelled) > len(set(unlabelled))  # duplicates, as in the real release
    assert not list(release.rglob("*XX*.wav"))


def test_all_ten_speakers_speak_and_numbers_run_from_000(release):
    ids = sorted(labels(release))
    assert {name[:5] + name.rsplit("_", 1)[1][0] for name in ids} == {
        f"Ses0{session}{letter}" for session in range(1, 6) for letter in "FM"
    }
    for dialogue in {name.rsplit("_", 1)[0] for name in ids}:
        for letter in "FM":
            numbers = [name[-3:] for name in ids if name.startswith(f"{dialogue}_{letter}")]
            assert numbers == [f"{number:03d}" for number in range(len(numbers))]


def test_sentence_wavs_are_the_samples_between_the_label_times(release):
    for name, (start, end, _, labels_path) in labels(release).items():
        session = labels_path.parents[2]
        path = session / "sentences" / "wav" / name.rsplit("_", 1)[0] / f"{name}.wav"
        info = soundfile.info(str(path))
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        first, last = start * 16000, end * 16000
        assert first == pytest.approx(round(first), abs=1e-6)
        assert last == pytest.approx(round(last), abs=1e-6)
        assert path.stat().st_size == 44 + 2 * (round(last) - round(first))
        dialogue, rate = soundfile.read(session / "dialog" / "wav" / f"{name.rsplit('_', 1)[0]}.wav", dtype="int16")
        assert rate == 16000
        assert dialogue.shape[1] == 2
        sentence = soundfile.read(path, dtype="int16")[0]
        cut = dialogue[round(first) : round(last)]
        assert any(np.array_equal(sentence, cut[:, channel]) for channel in (0, 1))
        assert np.sqrt(np.mean((sentence / 32768.0) ** 2)) > 0.01
        assert (session / "sentences" / "ForcedAlignment" / name.rsplit("_", 1)[0] / f"{name}.wdseg").is_file()


def test_stray_files_of_macos_are_binary(release):
    stray = list(release.rglob("._*"))
    assert {path.suffix for path in stray} == {".avi", ".wav", ".txt"}
    assert all(path.read_bytes()[:4] == b"\x00\x05\x16\x07" for path in stray)


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_video_is_divx_letterboxed_with_sound_as_long_as_the_wav(release):
    path = visible(release, "Session3/dialog/avi/DivX/*.avi")[0]
    with av.open(str(path)) as container:
        video, sound = container.streams.video[0], container.streams.audio[0]
        assert video.codec_context.codec_tag == "DIVX"
        assert video.codec_context.name == "mpeg4"
        assert (video.width, video.height, video.average_rate) == (720, 480, Fraction(30000, 1001))
        assert sound.channels == 2
    frames = frames_of(path)
    seconds = soundfile.info(str(path.parents[2] / "wav" / f"{path.stem}.wav")).duration
    assert len(frames) == pytest.approx(seconds * 30000 / 1001, abs=1)
    middle = frames[len(frames) // 2]
    assert middle[:118].max() < 24
    assert middle[362:].max() < 24
    assert middle[122:358, 8:352].min(axis=2).mean() > 40
    assert middle[122:358, 368:712].min(axis=2).mean() > 40


def test_who_speaks_moves_the_lips_on_the_side_of_the_naming_rule(release):
    """Left where speaker and marker letter agree. The mouth of the silent one moves less."""
    right = total = 0
    known = labels(release)
    videos = {path.stem: frames_of(path) for path in visible(release, "Session[12]/dialog/avi/DivX/*.avi")}
    for name, (start, end, *_) in known.items():
        dialogue = name.rsplit("_", 1)[0]
        if dialogue not in videos:
            continue
        frames = videos[dialogue]
        first, last = int(start * 29.97), int(end * 29.97)
        shown = np.stack(frames[first:last:2]).astype(float)
        mouths = {
            side: shown[:, 240:310, left : left + 60].std(axis=0).mean()
            for side, left in (("left", 150), ("right", 510))
        }
        speaker = name.rsplit("_", 1)[1][0]
        expected = "left" if speaker == dialogue[5] else "right"
        right += max(mouths, key=mouths.get) == expected
        total += 1
    assert right / total > 0.8


def test_expressions_are_the_same_on_other_actors():
    """A nearest-neighbour reader of mouth and brows, given one actor's expressions, names another actor's."""
    from data_tools.standin.cast import iemocap_performer
    from data_tools.standin.expressions import MANNERS
    from data_tools.standin.faces import Puppet
    from data_tools.standin.portraits import make_portrait

    six = ("ang", "exc", "fru", "hap", "neu", "sad")

    def changes(session: int, letter: str) -> np.ndarray:
        puppet = Puppet(make_portrait(iemocap_performer(session, letter).actor))
        pictures = [puppet.draw(MANNERS[emotion].face.vector()).astype(float).mean(axis=2) for emotion in six]
        faces = np.stack([picture[70:170, 130:220].ravel() for picture in pictures])
        return faces - faces.mean(axis=0)

    for letter in "FM":
        known, asked = changes(1, letter), changes(3, letter)
        near = [int(np.argmax([np.corrcoef(face, other)[0, 1] for other in known])) for face in asked]
        assert sum(place == guess for place, guess in enumerate(near)) >= 5


def test_truth_table_lists_every_labelled_utterance(release):
    rows = {row["utterance_id"]: row for row in csv.DictReader((release / "STANDIN.csv").open())}
    assert {name: row["label"] for name, row in rows.items()} == {
        name: label for name, (_, _, label, _) in labels(release).items()
    }
