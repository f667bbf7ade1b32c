"""Clips that hold nothing to see or nothing to hear: some releases have black pictures and mute sound among theirs."""

from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from data_tools.media.audio import read_audio
from data_tools.media.frames import read_frames
from data_tools.store import EMPTY, SampleTensors

# Standard deviation of each colour within a frame, of 255 levels. One painted colour has 0 after any codec; the
# darkest room that a camera films has more than this from its own noise and from what can just be seen.
FLAT_LEVELS = 2.0
# Level of all samples together, against a full-scale square wave: 3 steps of 16 bits. A muted track has none or 1 step
# of dither (-90 dB); the noise of a quiet room is above -70 dB.
SILENT_DBFS = -80.0


def blank(
    clip: Path | None, wav: Path | None, features: SampleTensors, sample_every_ms: int
) -> dict[str, tuple[str, str]]:
    """The modalities of a clip that show or say nothing, by letter, each with (reason, detail) to reject the clip.

    v, video:blank: each of its sampled frames is one flat colour. a, audio:silent: its sound is zero throughout, or
    nearly.

    clip, wav: None for an absent one. features: of the clip. One in which a face was found is not looked at again.

    Raises:
        DataError: as `read_frames` and `read_audio`.
    """
    found = {}
    if clip is not None and (problem := flat_picture(clip, features, sample_every_ms)):
        found["v"] = ("video:blank", problem)
    if wav is not None and (problem := silence(wav)):
        found["a"] = ("audio:silent", problem)
    return found


def without(features: SampleTensors, letters: Collection[str]) -> SampleTensors:
    """The tensors of a clip without its picture (v), its sound (a), or both."""
    if "v" in letters:
        features = replace(EMPTY, logmel=features.logmel)
    return replace(features, logmel=EMPTY.logmel) if "a" in letters else features


def flat_picture(video: Path, features: SampleTensors, sample_every_ms: int) -> str:
    """One sentence where each sampled frame of `video` is one flat colour, else nothing. features: as in `blank`.

    Raises:
        DataError: as `read_frames`.
    """
    if (features.face_score > 0).any():
        return ""
    levels = _flatness(frame for _, frame in read_frames(video, sample_every_ms))
    if levels is None:
        return ""
    return flat_sentence(levels)


def flat_sentence(levels: float) -> str:
    """The sentence on a picture whose frames deviate by no more than `levels`."""
    return (
        f"every sampled frame is one flat colour: its levels deviate by {levels:.2f} of 255 at most; "
        f"the limit is {FLAT_LEVELS:g}"
    )


def silence(audio: Path) -> str:
    """One sentence where the sound of `audio` is zero throughout, or nearly; else nothing.

    Raises:
        DataError: as `read_audio`.
    """
    dbfs = level_dbfs(read_audio(audio))
    return silent_sentence(dbfs) if dbfs < SILENT_DBFS else ""


def silent_sentence(dbfs: float) -> str:
    """The sentence on a sound of this level."""
    return f"its sound has a level of {dbfs:.1f} dBFS; the limit is {SILENT_DBFS:g} dBFS"


def _flatness(frames: Iterable[np.ndarray]) -> float | None:
    """The largest deviation in any frame; None as soon as one frame is not flat, the rest is not decoded then."""
    largest = 0.0
    for frame in frames:
        largest = max(largest, deviation_levels(frame))
        if largest > FLAT_LEVELS:
            return None
    return largest


def deviation_levels(frame: np.ndarray) -> float:
    """Standard deviation within a picture (H, W, 3) uint8, of the colour that varies most, in levels of 255."""
    return float(cv2.meanStdDev(frame)[1].max())


def level_dbfs(samples: np.ndarray) -> float:
    """Level of (S,) float32 samples in [-1, 1] about their mean (an offset is not heard), in dB; -120 at least."""
    return float(20 * np.log10(max(samples.astype(np.float64).std(), 1e-6)))
