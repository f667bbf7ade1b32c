"""Whose face: both rules on the stand-in IEMOCAP's dialogues, where two people are seen and it is known who speaks."""

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.corpora.readers import read_release
from data_tools.faces.crop import SPEAKING, FaceCrops, crop_mixed
from data_tools.faces.detector import Candidates, FaceDetector
from data_tools.faces.mouth import GREY_PX, watched
from data_tools.media.audio import read_intervals
from data_tools.media.frames import read_frames_within
from data_tools.records import Utterance
from data_tools.standin.iemocap_plan import SIX_CLASSES
from data_tools.standin.release import write_standin
from pipeline.clip_tensors import FaceSettings, MelSettings, extract_features
from pipeline.progress import Reporter

# The middle of the stand-in's pictures, in pixels.
_MIDDLE_PX = 360
_REPEATS = 3


class _Remembering:
    """A detector that looks at every picture once: the rules are given the same faces."""

    def __init__(self, min_face_px: int) -> None:
        self._detector, self._known = FaceDetector(min_face_px=min_face_px), dict[bytes, Candidates]()

    def detect(self, frames: Sequence[np.ndarray]) -> list[Candidates]:
        for frame in frames:
            if (key := frame.tobytes()) not in self._known:
                (self._known[key],) = self._detector.detect([frame])
        return [self._known[frame.tobytes()] for frame in frames]


def who_speaks(utterances: int, reporter: Reporter) -> dict[str, Any]:
    """Count the utterances in which each rule takes the speaker, and measure the cost on films of one face and of two.

    Right is an utterance more than half of whose crops are on the speaker's side of the picture. `another_voice`: the
    sound is that of another dialogue's utterance, as if the speaker were off the screen.
    """
    counts = dict.fromkeys(("utterances", "largest_right", "speaking_right", "stood_out", "stood_out_right"), 0)
    counts["another_voice_stood_out"] = 0
    with tempfile.TemporaryDirectory() as folder:
        for dataset in ("iemocap", "mosei"):
            write_standin(dataset, Path(folder), utterances=utterances if dataset == "iemocap" else 6)
        release = read_release("iemocap", Path(folder), SIX_CLASSES)
        dialogues: dict[Path, list[Utterance]] = {}
        for utterance in release.utterances:
            dialogues.setdefault(release.root / utterance.source_video, []).append(utterance)
        sounds = {video: _sounds(video, spoken) for video, spoken in dialogues.items()}
        for video, spoken in reporter.track(dialogues.items(), len(dialogues), "who speaks", "dialogues"):
            others = [sound for name, each in sounds.items() if name != video for sound in each]
            _count(counts, video, spoken, sounds[video], others)
        one = next((Path(folder) / "CMU_MOSEI").rglob("*.mp4"))
        cost = {"two_faces_cost": _cost(next(iter(dialogues))), "one_face_cost": _cost(one)}
    return counts | cost


def _sounds(video: Path, spoken: Sequence[Utterance]) -> list[np.ndarray]:
    ordered = sorted(range(len(spoken)), key=lambda number: spoken[number].start_s)
    read = read_intervals(video, [(spoken[number].start_s, spoken[number].end_s) for number in ordered])
    found = dict(zip(ordered, read, strict=True))
    return [found[number] for number in range(len(spoken))]


def _count(
    counts: dict[str, int],
    video: Path,
    spoken: Sequence[Utterance],
    sounds: Sequence[np.ndarray],
    others: Sequence[np.ndarray],
) -> None:
    detector = _Remembering(FaceSettings().min_face_px)
    crops = partial(_crops, video, [(each.start_s, each.end_s) for each in spoken], detector)
    largest, speaking = crops(None), crops(lambda number: sounds[number])
    foreign = crops(lambda number: np.resize(others[number % len(others)], len(sounds[number])))
    for number, utterance in enumerate(spoken):
        right = {
            name: bool(np.mean((found[number].boxes[:, ::2].mean(1) < _MIDDLE_PX) == (utterance.half == "left")) > 0.5)
            for name, found in (("largest", largest), ("speaking", speaking))
        }
        stood_out = speaking[number].chosen_by == SPEAKING
        counts["utterances"] += 1
        counts["largest_right"] += right["largest"]
        counts["speaking_right"] += right["speaking"]
        counts["stood_out"] += stood_out
        counts["stood_out_right"] += stood_out and right["speaking"]
        counts["another_voice_stood_out"] += foreign[number].chosen_by == SPEAKING


def _crops(
    video: Path,
    intervals: Sequence[tuple[float, float]],
    detector: _Remembering,
    sound_of: Callable[[int], np.ndarray] | None,
) -> dict[int, FaceCrops]:
    settings = FaceSettings()
    frames = watched(read_frames_within(video, intervals, settings.sample_every_ms, GREY_PX))
    return dict(crop_mixed(((number, item) for number, _, item in frames), detector, sound_of=sound_of))


def _cost(video: Path) -> float:
    """Processor time of `speaking` over that of `largest`, the least of some turns each."""
    detector = FaceDetector(min_face_px=FaceSettings().min_face_px)
    times: dict[str, list[float]] = {"largest": [], "speaking": []}
    for _ in range(_REPEATS):
        for choice, spent in times.items():
            began = time.process_time()
            extract_features(video, video, detector, FaceSettings(choice=choice), MelSettings())
            spent.append(time.process_time() - began)
    return min(times["speaking"]) / min(times["largest"])


def as_text(result: dict[str, Any]) -> str:
    """A line a figure."""
    return "\n".join(f"{name:24} {value:.3g}" for name, value in result.items())
