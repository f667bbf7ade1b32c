"""One epoch of IEMOCAP's size: from memory, and through the real store and training."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cases import ALBERT_BASE, Case, Precision, Run
from benchmarks.gpu.plan import Sizes
from data_tools.batch import Batch

EPOCHS = 3
_EMOTIONS = ("ang", "exc", "fru", "hap", "neu", "sad")
_DIALOGUES = 151  # as IEMOCAP has
_WORDS = 400
_VALID = 64


def epoch_in_memory(batch: int, precision: Precision, sizes: Sizes, device: str) -> dict[str, Any]:
    """Time of training steps of FE2E over batches that lie in the device's memory: the training alone.

    The text encoder has albert-base-v2's sizes, the text `sizes.tokens` tokens. Returns the measured fields of a row.
    """
    batches = _draw_batches(batch, sizes, device)
    case = Case("whole model", None, precision, device, sizes.width)
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    run = Run(case, batches[0])
    # The last batch is the odd one, the largest one takes the most memory: both are met before anything is timed.
    for warm_up in (max(batches, key=lambda found: len(found.faces) + len(found.chunks)), batches[0], batches[-1]):
        run.do("training step", warm_up)
    seconds = []
    for _ in range(EPOCHS):
        run.wait()
        started = time.perf_counter()
        for found in batches:
            run.do("training step", found)
        run.wait()
        seconds.append(time.perf_counter() - started)
    return {
        "backend": "dense",
        "median_s": round(statistics.median(seconds), 4),
        "min_s": round(min(seconds), 4),
        "repeats": EPOCHS,
        "utterances": sizes.utterances,
        "peak_bytes": torch.cuda.max_memory_allocated() if torch.device(device).type == "cuda" else None,
    }


def epoch_from_store(
    batch: int, precision: Precision, sizes: Sizes, device: str, settings: dict[str, Any]
) -> dict[str, Any]:
    """Time of the same epoch by `pipeline train`: noise of the same counts in a data folder, its store, loader and log.

    settings: of the training, about where its data comes from. The first epoch isn't counted: it reads the disk cold
    and makes the kernels ready. Returns the measured fields of a row; `waiting_share`: of the time, for data.
    """
    from pipeline.progress import Reporter
    from pipeline.run import RunDir
    from pipeline.settings import ModelSpec
    from pipeline.train import train
    from pipeline.training.log import TrainLog
    from pipeline.training.settings import TrainSettings

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_noise(folder / "data", sizes)
        write_albert(folder / "albert", sizes.tokens)
        values = {"data": folder / "data", "out": folder / "run", "epochs": EPOCHS, "patience": EPOCHS}
        values |= {"batch_size": batch, "precision": precision, "device": torch.device(device).type} | settings
        model = {"name": "fe2e", "text_encoder": str(folder / "albert"), "width": sizes.width}
        train(TrainSettings.checked(values, "the benchmark"), ModelSpec.from_dict(model), Reporter(quiet=True))
        rows = TrainLog.read(RunDir(folder / "run").log)
    seconds = [float(row["train_seconds"]) for row in rows[1:]]
    waited = [float(row["data_wait_share"]) for row in rows[1:]]
    return {
        "backend": "dense",
        "median_s": round(statistics.median(seconds), 4),
        "min_s": round(min(seconds), 4),
        "first_s": round(float(rows[0]["train_seconds"]), 4),
        "repeats": len(seconds),
        "utterances": sizes.utterances,
        "waiting_share": round(statistics.median(waited), 4),
        "peak_bytes": torch.cuda.max_memory_allocated() if torch.device(device).type == "cuda" else None,
    }


def _draw_counts(sizes: Sizes) -> tuple[np.ndarray, np.ndarray]:
    """Faces and chunks of each utterance: at least one, with the stated means, as scattered as Poisson's."""
    draw = np.random.default_rng(0)
    return tuple(1 + draw.poisson(mean - 1, sizes.utterances) for mean in (sizes.faces, sizes.chunks))  # type: ignore[return-value]


def _draw_batches(batch: int, sizes: Sizes, device: str) -> list[Batch]:
    faces, chunks = _draw_counts(sizes)
    draw = torch.Generator().manual_seed(0)
    found = []
    for start in range(0, sizes.utterances, batch):
        n_faces, n_chunks = (torch.from_numpy(counts[start : start + batch]) for counts in (faces, chunks))
        count = len(n_faces)
        made = Batch(
            faces=torch.randint(0, 256, (int(n_faces.sum()), 3, 48, 48), dtype=torch.uint8, generator=draw),
            face_counts=n_faces,
            chunks=torch.randn(int(n_chunks.sum()), 1, 128, 32, generator=draw),
            chunk_counts=n_chunks,
            tokens=torch.randint(3, 1000, (count, sizes.tokens), generator=draw),
            token_mask=torch.ones(count, sizes.tokens, dtype=torch.bool),
            labels=torch.randint(0, 2, (count, len(_EMOTIONS)), generator=draw).float(),
            sentiment=torch.zeros(count),
            ids=tuple(f"u{start + i}" for i in range(count)),
        )
        found.append(made.to(device))
    return found


def write_noise(folder: Path, sizes: Sizes) -> None:
    """Write a data folder as stages 1 and 2 do, of noise and without clips: train of `sizes.utterances`, and valid."""
    from data_tools.files import write_json
    from data_tools.manifest import write_manifest
    from data_tools.records import Clip
    from data_tools.store import SampleTensors, store_path, write_dialogue

    draw = np.random.default_rng(1)
    faces, chunks = _draw_counts(sizes)
    names = [("train", f"u{i:05}", int(f), int(c)) for i, (f, c) in enumerate(zip(faces, chunks, strict=True))]
    names += [("valid", f"v{i:05}", sizes.faces, sizes.chunks) for i in range(min(_VALID, sizes.utterances))]
    clips: list[Clip] = []
    per_dialogue = -(-len(names) // min(_DIALOGUES, len(names)))
    dialogues = [names[start : start + per_dialogue] for start in range(0, len(names), per_dialogue)]
    for number, members in enumerate(dialogues):
        dialogue, features = f"d{number:03}", {}
        for split, name, n_faces, n_chunks in members:
            features[name] = SampleTensors(
                faces=torch.from_numpy(draw.integers(0, 256, (n_faces, 48, 48, 3), dtype=np.uint8)),
                face_time_s=torch.arange(n_faces) * 0.5,
                face_score=torch.ones(n_faces),
                face_landmarks=torch.zeros(n_faces, 5, 2),
                face_box=torch.zeros(n_faces, 4),
                logmel=torch.from_numpy(draw.standard_normal((32 * n_chunks, 128), np.float32)).half(),
            )
            text = " ".join(f"word{number}" for number in draw.integers(0, _WORDS, sizes.tokens - 2))
            labels = {emotion: float(draw.integers(0, 2)) for emotion in _EMOTIONS}
            paths = f"clips/{name}.mp4", f"clips/{name}.wav"
            clips.append(
                Clip(name, dialogue, "s", "1", split, 0.0, 4.5, text, *paths, labels, None, "noise", "noise", 25.0)
            )
        write_dialogue(store_path(folder, dialogue), features, "noise")
    write_manifest(folder, clips, _EMOTIONS)
    write_json(folder / "dataset.json", {"dataset": "noise", "split": "random", "standin": True})
    fingerprints = {f"d{number:03}": "noise" for number in range(len(dialogues))}
    settings = {"faces": {"margin_px": 2}, "mel": {"n_fft": 1024}}
    write_json(folder / "store" / "store.json", {"settings": settings, "fingerprints": fingerprints})


def write_albert(folder: Path, tokens: int) -> None:
    """Write a text encoder of albert-base-v2's sizes with random weights, and a tokenizer of the noise's words."""
    from tokenizers import Tokenizer, pre_tokenizers, processors
    from tokenizers import models as parts
    from transformers import AlbertConfig, AlbertModel, PreTrainedTokenizerFast

    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    words = [*special.values(), *(f"word{i}" for i in range(_WORDS))]
    tokenizer = Tokenizer(parts.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    AlbertModel(AlbertConfig(**ALBERT_BASE, max_position_embeddings=max(512, tokens))).save_pretrained(folder)
