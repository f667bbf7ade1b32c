"""Sites that a trained MESM keeps: their share, their multiply-adds, and how often they lie on eyes and mouth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import models
from data_tools.batch import Batch
from data_tools.dataset import UtteranceDataset
from data_tools.store import DialogueStore, store_path
from models.layers.sparse.attention import CrossModalAttention
from models.mesm import MESM
from pipeline.metrics.metric import mean_and_spread
from pipeline.run import RunDir
from pipeline.settings import ConfigError
from pipeline.study.runs import SPLIT
from pipeline.training.batches import ordered_loader
from pipeline.training.data import load_unseen

# How often the attention is drawn anew for the control.
DRAWS = 5
# Largest distance that still counts as eye or mouth; in distances between the eyes.
RADIUS = 0.35
LEFT_EYE, RIGHT_EYE, LEFT_CORNER, RIGHT_CORNER = 0, 1, 3, 4


def kept_sites(run: RunDir, data: Path) -> dict[str, Any]:
    """Measures of the sites kept on test with the best weights.

    `kept_share`: tower -> stage -> kept sites over all sites. `multiply_adds`: of an utterance, by tower and in all.
    `lift`: stage of the face tower -> `trained` and `drawn_anew`: the share of kept sites that lie on eyes or mouth
    over that share of the sites that were active before the selection, over all faces that were found; 1 is chance.
    `drawn_anew` is the mean of `DRAWS` draws of the attention's weights in the otherwise same trained network.

    Raises:
        ConfigError: no face of test was found by the detector.
    """
    model = load_mesm(run)
    dataset = load_unseen(run, data, SPLIT)
    batches = list(ordered_loader(dataset, run.read_settings()[0].batch_size, models.tokenizer_for(model)))
    landmarks = landmarks_of(dataset)
    valid = is_valid(landmarks)
    if not valid.any():
        raise ConfigError(f"no face was found in {SPLIT} of {data}: there is no eye and no mouth to look for")
    with torch.inference_mode():
        inputs = [_faces_and_queries(model, batch) for batch in batches]
        found = _computed(model, batches)
        trained = _lift(model, inputs, landmarks, valid)
        drawn = []
        for seed in range(DRAWS):
            _draw_anew(model, seed)
            drawn.append(_lift(model, inputs, landmarks, valid))
    lift = {
        stage: {"trained": value, "drawn_anew": mean_and_spread([one[stage] for one in drawn])[0]}
        for stage, value in trained.items()
    }
    return found | {"lift": lift}


def load_mesm(run: RunDir) -> MESM:
    """Load the best weights of a run of MESM."""
    model = models.load(run.path)
    assert isinstance(model, MESM)
    return model


def _computed(model: MESM, batches: Sequence[Batch]) -> dict[str, Any]:
    sums: dict[str, float] = {}
    shares: dict[str, dict[str, list[Tensor]]] = {tower: {} for tower in model.towers}
    for batch in batches:
        output = model(batch, keep_maps=True)
        for name, kept in output.kept.items():
            tower, stage = name.split(".")
            shares[tower].setdefault(stage, []).append(kept.double().flatten(1).mean(1))
        for name, value in output.computed.items():
            if name.endswith(".macs"):
                sums[name] = sums.get(name, 0.0) + value.item()
    utterances = sum(len(batch) for batch in batches)
    macs = {name.removesuffix(".macs"): value / utterances for name, value in sums.items()}
    return {
        "kept_share": {
            tower: {stage: torch.cat(found).mean().item() for stage, found in stages.items()}
            for tower, stages in shares.items()
        },
        "multiply_adds": macs | {"all": sum(macs.values())},
    }


def _faces_and_queries(model: MESM, batch: Batch) -> tuple[Tensor, Tensor]:
    """Faces of a batch and the query of each."""
    state = None if model.text is None else model.text(batch.tokens, batch.token_mask)[0]
    return batch.faces, model.queries(state, batch).repeat_interleave(batch.face_counts, dim=0)


def _lift(
    model: MESM, inputs: Sequence[tuple[Tensor, Tensor]], landmarks: Tensor, valid: Tensor
) -> dict[str, float | None]:
    """Lift by stage; None for a stage where no active site lies on eyes or mouth."""
    stages = [model.towers["face"](faces, query).stages for faces, query in inputs if len(faces)]
    crop_px = next(faces.shape[-1] for faces, _ in inputs if len(faces))
    lifts: dict[str, float | None] = {}
    active: Tensor | None = None
    for number in range(len(stages[0])):
        kept = torch.cat([found[number].kept for found in stages])
        if active is None:
            active = torch.ones_like(kept)
        region = on_eyes_or_mouth(landmarks[valid], kept.shape[-1], crop_px)
        lifts[str(number + 1)] = lift(kept[valid], active[valid], region)
        active = F.max_pool2d(kept.float(), 2).bool()
    return lifts


def lift(kept: Tensor, active: Tensor, region: Tensor) -> float | None:
    """Lift: (kept sites in the region / kept sites) / (active ones in it / active ones); None if none is in it.

    All (F, H, W) bool; kept sites are active ones.
    """
    chance = (active & region).sum().item() / active.sum().item()
    return (kept & region).sum().item() / kept.sum().item() / chance if chance else None


def _draw_anew(model: MESM, seed: int) -> None:
    """Draw new random weights for eq. 1 and 2 of the face tower, as a new model would; the rest stays."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in model.towers["face"].modules():
            if isinstance(layer, CrossModalAttention):
                for part in (layer.of_map, layer.of_query, layer.score):
                    part.reset_parameters()


def landmarks_of(dataset: UtteranceDataset) -> Tensor:
    """Landmarks of all faces of `dataset` in its order: (F, 5, 2) x, y in crop pixels; NaN where no face was found."""
    stores: dict[str, DialogueStore] = {}
    found = []
    for dialogue_id, name in dataset.table[["dialogue_id", "utterance_id"]].itertuples(index=False):
        if dialogue_id not in stores:
            stores[dialogue_id] = DialogueStore(store_path(Path(dataset.data_dir), dialogue_id))
        found.append(stores[dialogue_id][name].face_landmarks)
    return torch.cat(found)


def is_valid(landmarks: Tensor) -> Tensor:
    """Mask of the faces that were found and whose eyes are apart: (F,) bool. landmarks: (F, 5, 2)."""
    return landmarks.isfinite().flatten(1).all(1) & (_between_eyes(landmarks) > 0)


def on_eyes_or_mouth(landmarks: Tensor, size: int, crop_px: int) -> Tensor:
    """Sites whose centre is within `RADIUS` of an eye, a corner of the mouth or its middle: (F, size, size) bool.

    landmarks: (F, 5, 2) of valid faces, in pixels of a crop that is `crop_px` wide and a map that is `size` wide.
    """
    corners = landmarks[:, [LEFT_CORNER, RIGHT_CORNER]]
    points = torch.cat([landmarks[:, [LEFT_EYE, RIGHT_EYE]], corners, corners.mean(1, keepdim=True)], dim=1)
    centre = (torch.arange(size) + 0.5) * (crop_px / size)
    sites = torch.stack(torch.meshgrid(centre, centre, indexing="xy"), dim=2).view(1, -1, 2)
    near = torch.cdist(sites.expand(len(points), -1, 2), points).amin(2) <= RADIUS * _between_eyes(landmarks)[:, None]
    return near.view(-1, size, size)


def _between_eyes(landmarks: Tensor) -> Tensor:
    return (landmarks[:, LEFT_EYE] - landmarks[:, RIGHT_EYE]).norm(dim=1)
