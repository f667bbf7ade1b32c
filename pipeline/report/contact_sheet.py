"""The contact sheet of one utterance: everything that is known of it, as values for inspect.html.j2."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from data_tools import mel
from data_tools.errors import DataError
from data_tools.media.audio import read_audio
from data_tools.media.frames import read_frames
from data_tools.records import LABEL_PREFIX, PRESENT_FROM, Reject
from data_tools.store import DialogueStore, SampleTensors, store_path
from pipeline.clip_tensors import FaceSettings
from pipeline.report.figures import data_uri, jpeg, mel_colors, png, spread

WIDTH_PX = 1080.0
WAVE_PX = 56.0
# Quieter sound than this is drawn as quiet: the noise of silence isn't blown up to full height.
_FULL_HEIGHT = 0.02
_MAX_COLUMNS = 2160
_MAX_TICKS = 14
_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600)


@dataclass(frozen=True)
class Timeline:
    """Everything across is in pixels of an axis of WIDTH_PX that begins at 0 s.

    end_s: where the axis ends. ticks: (x, seconds as text). wave: points of a polygon round the sound, y from 0 to
    WAVE_PX, empty where there is no sound. mel: a picture, low bands at the bottom; None where there is none. mel_x,
    mel_width: where it lies. frames: (x, whether a face was found, None where nobody looked) of each sampled frame.
    """

    end_s: float
    ticks: list[tuple[float, str]]
    wave: str
    mel: str | None
    mel_x: float
    mel_width: float
    frames: list[tuple[float, bool | None]]


def make_timeline(
    samples: np.ndarray, logmel: np.ndarray | None, frames: Sequence[tuple[float, bool | None]], end_s: float
) -> Timeline:
    """Lay out one utterance.

    samples: (S,) float32 at `mel.RATE_HZ`, may be empty. logmel: (M, 128), see `data_tools.mel.log_mel`.
    frames: (seconds, whether a face was found) of the sampled ones.
    end_s: the utterance's length; the axis is longer where the sound is.
    """
    end_s = max(end_s, len(samples) / mel.RATE_HZ, *(time_s for time_s, _ in frames), 1e-3)
    scale = WIDTH_PX / end_s
    hop_s = mel.HOP_MS / 1000
    rows = 0 if logmel is None else len(logmel)
    return Timeline(
        end_s=end_s,
        ticks=[(t * scale, f"{t:g}") for t in _ticks(end_s)],
        wave=_polygon(samples, len(samples) / mel.RATE_HZ * scale),
        mel=_mel_picture(logmel) if logmel is not None and rows else None,
        mel_x=-hop_s / 2 * scale,  # row m is centred on m * hop
        mel_width=rows * hop_s * scale,
        frames=[(time_s * scale, found) for time_s, found in frames],
    )


def _ticks(end_s: float) -> list[float]:
    step = next((s for s in _STEPS_S if end_s / s <= _MAX_TICKS), _STEPS_S[-1])
    return [round(k * step, 1) for k in range(int(end_s / step + 1e-6) + 1)]


def _polygon(samples: np.ndarray, width: float) -> str:
    """The largest sample of every half pixel from left to right, then the smallest ones back."""
    if not len(samples):
        return ""
    columns = min(len(samples), max(1, round(2 * width)))
    first = np.arange(columns) * len(samples) // columns
    high = np.maximum(np.maximum.reduceat(samples, first), 0)
    low = np.minimum(np.minimum.reduceat(samples, first), 0)
    unit = WAVE_PX / 2 / max(float(np.abs(samples).max()), _FULL_HEIGHT)
    x = (np.arange(columns) + 0.5) * width / columns
    points = [
        *zip(x, WAVE_PX / 2 - high * unit, strict=True),
        *zip(x[::-1], WAVE_PX / 2 - low[::-1] * unit, strict=True),
    ]
    return " ".join(f"{across:.1f},{down:.1f}" for across, down in points)


def _mel_picture(logmel: np.ndarray) -> str:
    bands = np.ascontiguousarray(logmel.T, dtype=np.float32)
    size = (min(bands.shape[1], _MAX_COLUMNS), len(bands))
    return data_uri(jpeg(mel_colors(cv2.resize(bands, size, interpolation=cv2.INTER_AREA)), 80))


# Of a long utterance this many sampled frames are shown, evenly spread; the marks over the sound show all of them.
MAX_SHOWN = 12
_FRAME_HEIGHT_PX = 200


@dataclass(frozen=True)
class Shot:
    """A sampled frame. src: its picture. width, height: pixels of the clip, in which `box`, (x, y, side), counts.

    crop: the pixels that the model gets. score: of the detector, 0 where the middle stands in. All three are None where
    stage 2 has not been here.
    """

    time_s: float
    src: str
    width: int
    height: int
    box: tuple[float, float, float] | None = None
    crop: str | None = None
    score: float | None = None


@dataclass(frozen=True)
class Sheet:
    """One utterance. labels: (emotion, value, whether it counts as present). facts: (name, value), in order.

    shots: some of `sampled` frames. timeline: None where there is no clip.
    """

    utterance_id: str
    split: str
    text: str
    labels: list[tuple[str, str, bool]]
    facts: list[tuple[str, str]]
    rejects: list[Reject]
    notes: list[str]
    shots: list[Shot]
    sampled: int
    timeline: Timeline | None

    @property
    def present(self) -> str:
        """The emotions that count as present."""
        return ", ".join(emotion for emotion, _, marked in self.labels if marked)


def make_sheet(
    data: Path,
    utterance_id: str,
    row: pd.Series | None,
    emotions: list[str],
    rejects: list[Reject],
    settings: dict[str, Any],
) -> Sheet:
    """Gather one utterance; whatever cannot be read becomes a note.

    row: of the manifest; None where stage 1 rejected it. settings: of stage 2, empty where it has not finished.
    """
    if row is None:
        return Sheet(utterance_id, "", "", [], [], rejects, [], [], 0, None)
    features, notes = _features(data, row)
    every_ms = settings.get("faces", {}).get("sample_every_ms", FaceSettings().sample_every_ms)
    shots = _shots(data / row["clip"], every_ms, features, notes) if row["clip"] else []
    samples = _sound(data / row["wav"], notes) if row["wav"] else np.zeros(0, np.float32)
    seconds = float(row["end_s"] - row["start_s"])
    timeline = make_timeline(
        samples,
        features.logmel.numpy() if features else None,
        [(shot.time_s, None if shot.score is None else shot.score > 0) for shot in shots],
        seconds,
    )
    return Sheet(
        utterance_id=utterance_id,
        split=row["split"],
        text=row["text"],
        labels=[_label(emotion, float(row[LABEL_PREFIX + emotion])) for emotion in emotions],
        facts=_facts(row, len(samples) / mel.RATE_HZ),
        rejects=rejects,
        notes=notes,
        shots=[shots[i] for i in spread(len(shots), MAX_SHOWN)],
        sampled=len(shots),
        timeline=timeline,
    )


def _features(data: Path, row: pd.Series) -> tuple[SampleTensors | None, list[str]]:
    """Tensors that stage 2 made of the utterance, and a note where it made none."""
    path = store_path(data, row["dialogue_id"])
    command = f"pipeline preprocess --data {data}"
    if not path.is_file():
        return None, [f"Not preprocessed yet: no face has been looked for; run {command}"]
    try:
        store = DialogueStore(path)
    except DataError as error:
        return None, [str(error)]
    if row["utterance_id"] in store:
        return store[row["utterance_id"]], []
    if row["utterance_id"] in store.rejected:
        return None, []
    return None, [f"Not preprocessed since the clip was made; run {command}"]


def _shots(clip: Path, every_ms: int, features: SampleTensors | None, notes: list[str]) -> list[Shot]:
    """Every sampled frame of the clip, with what the store holds of it."""
    shots: list[Shot] = []
    try:
        for time_s, frame in read_frames(clip, every_ms):
            height, width = frame.shape[:2]
            shots.append(Shot(time_s, data_uri(jpeg(_shrunk(frame))), width, height))
    except DataError as error:
        notes.append(str(error))
    if features is None:
        return shots
    times_s = np.array([shot.time_s for shot in shots], np.float32)
    if not np.array_equal(times_s, features.face_time_s.numpy()):
        notes.append(
            f"The clip has {len(shots)} sampled frames, the store {len(features.faces)} at other times: one of them "
            "was made anew; run pipeline preprocess again"
        )
        return shots
    return [_with_face(shot, features, i) for i, shot in enumerate(shots)]


def _with_face(shot: Shot, features: SampleTensors, i: int) -> Shot:
    left, top, right, _ = features.face_box[i].tolist()
    return Shot(
        shot.time_s,
        shot.src,
        shot.width,
        shot.height,
        box=(left, top, right - left),
        crop=data_uri(png(features.faces[i].numpy())),
        score=float(features.face_score[i]),
    )


def _shrunk(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    if height <= _FRAME_HEIGHT_PX:
        return frame
    size = (max(1, round(width * _FRAME_HEIGHT_PX / height)), _FRAME_HEIGHT_PX)
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


def _sound(wav: Path, notes: list[str]) -> np.ndarray:
    try:
        return read_audio(wav)
    except DataError as error:
        notes.append(str(error))
        return np.zeros(0, np.float32)


def _label(emotion: str, value: float) -> tuple[str, str, bool]:
    return emotion, "" if value in (0.0, 1.0) else f"{value:.2f}", value >= PRESENT_FROM


def _facts(row: pd.Series, sound_s: float) -> list[tuple[str, str]]:
    seconds = row["end_s"] - row["start_s"]
    facts = [
        ("split", row["split"]),
        ("speaker", row["speaker"]),
        ("session", row["session"]),
        ("dialogue", row["dialogue_id"]),
        ("duration", f"{seconds:.3f} s; its sound {sound_s:.3f} s"),
        ("frames without a face", "not known" if pd.isna(row["no_face_share"]) else f"{row['no_face_share']:.1%}"),
        ("sentiment", "" if pd.isna(row["sentiment"]) else f"{row['sentiment']:+.2f}"),
        ("source", f"{row['start_s']:.3f} s to {row['end_s']:.3f} s of {row['source_video']}, {row['fps']:.3f} fps"),
        ("sound from", row["source_audio"] if row["source_audio"] != row["source_video"] else ""),
        ("clip", f"{row['clip']}, {row['wav']}"),
    ]
    return [(name, value) for name, value in facts if value]
