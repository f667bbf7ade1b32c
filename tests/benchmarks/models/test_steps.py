"""Rows of the models, of their attention and of their loss curves, with tiny sizes."""

import pytest
import torch

from benchmarks.cases import Case, GraphedTower, Run, TowerFeatures
from benchmarks.models.attention import attention_rows
from benchmarks.models.curves import curve_rows
from benchmarks.models.steps import backends_used, bench_models
from models.layers.sparse.attention import CrossModalAttention
from pipeline.counting.noise import random_batch
from pipeline.progress import Reporter

QUIET = Reporter(quiet=True)


@pytest.mark.slow
def test_rows_of_every_work_and_model_with_their_ratio():
    sizes = {"batch": 2, "faces": 1, "chunks": 2, "tokens": 4, "width": 8}
    rows = bench_models(QUIET, **sizes, top_p=(0.3,), repeats=1, scopes=("towers only",))
    assert [(row["work"], row["model"], row["top_p"]) for row in rows] == [
        (f"{work}, towers only", model, top_p)
        for work in ("forward", "training step")
        for model, top_p in (("fe2e", None), ("mesm", 0.3))
    ]
    assert all(0 < row["min_s"] <= row["median_s"] for row in rows)
    assert {row["backend"] for row in rows if row["model"] == "fe2e"} == {"dense"}
    backends = {backend for row in rows for backend in row["backend"].split(", ")}
    assert backends <= {"dense", "native", "torch"}
    for base, sparse in zip(rows[::2], rows[1::2], strict=True):
        assert base["ratio_to_fe2e"] == 1
        assert sparse["ratio_to_fe2e"] == pytest.approx(sparse["median_s"] / base["median_s"], rel=0.1)
        # A process that has torch loaded holds far more than 50 MB; a forward's is not measured.
        assert (base["peak_bytes"] or 0) > 50e6 or base["work"].startswith("forward")


def test_without_warm_up_and_memory_there_are_as_many_times_as_repeats():
    sizes = {"batch": 1, "faces": 1, "chunks": 1, "tokens": 4, "width": 4, "top_p": (), "scopes": ("towers only",)}
    rows = bench_models(QUIET, **sizes, repeats=2, warm_up=False, peak_scopes=(), precision="bf16-mixed")
    assert [(row["repeats"], row["peak_bytes"], row["precision"]) for row in rows] == [(2, None, "bf16-mixed")] * 2


def test_a_forward_is_in_evaluation_mode_and_a_step_in_training_mode():
    run = Run(Case("towers only", 0.5, width=8), random_batch(2, 1, 1, 4))
    before = {name: value.clone() for name, value in run.model.named_buffers()}
    run.do("forward")
    assert all(value.equal(before[name]) for name, value in run.model.named_buffers())
    run.do("training step")
    assert not all(value.equal(before[name]) for name, value in run.model.named_buffers())


@pytest.mark.parametrize(("asked", "used"), [("torch", "torch"), ("dense", "dense")])
def test_the_backend_that_was_asked_for_is_the_one_that_is_noted(asked, used):
    run = Run(Case("towers only", 0.5, width=8, backend=asked), random_batch(2, 1, 1, 4))
    assert backends_used(run, "forward") == used


def test_a_tower_that_gives_its_features_alone_changes_no_score():
    # What a CUDA graph is captured of; the graph itself is tested where there is a GPU.
    inputs = random_batch(2, 2, 2, 4)
    model = Run(Case("towers only", None, width=8), inputs).model.eval()
    with torch.no_grad():
        expected = model(inputs).logits
        for name, tower in list(model.towers.items()):
            model.towers[name] = GraphedTower(TowerFeatures(tower))
        assert torch.equal(model(inputs).logits, expected)


def test_attention_is_timed_in_every_layer_with_its_gradients(monkeypatch):
    seen, backward, real = [], [], CrossModalAttention.forward

    def watched(layer, x, query):
        selection = real(layer, x, query)
        seen.append((x.features.shape, query.shape))
        selection.kept.features.register_hook(lambda grad: backward.append(grad.shape))
        return selection

    monkeypatch.setattr(CrossModalAttention, "forward", watched)
    sizes = {"batch": 2, "faces": 1, "chunks": 1, "width": 8, "scopes": ("towers only",)}
    (row,) = attention_rows(QUIET, **sizes, top_p=(0.5,), repeats=1)
    # Three stages of two towers: once to learn their input, then two turns of a step and of the part alone.
    assert len(seen) == 6 * 5
    assert len(backward) == 6 * 5
    # Alone, each layer gets what it got in the first step.
    assert seen[:6] == seen[12:18] == seen[24:]
    assert row["share_of_step"] == pytest.approx(row["median_s"] / row["step_s"], rel=0.05)


def test_loss_curves_start_alike_and_fall():
    rows = curve_rows(QUIET, steps=10, width=8, top_p=(None, 0.5))
    assert [(row["model"], row["precision"]) for row in rows] == [
        (model, precision) for model in ("fe2e", "mesm") for precision in ("32-true", "bf16-mixed")
    ]
    for exact, half in zip(rows[::2], rows[1::2], strict=True):
        assert exact["largest_difference"] == 0
        assert "control_difference" not in exact
        assert 0 < half["control_difference"] < 0.1
        differences = [abs(a - b) for a, b in zip(exact["losses"], half["losses"], strict=True)]
        # Both are rounded to four digits.
        assert half["largest_difference"] == pytest.approx(max(differences), abs=2e-4)
        assert 0 < differences[0] + max(differences) < 0.1
        assert exact["last_loss"] == pytest.approx(sum(exact["losses"][-2:]) / 2, abs=1e-4)
