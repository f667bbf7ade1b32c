"""Memory of the data stages on a short and on a long video, and of the published way on the short one."""

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data.jpegs import write_jpegs
from benchmarks.peak_memory import run_quietly, with_peak
from data_tools.media.audio import write_wav
from data_tools.media.plain import loop_video
from data_tools.media.source import probe
from data_tools.standin.iemocap_text import TimedLine, write_dialogue_texts
from pipeline.preprocess import PreprocessSettings, preprocess
from pipeline.progress import Reporter
from pipeline.reorganize import ReorganizeSettings, reorganize
from pipeline.settings import load_config

# IEMOCAP's 151 dialogues last 5 minutes on average.
USUAL_DIALOGUE_S = 300.0
_NAME = "Ses01F_impro01"
# Every ten seconds one of the two actors says something for four.
_TURN_S, _SPOKEN_S = 10, 4


def memory_rows(video: Path, lengths_s: Sequence[float], reporter: Reporter) -> list[dict[str, Any]]:
    """Rows of peak memory in bytes of one process, on IEMOCAP's `video` looped to the least and most of `lengths_s`."""
    peaks: dict[str, list[int]] = {"reorganize": [], "preprocess": []}
    with tempfile.TemporaryDirectory() as name:
        for length_s in sorted(lengths_s):
            folder = Path(name) / f"{length_s}"
            source = _write_release(folder / "raw", video, length_s)
            values = load_config("datasets", "iemocap") | {"root": folder / "raw", "out": folder / "data", "workers": 1}
            settings = ReorganizeSettings.checked(values, "bench")
            peaks["reorganize"].append(with_peak(run_quietly, reorganize, settings)[1])
            of_data = PreprocessSettings(data=folder / "data", workers=1)
            peaks["preprocess"].append(with_peak(run_quietly, preprocess, of_data)[1])
            reporter.say(f"memory on {length_s:.0f} s: {', '.join(f'{k} {v[-1] >> 20} MiB' for k, v in peaks.items())}")
            if length_s == min(lengths_s):
                jpegs = Path(name) / "jpegs"
                jpegs.mkdir()
                published = with_peak(write_jpegs, [source], jpegs, halves=True)[1]
    short_s, long_s = min(lengths_s), max(lengths_s)
    rows = [
        {
            "work": f"peak memory of {stage}",
            "corpus": "iemocap",
            "unit": "bytes",
            "value": long,
            "how": f"one process, one video of {long_s:.0f} s",
            "compared_to": f"the same on {short_s:.0f} s",
            "compared_value": short,
            "compared_how": f"one process, one video of {short_s:.0f} s",
            "ratio": long / short,
            "target": 1.25,
        }
        for stage, (short, long) in peaks.items()
    ]
    info = probe(video)
    grown = round((USUAL_DIALOGUE_S - short_s) * info.fps) * info.width * info.height * 3
    ours = max(max(values) for values in peaks.values())
    return [
        *rows,
        {
            "work": "peak memory of both stages",
            "corpus": "iemocap",
            "unit": "bytes",
            "value": ours,
            "how": f"the larger peak of the two on {long_s:.0f} s",
            "compared_to": "published way",
            "compared_value": published + grown,
            "compared_how": f"a video of {USUAL_DIALOGUE_S:.0f} s, as long as IEMOCAP's are on average, in memory: "
            f"{published} bytes measured on {short_s:.0f} s, and the bytes of the further frames",
            "ratio": ours / (published + grown),
            "target": 0.1,
        },
    ]


def _write_release(root: Path, video: Path, length_s: float) -> Path:
    """Write an IEMOCAP release of one dialogue, `video` over and over; returns its source video."""
    session = root / "IEMOCAP_full_release" / "Session1"
    source = session / "dialog" / "avi" / "DivX" / f"{_NAME}.avi"
    loop_video(video, source, length_s)
    lines = [
        TimedLine(f"{_NAME}_{'FM'[turn % 2]}{turn:03d}", turn * _TURN_S, turn * _TURN_S + _SPOKEN_S, "neu", "Yes.")
        for turn in range(int(length_s / _TURN_S))
    ]
    write_dialogue_texts(session / "dialog", _NAME, lines, odd=False, rng=random.Random(0))
    sound = np.random.default_rng(0).normal(0, 0.1, _SPOKEN_S * 16_000).astype(np.float32)
    for line in lines:
        write_wav(session / "sentences" / "wav" / _NAME / f"{line.utterance_id}.wav", sound)
    return source
