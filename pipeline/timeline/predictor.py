"""A trained run, ready to score what it has not seen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

import models
from data_tools.batch import WAVEFORM
from data_tools.dataset import Sample, collate, to_sample
from data_tools.errors import DataError
from data_tools.faces.crop import LARGEST
from data_tools.faces.detector import FaceDetector
from data_tools.mel import CHUNK_FRAMES
from data_tools.store import SampleTensors
from data_tools.waveform import waveform
from pipeline.clip_tensors import FaceSettings, MelSettings
from pipeline.extract_sequences import FreshFeatures, Source
from pipeline.run import RunDir
from pipeline.settings import Device
from pipeline.timeline.tensors import Extractor
from pipeline.training.damage import in_order
from pipeline.training.device import choose_device
from pipeline.training.scoring import model_of_run, task_of_run

# (scores by name, predicted emotions), as `Task.answer` gives them.
Answer = tuple[dict[str, float], list[str]]


@dataclass(frozen=True)
class Piece:
    """One utterance to score: its tensors, its words and its sound.

    sound: a file, or (S,) float32 at 16 kHz; models that read it themselves need it. None where there is none.
    """

    name: str
    features: SampleTensors
    text: str
    sound: Path | np.ndarray | None

    @property
    def steps(self) -> int:
        """Faces and mel chunks: what the memory of a batch grows with."""
        return len(self.features.faces) + -(-len(self.features.logmel) // CHUNK_FRAMES)


class Predictor:
    """The model of a run with the settings that its data was preprocessed with.

    Attributes:
        extractor: makes tensors of films. task: of the run. thresholds: emotion -> score from which it is predicted,
            where nothing is absent. thresholds_of: the same by the letters of what there is.

    Raises:
        ConfigError: no such run, one that is not finished or whose features cannot be made of a film alone, or CUDA
            asked for where there is none.
    """

    def __init__(self, run: Path, device: Device) -> None:
        self._place = choose_device(device).type
        run_dir = RunDir.existing(run)
        self.thresholds_of = cache(run_dir.read_thresholds)
        self.thresholds, use = run_dir.read_thresholds(), run_dir.facts().features
        preprocessing = run_dir.read_preprocessing()
        # A store that names no choice is from before there was one.
        faces = {"choice": LARGEST} | preprocessing.get("faces", {})
        self._faces = FaceSettings.checked(faces, str(run_dir.data))
        mel = MelSettings.checked(preprocessing.get("mel", {}), str(run_dir.data))
        self.task = task_of_run(run_dir)
        self._model = model_of_run(run_dir).to(self._place).eval()
        self._fresh = None if use is None else FreshFeatures(use, self._model.config.feature_letters)
        self._tokenize = models.tokenizer_for(self._model)
        self.extractor = Extractor(FaceDetector(self._place, self._faces.min_face_px), self._faces, mel)

    def present(self, piece: Piece) -> str:
        """Letters of the model's modalities that the piece has anything of: words, sound, a face."""
        there = {
            "t": bool(piece.text.strip()),
            "a": len(piece.features.logmel) > 0,
            "v": bool((piece.features.face_score > 0).any()),
        }
        return "".join(letter for letter in in_order(self._model.config.modalities) if there[letter])

    def score(self, pieces: Sequence[Piece]) -> list[Answer]:
        """The answer for each piece, all in one batch.

        Raises:
            DataError: the sound of a piece cannot be read, or the model's scores are not finite.
        """
        if not pieces:
            return []
        batch = collate([self._sample(piece) for piece in pieces], self._tokenize).to(self._place)
        with torch.inference_mode():
            logits = self._model(batch).logits.float().cpu()
        if not torch.isfinite(logits).all():
            raise DataError("the scores are not finite: this model cannot answer for it")
        thresholds = [self.thresholds_of(self.present(piece)) for piece in pieces]
        return [self.task.answer(each, own) for each, own in zip(logits, thresholds, strict=True)]

    def mean(self, answers: Sequence[Mapping[str, float]], weights: Sequence[float], present: str) -> Answer:
        """The mean of several scores by name, and the emotions that it predicts.

        weights: one an answer, above 0. present: letters of the modalities that they rest on.
        """
        names = list(answers[0]) if answers else []
        scores = {name: float(np.average([answer[name] for answer in answers], weights=weights)) for name in names}
        return scores, self.task.predicted(scores, self.thresholds_of(present)) if scores else []

    def _sample(self, piece: Piece) -> Sample:
        sample = to_sample(piece.features, piece.name, piece.text, torch.zeros(len(self.task.emotions)))
        if self._model.config.waveform_encoder is not None:
            sample = replace(sample, features={WAVEFORM: waveform(piece.sound)})
        if self._fresh is not None:
            source = Source(piece.sound, piece.text, piece.features, self._faces.sample_every_ms)
            sample = replace(sample, features=self._fresh.make(source))
        return sample
