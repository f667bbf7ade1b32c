"""`python -m benchmarks bench-data`: the data stages beside plain ways with the same material, in one run.

Speed, memory, disk, and the faces found.
"""

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.data.detection import FullDetector, agreement_row, decode, detect
from benchmarks.data.jpegs import write_jpegs
from benchmarks.data.memory import memory_rows
from benchmarks.data.page import as_markdown
from benchmarks.rows import measured_on, rounded, write_result
from data_tools.faces.detector import FaceDetector
from data_tools.manifest import read_manifest
from data_tools.media.plain import PlainPass, transcode
from data_tools.media.source import probe
from data_tools.standin.release import write_standin
from pipeline.clip_tensors import FaceSettings
from pipeline.jobs.local import available_cores
from pipeline.preprocess import PreprocessSettings, preprocess
from pipeline.progress import Reporter
from pipeline.reorganize import ReorganizeSettings, reorganize
from pipeline.settings import ModelSpec, load_config
from pipeline.train import train
from pipeline.training.settings import TrainSettings

MATERIAL_S = 300.0
REPEATS = 3
LENGTHS_S = (60.0, 1800.0)
PUBLISHED_EPOCHS = 40
# A little less than the stand-ins have, so that there is always enough.
_VIDEO_S_AN_UTTERANCE = {"iemocap": 3.4, "mosei": 4.7}
# The left actor's half without its bars; both halves have this size.
_HALF = (0, 120, 360, 240)


def bench_data(
    out: Path,
    reporter: Reporter,
    seconds: float = MATERIAL_S,
    repeats: int = REPEATS,
    lengths_s: Sequence[float] = LENGTHS_S,
) -> dict[str, Any]:
    """Measure the data stages and write `out`/data-cpu.json, a line a row, and a page of it beside.

    Takes about 15 minutes on two cores and wants the machine for itself. What is compared runs in turn, A B A B, so
    that a drifting machine slows both; medians. seconds: of stand-in video, at least, from each corpus.
    lengths_s: of the short and the long video whose memory is compared. Returns {"rows": [...], "files": [...]}.

    Raises:
        DataError: `out` or the folder for temporary files cannot be written to.
    """
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        for dataset in _VIDEO_S_AN_UTTERANCE:
            material = _Material.write(dataset, Path(name) / dataset, seconds, reporter)
            rows += _corpus_rows(material, repeats, reporter)
            if dataset == "iemocap":
                rows += memory_rows(max(material.sources, key=lambda video: video.stat().st_size), lengths_s, reporter)
                rows.append(_waiting_row(material))
    where = measured_on(f"CPU {torch.backends.cpu.get_cpu_capability()}, {available_cores()} cores")
    rows = [rounded(row) | where for row in rows]
    files = write_result(out, "data-cpu", rows, as_markdown(rows))
    reporter.say(f"written: {', '.join(map(str, files))}")
    return {"rows": rows, "files": [str(path) for path in files]}


@dataclass(frozen=True)
class _Material:
    """A stand-in release and where its data goes. sources: its videos, source_s: their length together."""

    dataset: str
    folder: Path
    root: Path
    sources: list[Path]
    source_s: float
    utterances: int

    @classmethod
    def write(cls, dataset: str, folder: Path, seconds: float, reporter: Reporter) -> "_Material":
        """Write a stand-in release with at least `seconds` of video into `folder`/raw."""
        utterances = max(6, math.ceil(seconds / _VIDEO_S_AN_UTTERANCE[dataset]))
        summary = write_standin(
            dataset, folder / "raw", utterances=utterances, workers=available_cores(), track=reporter.track
        )
        root = Path(summary["folder"])
        sources = sorted(path for path in root.rglob("*") if path.suffix in (".avi", ".mp4") and path.name[0] != ".")
        return cls(dataset, folder, root, sources, sum(probe(video).duration_s for video in sources), utterances)

    def data(self, turn: int) -> Path:
        """The data folder of one repeat."""
        return self.folder / f"data{turn}"

    def clips(self) -> list[Path]:
        """The clips of the first repeat."""
        return [self.data(0) / clip for clip in read_manifest(self.data(0))["clip"]]


def _corpus_rows(material: _Material, repeats: int, reporter: Reporter) -> list[dict[str, Any]]:
    reporter.say(f"{material.dataset}: {material.source_s:.0f} s of video, reorganize beside ffmpeg")
    cutting, passing, command = _time_reorganize(material, repeats)
    reporter.say(f"{material.dataset}: preprocess beside decoding and detecting")
    times = _time_preprocess(material, repeats)
    reporter.say(f"{material.dataset}: the published way")
    jpegs = material.folder / "jpegs"
    jpegs.mkdir()
    started = time.perf_counter()
    jpeg_bytes = write_jpegs(material.sources, jpegs, halves=material.dataset == "iemocap")
    jpeg_s = time.perf_counter() - started
    published_s = jpeg_s + PUBLISHED_EPOCHS * times["full passes"]
    bytes_on_disk = sum(path.stat().st_size for path in material.data(0).rglob("*") if path.is_file())
    table = read_manifest(material.data(0))
    about = {
        "corpus": material.dataset,
        "source_s": material.source_s,
        "clips": len(table),
        "clip_s": float((table["end_s"] - table["start_s"]).sum()),
        "made_by": f"pipeline standin --dataset {material.dataset} --utterances {material.utterances} --out RAW",
    }
    cut = f"pipeline reorganize --dataset {material.dataset} --root RAW --out DATA"
    process = "pipeline preprocess --data DATA"
    rows = [_row("reorganize", cutting, cut, "one ffmpeg process", passing, command, 1.3)]
    for name, by in (
        ("full passes", "MTCNN.detect of facenet-pytorch, with one thread or all, whichever is faster,"),
        ("own passes", "FaceDetector.detect, with one thread,"),
    ):
        how = (
            f"one process, read_frames {times['decoding']:.1f} s + {by} {times[name]:.1f} s on the same sampled frames"
        )
        together = times["decoding"] + times[name]
        rows.append(_row("preprocess", times["preprocess"], process, f"decoding + {name}", together, how, 1.25))
    how = (
        f"measured: all videos decoded into memory and every frame written as JPEG, {jpeg_s:.1f} s; computed: "
        f"{PUBLISHED_EPOCHS} epochs of full detection, {PUBLISHED_EPOCHS} x the {times['full passes']:.1f} s measured "
        f"on our frames and for faces from {FaceSettings().min_face_px} px (published: from 20 px, which costs more)"
    )
    both = f"{cut}; {process}"
    rows.append(_row("both stages", cutting + times["preprocess"], both, "published way", published_s, how, 0.2))
    wav_bytes = sum(path.stat().st_size for path in material.data(0).rglob("*.wav"))
    how = "the JPEG files, measured, and wavs as large as ours"
    on_disk = _row("disk", bytes_on_disk, both, "published way", jpeg_bytes + wav_bytes, how, 0.1)
    return [row | about for row in [*rows, on_disk | {"unit": "bytes"}, agreement_row(material.clips())]]


def _row(
    work: str, value: float, how: str, compared_to: str, compared_value: float, compared_how: str, target: float
) -> dict[str, Any]:
    return {
        "work": work,
        "unit": "s",
        "value": value,
        "how": how,
        "compared_to": compared_to,
        "compared_value": compared_value,
        "compared_how": compared_how,
        "ratio": value / compared_value,
        "target": target,
    }


def _time_reorganize(material: _Material, repeats: int) -> tuple[float, float, str]:
    """Seconds of the stage, seconds of ffmpeg, and the beginning of ffmpeg's command."""
    values = load_config("datasets", material.dataset) | {"root": material.root}
    crf = ReorganizeSettings.checked(values, "bench").crf
    commands: list[str] = []

    def cut(turn: int) -> None:
        settings = ReorganizeSettings.checked(values | {"out": material.data(turn)}, "bench")
        reorganize(settings, Reporter(quiet=True))

    def plain(turn: int) -> None:
        commands.append(transcode(list(_plain_passes(material, turn)), crf))

    cutting, passing = _in_turn([cut, plain], repeats)
    return cutting, passing, shortened(commands[0].replace(f"{material.folder}/", ""))


def _plain_passes(material: _Material, turn: int) -> Iterator[PlainPass]:
    """Every source video decoded whole, and the seconds that its clips show encoded, in the clips' size, with sound."""
    box = _HALF if material.dataset == "iemocap" else None
    table = read_manifest(material.data(0))
    sources = {video.name: video for video in material.sources}
    for name, rows in table.groupby(table["source_video"].map(lambda path: Path(path).name)):
        intervals = [(max(0.0, start_s), end_s) for start_s, end_s in zip(rows["start_s"], rows["end_s"], strict=True)]
        target = material.folder / f"plain{turn}" / f"{Path(str(name)).stem}.mp4"
        target.parent.mkdir(exist_ok=True)
        yield PlainPass(sources[str(name)], target, box, intervals, sound=True)


def _time_preprocess(material: _Material, repeats: int) -> dict[str, float]:
    """Seconds of the stage, of decoding, and of the detectors' bare passes on frames in memory."""
    faces = FaceSettings()
    clips = material.clips()
    frames = list(decode(clips, faces.sample_every_ms))
    full, own = FullDetector(faces.min_face_px), FaceDetector("cpu", faces.min_face_px)
    works: dict[str, Callable[[int], object]] = {
        "preprocess": lambda turn: preprocess(PreprocessSettings(data=material.data(turn)), Reporter(quiet=True)),
        "decoding": lambda _turn: [None for _ in decode(clips, faces.sample_every_ms)],
        "full passes": lambda _turn: detect(full, frames, faces.batch_frames),
        "full passes in one thread": lambda _turn: detect(full, frames, faces.batch_frames, threads=1),
        "own passes": lambda _turn: detect(own, frames, faces.batch_frames),
    }
    times = dict(zip(works, _in_turn(list(works.values()), repeats), strict=True))
    # Pictures as small as these gain little from more threads, and lose much where the cores are not free.
    times["full passes"] = min(times["full passes"], times.pop("full passes in one thread"))
    return times


def _waiting_row(material: _Material) -> dict[str, Any]:
    settings = TrainSettings(data=material.data(0), out=material.folder / "run", epochs=1, monitor="loss", device="cpu")
    trained = train(settings, ModelSpec.from_dict(load_config("models", "mesm")["model"]), Reporter(quiet=True))
    return {
        "work": "waiting for data",
        "corpus": material.dataset,
        "model": "mesm",
        "share": trained["data_wait_share"],
    }


def _in_turn(works: Sequence[Callable[[int], object]], repeats: int) -> list[float]:
    """Median seconds of each of `works`, run in turn."""
    taken: list[list[float]] = [[] for _ in works]
    for turn in range(repeats):
        for work, seconds in zip(works, taken, strict=True):
            started = time.perf_counter()
            work(turn)
            seconds.append(time.perf_counter() - started)
    return [statistics.median(seconds) for seconds in taken]


def shortened(command: str, most: int = 600) -> str:
    """The beginning of a long command: ffmpeg's names every video and every interval."""
    return command if len(command) <= most else f"{command[:most]} ... ({len(command)} characters)"
