"""What a trained MESM keeps: shares of the sites, multiply-adds, and how often kept sites lie on eyes and mouth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import models
from benchmarks.selection.landmarks import is_valid, landmarks_of, on_eyes_or_mouth
from data_tools.batch import Batch
from models.layers.sparse.attention import CrossModalAttention
from models.mesm import MESM
from pipeline.metrics.seeds import mean_and_spread
from pipeline.run import RunDir
from pipeline.settings import ConfigError
from pipeline.study.runs import SPLIT
from pipeline.training.batches import ordered_loader
from pipeline.training.data import load_unseen

# How often the attention is drawn anew for the control.
DRAWS = 5


def kept_sites(run: RunDir, data: Path) -> dict[str, Any]:
    """Measures on test, with the best weights.

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
        asked = [_asked(model, batch) for batch in batches]
        found = _computed(model, batches)
        trained = _lift(model, asked, landmarks, valid)
        drawn = []
        for seed in range(DRAWS):
            _draw_anew(model, seed)
            drawn.append(_lift(model, asked, landmarks, valid))
    lift = {
        stage: {"trained": value, "drawn_anew": mean_and_spread([one[stage] for one in drawn])[0]}
        for stage, value in trained.items()
    }
    return found | {"lift": lift}


def load_mesm(run: RunDir) -> MESM:
    """The best weights of a run of MESM."""
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


def _asked(model: MESM, batch: Batch) -> tuple[Tensor, Tensor]:
    """The faces of a batch and the query of each."""
    state = None if model.text is None else model.text(batch.tokens, batch.token_mask)[0]
    return batch.faces, model.query(state, batch.face_counts, len(batch.faces))


def _lift(
    model: MESM, asked: Sequence[tuple[Tensor, Tensor]], landmarks: Tensor, valid: Tensor
) -> dict[str, float | None]:
    """Stage -> lift; None where none of its kept or active sites says anything."""
    stages = [model.towers["face"](faces, query).stages for faces, query in asked if len(faces)]
    crop_px = next(faces.shape[-1] for faces, _ in asked if len(faces))
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
    """(kept sites in the region / kept sites) / (active sites in the region / active sites); None without any.

    All (F, H, W) bool; kept sites are active ones.
    """
    chance = (active & region).sum().item() / active.sum().item()
    return (kept & region).sum().item() / kept.sum().item() / chance if chance else None


def _draw_anew(model: MESM, seed: int) -> None:
    """New random weights for eq. 1 and 2 of the face tower, as a new model would have; the rest stays."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in model.towers["face"].modules():
            if isinstance(layer, CrossModalAttention):
                for part in (layer.of_map, layer.of_query, layer.score):
                    part.reset_parameters()
