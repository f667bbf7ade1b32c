"""A corpus of a few synthetic utterances, preprocessed and split, that trains in seconds."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from data_tools.files import write_json, write_text
from data_tools.manifest import write_manifest
from data_tools.media.audio import write_wav
from data_tools.media.write import write_video
from data_tools.records import Clip
from data_tools.store import SampleTensors, store_path, write_dialogue
from pipeline.progress import Reporter
from pipeline.settings import ModelSpec
from pipeline.train import train
from pipeline.training.settings import TrainSettings

spec = ModelSpec.from_dict

EMOTIONS = ("ang", "hap", "sad")


def write_corpus(
    folder, sizes, labels=None, standin=True, emotions=EMOTIONS, sentiment=lambda split, i: None, prefix=""
):
    """`sizes`: split -> utterances. Utterance i has emotion i modulo 3 in its colour, its pitch and its words.

    The third utterance of every split has neither face nor sound nor words. labels: (split, i) -> {emotion: value}.
    sentiment: (split, i) -> value, None for none. prefix: of the ids.
    """
    noise = np.random.default_rng(0)
    clips = []
    for split, count in sizes.items():
        features = {}
        for i in range(count):
            name, own = f"{prefix}{split}_{i:02d}", i % (len(emotions) or 3)
            values = labels(split, i) if labels else {e: float(k == own) for k, e in enumerate(emotions)}
            empty = i == 2
            n_faces, rows = (0, 0) if empty else (1 + i % 2, 40)
            faces = noise.integers(0, 60, (n_faces, 48, 48, 3), dtype=np.uint8)
            faces[..., own] += 150
            logmel = noise.normal(size=(rows, 128)).astype(np.float16)
            logmel[:, own * 40 : own * 40 + 30] += 4
            features[name] = SampleTensors(
                faces=torch.from_numpy(faces),
                face_time_s=torch.arange(n_faces) * 0.5,
                face_score=torch.ones(n_faces),
                face_landmarks=torch.zeros(n_faces, 5, 2),
                face_box=torch.zeros(n_faces, 4),
                logmel=torch.from_numpy(logmel),
            )
            text = "" if empty else f"word{own} and word{own}"
            paths = (f"clips/{name}.mp4", f"clips/{name}.wav")
            place, source = (f"dialogue_{split}", "s", "1", split, 0.0, 1.0, text, *paths), ("v", "a", 25.0)
            clips.append(Clip(name, *place, values, sentiment(split, i), *source))
        write_dialogue(store_path(folder, f"dialogue_{split}"), features, "made by a test")
    write_manifest(folder, clips, emotions)
    write_json(folder / "dataset.json", {"dataset": "toy", "split": "session:5", "standin": standin})
    settings = {"faces": {"margin_px": 2}, "mel": {"n_fft": 1024}}
    fingerprints = {f"dialogue_{split}": "made by a test" for split in {clip.split for clip in clips}}
    write_json(folder / "store" / "store.json", {"settings": settings, "fingerprints": fingerprints})
    return folder


@pytest.fixture(scope="session")
def corpus_writer():
    """`write_corpus`, for tests that need a corpus of their own."""
    return write_corpus


@pytest.fixture(scope="session")
def two_corpora():
    """(folder, sizes, name of each split protocol) -> two corpora there, one emotion an utterance, and `names.yaml`.

    The first has ang, hap, sad, the second furious, glad, bored; the map has joy and anger of both, grief of the first.
    """

    def make(place, sizes, protocols):
        first = write_corpus(place / "first", sizes)
        second = write_corpus(
            place / "second", sizes, emotions=("furious", "glad", "bored"), prefix="b_", standin=False
        )
        for folder, name, protocol in zip((first, second), ("toy", "elsewhere"), protocols, strict=True):
            about = {"dataset": name, "split": protocol, "standin": folder == first, "task": "single-label"}
            write_json(folder / "dataset.json", about)
        (place / "names.yaml").write_text(
            "emotions: [joy, grief, anger]\n"
            "corpora:\n  toy: {ang: anger, hap: joy, sad: grief}\n  elsewhere: {furious: anger, glad: joy}\n"
        )
        return first, second

    return make


@pytest.fixture(scope="session")
def toy_corpus(tmp_path_factory):
    """8 train, 6 valid and 5 test utterances with one emotion each; not to be changed."""
    return write_corpus(tmp_path_factory.mktemp("data") / "toy", {"train": 8, "valid": 6, "test": 5})


@pytest.fixture(scope="session")
def trained(tmp_path_factory, toy_corpus):
    """(run folder, what `train` gave back) of a small model on the toy corpus; not to be changed."""
    run = tmp_path_factory.mktemp("runs") / "run"
    settings = TrainSettings(data=toy_corpus, out=run, epochs=3, batch_size=4, learning_rate=1e-2, device="cpu")
    model = {"name": "mesm", "top_p": 0.5, "text_encoder": "tiny", "width": 4, "layers": 1}
    return run, train(settings, spec(model), Reporter(quiet=True))


@pytest.fixture(scope="session", autouse=True)
def no_recogniser_unless_named():
    """As without the extra `asr`: the same answers with and without it, and no time spent on listening."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.asr.is_packaged", lambda: False)
        yield


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the trained run, to write into."""
    shutil.copytree(trained[0], tmp_path / "run")
    return tmp_path / "run"


def moving_pictures(count, seed):
    """A pattern that moves, so that every packet of the video holds something."""
    pattern = np.random.default_rng(seed).integers(0, 256, (8, 16, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    return [np.roll(pattern, 3 * number, axis=1) for number in range(count)]


def sound(seconds, seed):
    return np.random.default_rng(seed).normal(0, 0.1, round(16_000 * seconds)).astype(np.float32)


def make_iemocap(root):
    for seed, dialogue in enumerate(("Ses01F_impro01", "Ses04M_script02_2")):
        session = root / f"Session{dialogue[4]}"
        dialog = session / "dialog"
        write_video(dialog / "avi" / "DivX" / f"{dialogue}.avi", moving_pictures(50, seed), (128, 64), 25, "mpeg4")
        labels, texts = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n", f"{dialogue}_FXX0 [1-2]: hm\n"
        for turn, (start_s, end_s, code) in enumerate([(0.1, 0.8, "ang"), (0.7, 1.3, "sad"), (1.2, 1.9, "xxx")]):
            name = f"{dialogue}_{'FM'[turn % 2]}{turn:03}"
            labels += f"[{start_s:.4f} - {end_s:.4f}]\t{name}\t{code}\t[2.5000, 2.5000, 2.5000]\nC-E2:\tNeutral;\t()\n"
            texts += f"{name} [{start_s:08.4f}-{end_s:08.4f}]: This is turn {turn}.\n"
            write_wav(session / "sentences" / "wav" / dialogue / f"{name}.wav", sound(end_s - start_s, turn))
        write_text(dialog / "EmoEvaluation" / f"{dialogue}.txt", labels)
        write_text(dialog / "transcriptions" / f"{dialogue}.txt", texts)
    return root


def make_mosei(root):
    """Two videos; the first one has a wav, the sound of the second one is in its mp4."""
    emotions = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
    columns = ["Input.VIDEO_ID", "Input.CLIP", *(f"Answer.{e}" for e in emotions), "Answer.sentiment"]
    rows = []
    for seed, name in enumerate(("0-v_", "123")):
        wav = root / "Audio" / "Full" / "WAV_16000" / f"{name}.wav"
        write_wav(wav, sound(2, seed))
        video = root / "Videos" / "Full" / "Combined" / f"{name}.mp4"
        write_video(video, moving_pictures(50, seed), (128, 64), 25, audio=wav if seed else None)
        if seed:
            wav.unlink()
        lines = [(0, 0.0, 0.7), (1, 0.6, 1.3), (2, 1.2, 1.9)]
        text = "".join(f"{name}___{clip}___{start}___{end}___Text {clip}.\n" for clip, start, end in lines)
        write_text(root / "Transcript" / "Segmented" / "Combined" / f"{name}.txt", text)
        rows += [[name, str(clip), "1", "0", "0", "0", "2", "0", "-1.5"] for clip, _, _ in lines]
    (root / "Labels").mkdir()
    pd.DataFrame(rows, columns=columns).to_csv(root / "Labels" / "batch.csv", index=False)
    return root


@pytest.fixture(scope="session")
def release_makers():
    """Functions that write a small release with real media into a folder: corpus -> (folder -> folder)."""
    return {"iemocap": make_iemocap, "mosei": make_mosei}


@pytest.fixture(scope="session")
def media_makers():
    """(frames(count, seed) of 128 x 64 pixels, mono samples(seconds, seed) at 16 kHz), both full of detail."""
    return moving_pictures, sound
