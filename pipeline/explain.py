"""`pipeline explain`: sites that a sparse model keeps of the faces and the audio of single utterances."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import models
from data_tools.about import read_dataset_facts
from data_tools.dataset import Sample, UtteranceDataset, collate
from data_tools.files import atomic_path, check_writable, refuse_links
from data_tools.mel import CHUNK_FRAMES, CHUNK_MS, N_MELS
from models.base import Model
from pipeline.clip_tensors import FaceSettings
from pipeline.command import Command, fields_of
from pipeline.progress import Reporter
from pipeline.report.chosen import best_scores, check_known, one_of_each, truth
from pipeline.report.figures import data_uri, enlarge, figure_png, mel_image, mel_sites, show_kept, spread
from pipeline.report.pages import write_page
from pipeline.run import RunDir
from pipeline.run_data import notice_of
from pipeline.settings import OTHER_DATA_HELP, ConfigError, LocalPath, Names, Settings, flag
from pipeline.tasks.resolve import with_label
from pipeline.tasks.task import Task
from pipeline.training.data import check_fits
from pipeline.training.label_maps import relabel
from pipeline.training.scoring import model_of_run, task_of_run

PAGE = "explain.html"
# Of a long utterance this many faces are drawn, evenly spread.
MAX_FACES = 6


@dataclass(frozen=True)
class _Shown:
    """One utterance on the page. shares: (part, share of all sites that each attention layer kept). pictures: PNGs."""

    id: str
    split: str
    label: str
    text: str
    scores: str
    shares: list[tuple[str, list[str]]]
    pictures: list[tuple[str, str]]


class ExplainSettings(Settings):
    """Settings of `pipeline explain`."""

    run: LocalPath = flag(help="The run folder of a sparse model, mesm; a shared one, or hub:USER/NAME[@revision].")
    ids: Names = flag((), positional=True, help="Utterances; by default one of each emotion.")
    split: str = flag("test", help="The split that those are taken from when none is named.")
    data: LocalPath | None = flag(None, help=OTHER_DATA_HELP)
    out: LocalPath | None = flag(None, help="The folder to write into, by default explain in the run's.")


def explain(
    run: Path, ids: Sequence[str], split: str, data: Path | None, out: Path | None, reporter: Reporter
) -> dict[str, Any]:
    """Write a PNG of kept faces and one of kept audio for each utterance, and one page that holds them all.

    The kept sites are those of the best weights in evaluation: Figures 3, 4 and 6 of the MESM paper.

    ids: utterances of the data folder, in any split; where none is given, one of each emotion from `split`.
    data: another folder than the run was trained on. out: by default the folder `explain` of the run.

    Returns where the page and the pictures are.

    Raises:
        ConfigError: no such run, it isn't finished, its model keeps no sites, or the data have other emotions.
        DataError: an unknown id, data that are missing or preprocessed in another way, or nothing can be written.
    """
    run_dir = RunDir.existing(run)
    run_dir.read_thresholds()  # refuses an unfinished run before anything is loaded
    place = out or run_dir.path / "explain"
    if out is None:
        refuse_links(run_dir.path, place)
    check_writable(place / PAGE, "name another folder with --out")
    model = model_of_run(run_dir)
    if "top_p" not in type(model.config).model_fields:
        name = run_dir.read_settings()[1]["name"]
        raise ConfigError(f"{run_dir.path} is a run of {name}, which computes every site; explain needs one of mesm")
    folder = data or run_dir.own_data()
    task = task_of_run(run_dir)
    dataset, label_map = UtteranceDataset(folder), run_dir.facts().label_map
    if label_map is not None:
        (dataset,) = relabel([dataset], label_map, task.emotions)
    dataset = with_label(dataset, task.settings.task)
    check_fits(run_dir, folder, dataset)
    known = dataset.table["utterance_id"].tolist()
    check_known(ids, known, folder, ", among those that were preprocessed and have the label of the task")
    positions = [known.index(name) for name in dict.fromkeys(ids)] or one_of_each(dataset, task, split)
    step_s = _sample_every_s(run_dir)
    shown = [
        _explain_one(model, task, dataset, position, step_s, place)
        for position in reporter.track(positions, len(positions), "explain", "utterances")
    ]
    page = place / PAGE
    about = read_dataset_facts(folder)
    write_page(
        page,
        "report/explain.html.j2",
        title=f"What {run_dir.path.as_posix()} looks at",
        notice=notice_of(about),
        settings=model.config.model_dump(),
        layers=len(shown[0].shares[0][1]) if shown and shown[0].shares else 0,
        shown=shown,
        max_faces=MAX_FACES,
        trained_on=run_dir.learned_from(),
    )
    pictures = {one.id: [str(place / name) for name, _ in one.pictures] for one in shown}
    return {"page": str(page), "pictures": pictures}


def format_explanation(result: dict[str, Any]) -> str:
    """The answer of `explain` as a line for a person."""
    return f"{len(result['pictures'])} utterances in {result['page']}"


def _sample_every_s(run: RunDir) -> float:
    faces = run.read_preprocessing().get("faces", {})
    return FaceSettings.checked(faces, str(run.data)).sample_every_ms / 1000


def _explain_one(
    model: Model, task: Task, dataset: UtteranceDataset, position: int, step_s: float, place: Path
) -> _Shown:
    sample, row = dataset[position], dataset.table.iloc[position]
    with torch.inference_mode():
        output = model(collate([sample], models.tokenizer_for(model)), keep_maps=True)
    drawn = {"face": _faces(sample, output.kept, step_s), "mel": _sound(sample, output.kept)}
    pictures = []
    for part, picture in drawn.items():
        if picture is not None:
            name = f"{sample.id}.{part}.png"
            with atomic_path(place / name) as temporary:
                temporary.write_bytes(picture)
            pictures.append((name, data_uri(picture)))
    return _Shown(
        id=sample.id,
        split=row["split"],
        label=truth(task, sample),
        text=sample.text,
        scores=best_scores(task, output.logits[0]),
        shares=[(part, _shares(_layers(output.kept, part))) for part, picture in drawn.items() if picture is not None],
        pictures=pictures,
    )


def _shares(layers: Sequence[Tensor]) -> list[str]:
    return [f"{sites.float().mean().item():.0%}" for sites in layers]


def _layers(kept: dict[str, Tensor], part: str) -> list[Tensor]:
    """The kept sites of a tower after each attention layer; none where there was nothing to look at."""
    found = [sites for name, sites in sorted(kept.items()) if name.split(".")[0] == part]
    return found if found and len(found[0]) else []


def _faces(sample: Sample, kept: dict[str, Tensor], step_s: float) -> bytes | None:
    layers = _layers(kept, "face")
    if not layers:
        return None
    chosen = spread(len(sample.faces), MAX_FACES)
    crops = sample.faces[chosen].permute(0, 2, 3, 1).numpy()
    return faces_png(crops, [i * step_s for i in chosen], [sites[chosen].numpy() for sites in layers])


def _sound(sample: Sample, kept: dict[str, Tensor]) -> bytes | None:
    layers = _layers(kept, "mel")
    return mel_png(sample.chunks.numpy(), [sites.numpy() for sites in layers]) if layers else None


COMMAND = Command(
    explain,
    (ExplainSettings,),
    example="pipeline explain --run runs/first Ses05F_impro01_F000",
    read=fields_of(ExplainSettings),
    for_people=format_explanation,
    allows_dashes=True,
)


# A 48-pixel crop is drawn this many times as large, so that the sites' borders are sharp.
_TIMES = 3
# Figure 4 shows the highest tenth of the mel-spectrogram alone.
_HIGHEST = 0.1


def faces_png(faces: np.ndarray, times_s: Sequence[float], kept: Sequence[np.ndarray]) -> bytes:
    """One row a face: the crop, and what is kept of it after each attention layer, as PNG.

    faces: (n, 48, 48, 3) uint8 RGB, n >= 1. times_s: (n,), when each was seen. kept: a layer each, (n, h, w) bool.
    """
    columns = 1 + len(kept)
    figure = Figure(figsize=(1.7 * columns, 1.6 * len(faces) + 0.3), layout="constrained")
    grid = figure.subplots(len(faces), columns, squeeze=False)
    for row, (face, time_s) in enumerate(zip(faces, times_s, strict=True)):
        crop = enlarge(face, _TIMES)
        _picture(grid[row, 0], crop, f"{time_s:.1f} s")
        for layer, sites in enumerate(kept, start=1):
            _picture(grid[row, layer], show_kept(crop, sites[row]), _title(layer, sites[row]))
    return figure_png(figure)


def mel_png(chunks: np.ndarray, kept: Sequence[np.ndarray]) -> bytes:
    """One under the other: the mel-spectrogram, its highest tenth, and what is kept after each attention layer, as PNG.

    chunks: (C, 1, 128, 32), C >= 1. kept: a layer each, (C, h, w) bool.
    """
    sound = mel_image(chunks)
    pictures = [("log-mel", sound), ("its highest 10 %", show_kept(sound, highest(chunks)))]
    pictures += [(_title(n, sites), show_kept(sound, mel_sites(sites))) for n, sites in enumerate(kept, start=1)]
    seconds = len(chunks) * CHUNK_MS / 1000
    figure = Figure(figsize=(min(11.0, 2.5 + seconds), 1.3 * len(pictures) + 0.5), layout="constrained")
    for axes, (title, picture) in zip(figure.subplots(len(pictures), 1, sharex=True), pictures, strict=True):
        axes.imshow(picture, extent=(0, seconds, 0, N_MELS), aspect="auto", interpolation="nearest")
        axes.set_title(title, fontsize=8, loc="left")
        axes.set_ylabel("mel band", fontsize=7)
        axes.tick_params(labelsize=7)
    axes.set_xlabel("seconds", fontsize=7)
    return figure_png(figure)


def highest(chunks: np.ndarray) -> np.ndarray:
    """(128, 32 C) bool, laid out as `mel_image` does: the tenth of the sites of (C, 1, 128, 32) with most energy."""
    bands = np.concatenate(list(chunks[:, 0]), axis=1)[::-1]
    assert bands.shape == (N_MELS, CHUNK_FRAMES * len(chunks))
    return bands >= np.quantile(bands, 1 - _HIGHEST)


def _title(layer: int, sites: np.ndarray) -> str:
    return f"after attention {layer}: {sites.mean():.0%}"


def _picture(axes: Axes, image: np.ndarray, title: str) -> None:
    axes.imshow(image, interpolation="nearest")
    axes.set_title(title, fontsize=8)
    axes.set_axis_off()
