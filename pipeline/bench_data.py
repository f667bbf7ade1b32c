"""How fast the data stages are, beside the least that the same material costs with plain tools, in one run."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


from data_tools.faces import FaceDetector
from data_tools.manifest import read_manifest
from data_tools.media import probe, read_frames, transcode
from data_tools.standin import write_standin
from pipeline.config import FaceSettings, PreprocessSettings, ReorganizeSettings, TrainSettings, load_config
from pipeline.preprocess import preprocess
from pipeline.progress import Reporter
from pipeline.reorganize import reorganize
from pipeline.train import train

UTTERANCES = 60
REPEATS = 3


def bench_data(reporter: Reporter, repeats: int = REPEATS, utterances: int = UTTERANCES) -> list[dict[str, Any]]:
    """Rows for docs/benchmarks: each stage on a stand-in IEMOCAP, and what it is compared to, run in turn.

    - `reorganize` against `plain ffmpeg`: one ffmpeg process after the other decodes every source video, cuts out one
      actor's half and encodes it with the clips' settings, from beginning to end. The stage makes both actors'
      utterances and their sound; it works with as many processes as there are cores, ffmpeg with as many threads.
    - `preprocess` against `decode + detect`: decoding the same clips, and the detector's bare passes on the same
      sampled frames, in one process with all threads.

    - `waiting for data`: the share of MESM's training step, at its default sizes, in which the loop stands waiting.

    Medians over `repeats`; the ratio is of the medians.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_standin("iemocap", folder / "raw", utterances=utterances, track=reporter.track)
        root = folder / "raw" / "IEMOCAP_full_release"
        sources = sorted(root.glob("Session*/dialog/avi/DivX/Ses*.avi"))
        values = load_config("datasets", "iemocap") | {"root": root}
        quiet = Reporter(quiet=True)

        def cut(turn: int) -> None:
            settings = ReorganizeSettings.checked(values | {"out": folder / f"data{turn}"}, "bench")
            reorganize(settings, quiet)

        def plain(turn: int) -> None:
            for source in sources:
                transcode(source, folder / f"plain{turn}.mp4", box=(0, 120, 360, 240), crf=18)

        cutting, passing = _in_turn(cut, plain, repeats)
        table = read_manifest(folder / "data0")
        clip_seconds = float((table["end_s"] - table["start_s"]).sum())
        source_seconds = sum(probe(source).duration_s for source in sources)

        def process(turn: int) -> None:
            preprocess(PreprocessSettings(data=folder / f"data{turn}"), quiet)

        faces = FaceSettings()
        detector = FaceDetector("cpu", faces.min_face_px)

        def bare(turn: int) -> None:
            for clip in table["clip"]:
                frames = [frame for _, frame in read_frames(folder / f"data{turn}" / clip, faces.sample_every_ms)]
                for start in range(0, len(frames), faces.batch_frames):
                    detector.detect(frames[start : start + faces.batch_frames])

        processing, detecting = _in_turn(process, bare, repeats)
        trained = train(
            TrainSettings(data=folder / "data0", out=folder / "run", epochs=1, monitor="loss", device="cpu"),
            load_config("models", "mesm")["model"],
            quiet,
        )
    shared = {"clips": len(table), "clip_seconds": clip_seconds, "source_seconds": source_seconds}
    return [
        _row("reorganize", cutting, "plain ffmpeg", passing, shared),
        _row("preprocess", processing, "decode + detect", detecting, shared),
        {"work": "waiting for data", "model": "mesm", "share": trained["data_wait_share"]},
    ]


def _row(work: str, median_s: float, compared_to: str, compared_s: float, shared: dict[str, Any]) -> dict[str, Any]:
    ratio, rate = median_s / compared_s, shared["clips"] / median_s
    row = {"work": work, "median_s": median_s, "compared_to": compared_to, "compared_s": compared_s, "ratio": ratio}
    return row | {"clips_per_s": rate} | shared


def _in_turn(one: Callable[[int], None], other: Callable[[int], None], repeats: int) -> tuple[float, float]:
    """Median seconds of each, run A B A B so that a drifting machine slows both."""
    taken: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats):
        for work, seconds in zip((one, other), taken, strict=True):
            started = time.perf_counter()
            work(turn)
            seconds.append(time.perf_counter() - started)
    return statistics.median(taken[0]), statistics.median(taken[1])
