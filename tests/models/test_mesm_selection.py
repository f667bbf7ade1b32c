"""MESM with each way of its selection to learn: the laws that all of them keep, and the budget."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

import models
from models import ModelError

EVERY = ["none", "straight_through", "soft", "budget"]


def total_loss(output, batch):
    return F.binary_cross_entropy_with_logits(output.logits, batch.labels) + sum(output.losses.values())


@pytest.mark.parametrize("gradient", ["soft", "budget"])
@pytest.mark.parametrize("train", [False, True])
def test_keeping_every_site_is_the_dense_network(build_small, tiny_batch, train, gradient):
    dense = build_small("fe2e").train(train)
    sparse = build_small("mesm", top_p=1.0, attention_gradient=gradient).train(train)
    missing, unexpected = sparse.load_state_dict(dense.state_dict(), strict=False)
    assert not unexpected
    assert set(missing) == set(sparse.parameters_without_gradient())
    outputs = []
    for model in (dense, sparse):
        torch.manual_seed(7)  # the same dropout in both
        outputs.append(model(tiny_batch))
        total_loss(outputs[-1], tiny_batch).backward()
    assert not outputs[1].losses
    torch.testing.assert_close(outputs[1].logits, outputs[0].logits, rtol=1e-4, atol=1e-5)
    grads = {name: parameter.grad for name, parameter in sparse.named_parameters()}
    assert {name for name, grad in grads.items() if grad is None} == set(sparse.parameters_without_gradient())
    for name, parameter in dense.named_parameters():
        torch.testing.assert_close(grads[name], parameter.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("gradient", ["soft", "budget"])
@pytest.mark.parametrize("modalities", ["tav", "va", "t", "v"])
def test_every_parameter_learns(build_small, tiny_batch, modalities, gradient):
    model = build_small("mesm", modalities=modalities, attention_gradient=gradient)
    total_loss(model(tiny_batch), tiny_batch).backward()
    assert model.parameters_without_gradient() == []
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if ".attention." in name and name.endswith(".weight"):
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("gradient", ["soft", "budget"])
def test_logits_do_not_change_with_neighbours_and_padding(build_small, make_batch, gradient):
    model = build_small("mesm", attention_gradient=gradient).eval()
    together = make_batch(faces=(3, 1, 2), chunks=(2, 4, 1))
    logits = model(together).logits
    alone = replace(
        together,
        faces=together.faces[3:4],
        face_counts=together.face_counts[1:2],
        chunks=together.chunks[2:6],
        chunk_counts=together.chunk_counts[1:2],
        tokens=F.pad(together.tokens[1:2], (0, 9)),
        token_mask=F.pad(together.token_mask[1:2], (0, 9)),
        ids=together.ids[1:2],
    )
    torch.testing.assert_close(model(alone).logits[0], logits[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gradient", EVERY)
def test_the_same_step_has_the_same_bits(build_small, tiny_batch, gradient):
    grads = []
    for _ in range(2):
        model = build_small("mesm", attention_gradient=gradient)
        torch.manual_seed(3)
        total_loss(model(tiny_batch), tiny_batch).backward()
        grads.append([p.grad for p in model.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize("gradient", EVERY)
def test_nothing_to_see_or_hear_works(build_small, make_batch, gradient):
    model = build_small("mesm", attention_gradient=gradient)
    batch = make_batch(faces=(0, 0), chunks=(0, 0))
    output = model(batch)
    total_loss(output, batch).backward()
    assert all(value == 0 for value in output.losses.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_the_budget_loss_is_the_distance_of_the_mean_kept_share(build_small, tiny_batch):
    output = build_small("mesm", attention_gradient="budget", top_p=0.6, budget=0.3)(tiny_batch, keep_maps=True)
    assert list(output.losses) == ["budget"]
    expected = 0.0
    for tower in ("mel", "face"):
        for stage in (1, 2, 3):
            kept = output.kept[f"{tower}.{stage}"]
            before = output.kept.get(f"{tower}.{stage - 1}")
            # A site is active where one of the four of the stage before was.
            active = torch.ones_like(kept) if before is None else F.max_pool2d(before.float(), 2).bool()
            shares = [(k.sum() / a.sum()).item() for k, a in zip(kept, active, strict=True)]
            expected += (sum(shares) / len(shares) - 0.3) ** 2 / 6
    assert output.losses["budget"].item() == pytest.approx(expected, rel=1e-4)
    assert output.losses["budget"] > 0


@pytest.mark.parametrize(("start", "budget"), [(0.5, 0.2), (0.4, 0.75)])
def test_the_budget_loss_draws_the_kept_share_to_the_budget(build_small, tiny_batch, start, budget):
    model = build_small("mesm", modalities="v", attention_gradient="budget", top_p=start, budget=budget)
    model.eval()
    optimizer = torch.optim.Adam([p for name, p in model.named_parameters() if ".of_p." in name], lr=0.02)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = model(tiny_batch).losses["budget"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.05
    assert losses[-1] < losses[0] / 10


def test_a_budget_is_top_p_unless_it_is_given(build_small):
    assert build_small("mesm", attention_gradient="budget", top_p=0.3).budget == 0.3
    assert build_small("mesm", attention_gradient="budget", top_p=0.3, budget=0.4).budget == 0.4
    assert build_small("mesm", attention_gradient="straight_through", top_p=0.3).budget is None


@pytest.mark.parametrize("settings", [{}, {"attention_gradient": "soft"}, {"attention_gradient": "budget", "top_p": 1}])
def test_a_budget_that_nothing_would_keep_to_is_refused(settings):
    with pytest.raises(ModelError, match=r"budget is 0\.4, but"):
        models.config_of("mesm", {"budget": 0.4} | settings)


@pytest.mark.parametrize("gradient", EVERY)
def test_a_saved_model_answers_the_same(build_small, tiny_batch, tmp_path, gradient):
    model = build_small("mesm", attention_gradient=gradient).eval()
    models.save(model, tmp_path)
    assert torch.equal(models.load(tmp_path)(tiny_batch).logits, model(tiny_batch).logits)


@pytest.mark.slow
def test_a_compiled_mesm_gives_the_same_scores_and_gradients(build_small, make_batch):
    model, batch = build_small("mesm", modalities="v", layers=1, dropout=0.0), make_batch()
    expected = model(batch).logits
    grads = torch.autograd.grad(expected.square().sum(), list(model.towers.parameters()))
    model.compile(dynamic=True)
    found = model(batch).logits
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    for grad, wanted in zip(
        torch.autograd.grad(found.square().sum(), list(model.towers.parameters())), grads, strict=True
    ):
        torch.testing.assert_close(grad, wanted, rtol=1e-2, atol=1e-3)
