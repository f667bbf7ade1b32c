"""`pipeline predict`: any media file and a run -> emotion scores, and what was absent in the file."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

import models
from data_tools import mel
from data_tools.batch import WAVEFORM
from data_tools.blank import flat_picture, silence
from data_tools.corpora.release import is_file
from data_tools.dataset import collate, to_sample
from data_tools.errors import DataError
from data_tools.faces.detector import FaceDetector
from data_tools.media.cut import END_SLACK_S
from data_tools.media.source import probe
from data_tools.store import SampleTensors
from data_tools.transcript import TRANSCRIPT_SUFFIXES, looks_like_a_file, read_transcript, words_of
from data_tools.waveform import waveform
from pipeline.clip_tensors import FaceSettings, MelSettings, extract_features
from pipeline.command import Command, fields_of
from pipeline.extract_sequences import FreshFeatures, Source
from pipeline.progress import Reporter
from pipeline.run import RunDir
from pipeline.settings import RUN_HELP, ConfigError, Device, LocalPath, Settings, flag
from pipeline.training.device import choose_device
from pipeline.training.scoring import model_of_run, task_of_run


class PredictSettings(Settings):
    """Settings of `pipeline predict`."""

    run: LocalPath = flag(help=RUN_HELP)
    files: tuple[Path, ...] = flag(positional=True, help="Video or audio files that ffmpeg reads.")
    transcript: str | None = flag(None, help="The words said: a text, or a file (.srt, .vtt, .ass, .json, .txt).")
    device: Device = flag("auto", help="auto, cpu or cuda.")


@dataclass(frozen=True)
class Prediction:
    """The answer for one file.

    scores: emotion -> score in [0, 1], or `sentiment` -> its value in the corpus' range, unclipped.
    predicted: emotions whose score reaches the run's threshold; of a single-label run the highest-scoring one.
    absent: what the file lacked, in words; the answer then rests on the rest. error: why there is no answer.
    """

    file: str
    scores: dict[str, float] = field(default_factory=dict)
    predicted: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    error: str | None = None


def predict(
    run: Path, files: Sequence[Path], transcript: str | None, device: Device, reporter: Reporter
) -> dict[str, Any]:
    """Scores of each file, taken whole as one utterance, with the preprocessing and thresholds of the run.

    transcript: the words said in the one file, or the path of a transcript of them; None for no words.
    Returns {"run", "task", "notice", "thresholds", "files": [Prediction as a dict]}. A file that cannot be read has
    an `error`.

    Raises:
        ConfigError: a transcript for several files or one that cannot be read, no such run, one whose features cannot
            be made of a file alone, or CUDA asked for where there is none.
    """
    if transcript is not None and len(files) != 1:
        raise ConfigError(f"--transcript goes with one file, {len(files)} were given; call once for each file")
    place = choose_device(device).type
    run_dir = RunDir.existing(run)
    thresholds, use = run_dir.read_thresholds(), run_dir.facts().features
    fresh = None if use is None else FreshFeatures(use)
    preprocessing = run_dir.read_preprocessing()
    faces = FaceSettings.checked(preprocessing.get("faces", {}), str(run_dir.data))
    mel_settings = MelSettings.checked(preprocessing.get("mel", {}), str(run_dir.data))
    task = task_of_run(run_dir)
    model = model_of_run(run_dir).to(place).eval()
    tokenize = models.tokenizer_for(model)
    detector = FaceDetector(place, faces.min_face_px)
    text = words_said(transcript) if transcript else ""

    answers: list[Prediction] = []
    for path in reporter.track(files, len(files), "predict", "files"):
        try:
            features, absent = _features(path, detector, faces, mel_settings)
        except DataError as error:
            answers.append(Prediction(str(path), error=str(error)))
            continue
        if not text.strip():
            absent.append("no words: no transcript was given")
        sample = to_sample(features, str(path), text, torch.zeros(len(task.emotions)))
        if model.config.waveform_encoder is not None:
            sample = replace(sample, features={WAVEFORM: waveform(path if len(features.logmel) else None)})
        if fresh is not None:
            source = Source(path if len(features.logmel) else None, text, features, faces.sample_every_ms)
            sample = replace(sample, features=fresh.make(source))
        with torch.inference_mode():
            logits = model(collate([sample], tokenize).to(place)).logits[0].float().cpu()
        if not torch.isfinite(logits).all():
            answers.append(Prediction(str(path), error="the scores are not finite: this model cannot answer for it"))
            continue
        answers.append(Prediction(str(path), *task.answer(logits, thresholds), absent))
    return {
        "run": str(run),
        "task": task.settings.task,
        "notice": task.facts.notice,
        "thresholds": thresholds,
        "files": [vars(answer) for answer in answers],
    }


def _features(
    path: Path, detector: FaceDetector, faces: FaceSettings, mel_settings: MelSettings
) -> tuple[SampleTensors, list[str]]:
    """The tensors of a file, and what it lacks in words; a damaged stream counts as absent beside a sound one.

    Raises:
        DataError: neither picture nor sound can be read.
    """
    info = probe(path)
    parts: dict[str, SampleTensors] = {}
    why: dict[str, str] = {}
    nothing_in: dict[str, str] = {}
    for kind, there in (("picture", info.has_video), ("sound", info.has_audio)):
        try:
            source = path if there else None
            video, audio = (source, None) if kind == "picture" else (None, source)
            parts[kind] = extract_features(video, audio, detector, faces, mel_settings)
            if not there:
                why[kind] = "the file has no such stream"
            elif empty := _nothing_in_it(video, audio, parts[kind], faces):
                nothing_in[kind] = empty
        except DataError as error:
            why[kind] = str(error)
    if len(why) == 2:
        raise DataError(f"{path} has neither picture nor sound that can be read ({'; '.join(why.values())})")
    why |= nothing_in
    for kind in why:
        parts[kind] = extract_features(None, None, detector, faces, mel_settings)
    features = replace(parts["picture"], logmel=parts["sound"].logmel)
    absent = [f"no {kind}: {reason}" for kind, reason in why.items()]
    if "picture" not in why and not (features.face_score > 0).any():
        frames = len(features.faces)
        absent.append(f"no face: none found in {frames} sampled frames, the picture's centre stands in")
    if not why:
        absent += _ends_early(features, faces.sample_every_ms / 1000)
    return features, absent


def _nothing_in_it(video: Path | None, audio: Path | None, features: SampleTensors, faces: FaceSettings) -> str:
    """Reason for which `preprocess` would reject a picture as blank or a sound as silent; empty where it has none."""
    if video is not None:
        return flat_picture(video, features, faces.sample_every_ms)
    return silence(audio) if audio is not None else ""


def _ends_early(features: SampleTensors, step_s: float) -> list[str]:
    """One sentence where picture or sound ends long before the other."""
    picture_s, sound_s = float(features.face_time_s[-1]), len(features.logmel) * mel.HOP_SAMPLES / mel.RATE_HZ
    if sound_s < picture_s - END_SLACK_S:
        return [f"no sound after {sound_s:.2f} s: the pictures go on to {picture_s:.2f} s or more"]
    if picture_s + step_s < sound_s - END_SLACK_S:
        return [f"no picture after {picture_s + step_s:.2f} s: the sound goes on to {sound_s:.2f} s"]
    return []


def words_said(transcript: str) -> str:
    """The words of a transcript: the text itself, or those of a file without numbers, times and tags.

    What looks like a file (by its ending, or a slash in it and no blanks) or is one is never taken for the words.

    Raises:
        ConfigError: the file is missing, of a kind that is not read, or damaged.
    """
    path = Path(transcript)
    is_there = is_file(path)
    if not is_there and not looks_like_a_file(transcript):
        return transcript
    if not is_there:
        raise ConfigError(
            f"there is no transcript {transcript!r}; give one of {', '.join(TRANSCRIPT_SUFFIXES)}, or the words "
            "themselves (with a blank in them, if there is a slash)"
        )
    try:
        return words_of(read_transcript(path, remedy="save it as UTF-8"))
    except DataError as error:
        raise ConfigError(f"--transcript: {error}") from error


def format_predictions(result: dict[str, Any]) -> str:
    """The result for a person: a block a file, the scores with their thresholds, what was absent."""
    lines = [result["notice"]] if result["notice"] else []
    for answer in result["files"]:
        lines.append(answer["file"])
        if answer["error"]:
            lines.append(f"  error: {answer['error']}")
            continue
        for name, score in sorted(answer["scores"].items(), key=lambda item: -item[1]):
            shown = f"{score:+.3f}" if result["task"] == "sentiment" else f"{score:.3f}"
            threshold = f"threshold {result['thresholds'][name]:.2f}  " if name in result["thresholds"] else ""
            mark = "yes" if name in answer["predicted"] else ""
            lines.append(f"  {name:<10} {shown}  {threshold}{mark}".rstrip())
        lines += [f"  {absent}" for absent in answer["absent"]]
    return "\n".join(lines)


def failed(result: dict[str, Any]) -> bool:
    """True where a file got no answer."""
    return any(answer["error"] for answer in result["files"])


COMMAND = Command(
    predict,
    (PredictSettings,),
    example='pipeline predict --run runs/first film.mp4 --transcript "I am so glad you came."',
    read=fields_of(PredictSettings),
    for_people=format_predictions,
    failed=failed,
)
