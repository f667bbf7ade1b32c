"""Cost of a data folder by its number of utterances, on folders that are simulated: no media are opened."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.cases import device_name
from benchmarks.peak_memory import with_peak
from benchmarks.rows import measured_on, merged, read_rows, write_result
from data_tools.dataset import UtteranceDataset
from data_tools.receipts import Dialogue, DialogueResult, Made, begin, write_receipt
from data_tools.store import SampleTensors
from pipeline.check_data import check_data
from pipeline.inspect import inspect
from pipeline.preprocess import PreprocessSettings, preprocess
from pipeline.progress import Reporter
from pipeline.reorganize import ReorganizeSettings, reorganize
from pipeline.settings import load_config
from pipeline.stats import stats
from pipeline.training.batches import EpochBatches, lengths_of

LAYOUTS = {"few": 100, "one each": 1}  # utterances of a dialogue
EMOTIONS = ("anger", "happiness", "sadness")
_SPLITS = ("train",) * 8 + ("valid", "test")
_CLIP_S = 2.0
_SAMPLES = 200
_QUIET = Reporter(quiet=True)


class Folders(NamedTuple):
    """A simulated release and the data folder made of it."""

    raw: Path
    data: Path


def make_folders(folder: Path, utterances: int, per_dialogue: int) -> Folders:
    """Write a release of `utterances` in videos of a few bytes, and the data folder that both stages make of it.

    The stages run as they are; only cutting and detection are replaced by writers of small files.
    """
    made = Folders(folder / "raw", folder / "data")
    made.raw.mkdir(parents=True)
    lines = ["video,start,end,text,label,split,dialogue"]
    for number in range(utterances):
        place = number % per_dialogue
        video, start_s = f"v{number // per_dialogue:07}.mp4", _CLIP_S * place
        if not place:
            (made.raw / video).write_bytes(f"video {number}".encode())
        label, split = EMOTIONS[number % len(EMOTIONS)], _SPLITS[number // per_dialogue % len(_SPLITS)]
        lines.append(f"{video},{start_s},{start_s + _CLIP_S},sentence {number},{label},{split},{video[:-4]}")
    (made.raw / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with patch("pipeline.reorganize.make_clips", _make_small_clips):
        reorganize(_cutting(made), _QUIET)
    with patch("pipeline.preprocess.extract_each", _small_tensors), patch("pipeline.preprocess._detector"):
        preprocess(_processing(made), _QUIET)
    return made


def scale(
    utterances: Sequence[int], layouts: Sequence[str], code: str, out: Path, reporter: Reporter
) -> dict[str, Any]:
    """Measure each piece of work on simulated folders of these sizes; write scale.json and scale.md to `out`.

    layouts: of LAYOUTS. code: the state of this project that is measured, in a word; rows of another one stay.

    Raises:
        DataError: nothing can be written.
    """
    about = measured_on(device_name("cpu")) | {"code": code}
    rows: list[dict[str, Any]] = []
    for layout in layouts:
        for count in sorted(utterances):
            with tempfile.TemporaryDirectory() as folder:
                made = make_folders(Path(folder), count, LAYOUTS[layout])
                for work, function in WORK.items():
                    (seconds, idle_bytes), peak = with_peak(_timed, function, made)
                    row = {"work": work, "layout": layout, "utterances": count, "seconds": round(seconds, 4)}
                    rows.append(row | {"bytes": peak - idle_bytes} | about)
                    reporter.say(f"{layout}, {count}: {work} {seconds:.2f} s, {(peak - idle_bytes) >> 20} MiB")
    rows = merged(read_rows(out / "scale.json"), rows)
    files = write_result(out, "scale", rows, as_markdown(rows))
    return {"rows": rows, "files": [str(path) for path in files]}


def growth(rows: Sequence[dict[str, Any]], row: dict[str, Any]) -> float | None:
    """Factor by which the seconds of `row` grew for each doubling since the next smaller size; None for the smallest.

    2 is linear, 1 does not grow, 4 is quadratic.
    """
    same = [other for other in rows if all(other[name] == row[name] for name in ("work", "layout", "code"))]
    smaller = [other for other in same if other["utterances"] < row["utterances"]]
    if not smaller:
        return None
    before = max(smaller, key=lambda other: other["utterances"])
    doublings = np.log2(row["utterances"] / before["utterances"])
    return float((row["seconds"] / before["seconds"]) ** (1 / doublings))


def as_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table for a person: a row a piece of work and layout, the sizes as columns."""
    sizes = sorted({row["utterances"] for row in rows})
    head = ["work", "dialogues", "code", *(f"{size:,}" for size in sizes), "us an utterance", "growth", "memory"]
    lines = [" | ".join(["", *head, ""]).strip(), "|" + "---|" * len(head)]
    for case in sorted({_case(row) for row in rows}, key=lambda case: (list(WORK).index(case[0]), *case[1:])):
        found = {row["utterances"]: row for row in rows if _case(row) == case}
        largest = found[max(found)]
        factor = growth(rows, largest)
        cells = [*case, *(f"{found[size]['seconds']:.2f} s" if size in found else "-" for size in sizes)]
        cells.append(f"{1e6 * largest['seconds'] / largest['utterances']:.1f}")
        cells += ["-" if factor is None else f"{factor:.2f}", f"{largest['bytes'] / 2**20:.0f} MiB"]
        lines.append(f"| {' | '.join(cells)} |")
    title = "# Cost by the number of utterances\n\nProcessor time of one process on simulated folders, without media. "
    title += "`few`: 100 utterances a dialogue.\n"
    legend = (
        "\nMemory: the most beyond an idle process, at the largest size. Growth: factor of the time for each doubling "
    )
    legend += "from the\nsize before the largest; 2.00 is linear.\n"
    return "\n".join([title, *lines, legend])


def _case(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["work"], row["layout"], row["code"]


def _timed(function: Callable[[Folders], float | None], made: Folders) -> tuple[float, int]:
    """(seconds of processor time, bytes resident before) of one piece of work, which may return its own seconds."""
    from data_tools.processes import resident_peak

    before, start = resident_peak(), time.process_time()
    own = function(made)
    return (time.process_time() - start if own is None else own), before


def _open(made: Folders) -> None:
    for split in ("train", "valid", "test"):
        UtteranceDataset(made.data, split)


def _lengths(made: Folders) -> float:
    data = UtteranceDataset(made.data)
    start = time.process_time()
    lengths_of(data)
    return time.process_time() - start


def _order(made: Folders) -> float:
    data = UtteranceDataset(made.data)
    order = EpochBatches(len(data), 32, 0, lengths_of(data))
    start = time.process_time()
    for _ in order:
        pass
    return time.process_time() - start


def _samples(made: Folders) -> float:
    data = UtteranceDataset(made.data)
    drawn = np.random.default_rng(0).integers(len(data), size=_SAMPLES).tolist()
    start = time.process_time()
    for index in drawn:
        data[index]
    return time.process_time() - start


def _stats(made: Folders) -> None:
    stats(made.data)


def _check(made: Folders) -> None:
    check_data(made.data, _QUIET)


def _inspect(made: Folders) -> None:
    inspect(made.data, (), None, 1, 0, _QUIET)


def _reorganize(made: Folders) -> None:
    reorganize(_cutting(made), _QUIET)


def _preprocess(made: Folders) -> None:
    preprocess(_processing(made), _QUIET)


WORK: dict[str, Callable[[Folders], float | None]] = {
    "open all splits": _open,
    "lengths": _lengths,
    "order of an epoch": _order,
    f"{_SAMPLES} random samples": _samples,
    "stats": _stats,
    "check --data": _check,
    "inspect": _inspect,
    "reorganize with nothing to do": _reorganize,
    "preprocess with nothing to do": _preprocess,
}


def _cutting(made: Folders) -> ReorganizeSettings:
    values = load_config("datasets", "folder") | {"root": made.raw, "out": made.data, "split": "release", "workers": 1}
    return ReorganizeSettings.checked(values, "benchmark")


def _processing(made: Folders) -> PreprocessSettings:
    return PreprocessSettings(data=made.data, workers=1, keep_blank=True)


def _make_small_clips(dialogue: Dialogue) -> DialogueResult:
    begin(dialogue)
    result = DialogueResult()
    dialogue.folder.mkdir(parents=True, exist_ok=True)
    for utterance in dialogue.utterances:
        for path in (dialogue.clip(utterance), dialogue.wav(utterance)):
            path.write_bytes(path.name.encode())
        result.made.append(Made(utterance.utterance_id, utterance.end_s, 25.0))
    write_receipt(dialogue, result)
    return result


def _small_tensors(files: Sequence[tuple[Path, Path]], *_: Any) -> Iterator[SampleTensors]:
    """A face of 8 x 8 pixels and a chunk of sound for each clip."""
    for _ in files:
        faces, ones = torch.zeros(1, 8, 8, 3, dtype=torch.uint8), torch.ones(1)
        box, logmel = torch.zeros(1, 4), torch.zeros(4, 128, dtype=torch.float16)
        yield SampleTensors(faces, ones * 0, ones, torch.zeros(1, 5, 2), box, logmel)
