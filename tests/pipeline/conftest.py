"""A corpus of a few synthetic utterances, preprocessed and split, that trains in seconds."""

import numpy as np
import pytest
import torch

from data_tools.files import write_json
from data_tools.manifest import Clip, write_manifest
from data_tools.store import Features, store_path, write_dialogue

EMOTIONS = ("ang", "hap", "sad")


def write_corpus(folder, sizes, labels=None, standin=True, emotions=EMOTIONS):
    """`sizes`: split -> utterances. Utterance i has emotion i modulo 3 in its colour, its pitch and its words.

    The third utterance of every split has neither face nor sound nor words. labels: (split, i) -> {emotion: value}.
    """
    noise = np.random.default_rng(0)
    clips = []
    for split, count in sizes.items():
        features = {}
        for i in range(count):
            name, own = f"{split}_{i:02d}", i % len(emotions)
            values = labels(split, i) if labels else {e: float(k == own) for k, e in enumerate(emotions)}
            empty = i == 2
            n_faces, rows = (0, 0) if empty else (1 + i % 2, 40)
            faces = noise.integers(0, 60, (n_faces, 48, 48, 3), dtype=np.uint8)
            faces[..., own] += 150
            logmel = noise.normal(size=(rows, 128)).astype(np.float16)
            logmel[:, own * 40 : own * 40 + 30] += 4
            features[name] = Features(
                faces=torch.from_numpy(faces),
                face_time_s=torch.arange(n_faces) * 0.5,
                face_score=torch.ones(n_faces),
                face_landmarks=torch.zeros(n_faces, 5, 2),
                face_box=torch.zeros(n_faces, 4),
                logmel=torch.from_numpy(logmel),
            )
            text = "" if empty else f"word{own} and word{own}"
            paths = (f"clips/{name}.mp4", f"clips/{name}.wav")
            clips.append(
                Clip(name, f"dialogue_{split}", "s", "1", split, 0.0, 1.0, text, *paths, values, None, "v", "a", 25.0)
            )
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
def toy_corpus(tmp_path_factory):
    """8 train, 6 valid and 5 test utterances with one emotion each; not to be changed."""
    return write_corpus(tmp_path_factory.mktemp("data") / "toy", {"train": 8, "valid": 6, "test": 5})
