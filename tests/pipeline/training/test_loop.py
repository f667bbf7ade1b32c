import math
import time
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.testing import assert_close

from data_tools.batch import Batch
from models.output import Output
from pipeline.progress import Reporter
from pipeline.training.engine import Engine, start_fabric
from pipeline.training.loop import TrainingError, Update, run_epoch
from pipeline.training.losses import MultiLabelBCE, Objective

QUIET = Reporter(quiet=True)
BCE = Objective("bce", MultiLabelBCE(torch.tensor([1.0, 2.0])))


class MeanChunk(nn.Module):
    """A linear map of the sum of each utterance's chunks: small enough to follow by hand."""

    def __init__(self, seed=0):
        super().__init__()
        self.head = nn.Linear(4, 2)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(seed)))

    def forward(self, batch):
        x = batch.chunks.flatten(1)[:, :4]
        counted = {"a.macs": torch.tensor(10.0 * len(batch)), "a.share.1": torch.tensor(1 / len(batch))}
        return Output(self.head(x), losses={"size": self.head.weight.square().sum()}, computed=counted)


def batch_of(n, seed):
    draw = torch.Generator().manual_seed(seed)
    chunks = torch.randn(n, 1, 2, 2, generator=draw)
    none, tokens = torch.zeros(0, 3, 48, 48, dtype=torch.uint8), torch.zeros(n, 1, dtype=torch.int64)
    labels = torch.stack([chunks[:, 0, 0, 0] > 0, chunks[:, 0, 0, 1] > 0], 1).float()
    counts = torch.ones(n, dtype=torch.int64)
    names = tuple(f"b{seed}_{i}" for i in range(n))
    return Batch(none, 0 * counts, chunks, counts, tokens, tokens > 0, labels, torch.zeros(n), names)


def joined(*batches):
    cat = {
        name: torch.cat([getattr(b, name) for b in batches]) for name in ("faces", "face_counts", "chunks", "labels")
    }
    rest = {
        n: torch.cat([getattr(b, n) for b in batches]) for n in ("chunk_counts", "tokens", "token_mask", "sentiment")
    }
    return Batch(**cat, **rest, ids=sum((b.ids for b in batches), ()))


def engine_of(model, rate=0.1):
    return Engine(start_fabric("cpu"), model, torch.optim.SGD(model.parameters(), rate))


def weights(model):
    return [p.detach().clone() for p in model.parameters()]


def test_looking_changes_nothing_and_sees_every_utterance_in_order():
    model, batches = MeanChunk(), [batch_of(3, 1), batch_of(1, 2)]
    before = weights(model)
    found = run_epoch(Engine(start_fabric("cpu"), model), batches, BCE, QUIET, "look")
    assert_close(weights(model), before, rtol=0, atol=0)
    assert not model.training
    assert found.ids == batches[0].ids + batches[1].ids
    assert (found.batches, found.steps) == (2, 0)
    assert_close(found.logits, torch.cat([model(b).logits for b in batches]).detach())
    assert_close(found.labels, torch.cat([b.labels for b in batches]))


def test_losses_are_means_over_utterances_and_counts_are_per_utterance():
    model, batches = MeanChunk(), [batch_of(3, 1), batch_of(1, 2)]
    found = run_epoch(Engine(start_fabric("cpu"), model), batches, BCE, QUIET, "look")
    everything = joined(*batches)
    weight = torch.tensor([1.0, 2.0])
    bce = binary_cross_entropy_with_logits(model(everything).logits, everything.labels, pos_weight=weight).item()
    size = model.head.weight.square().sum().item()
    assert found.parts == {"bce": pytest.approx(bce), "size": pytest.approx(size)}
    assert found.loss == pytest.approx(bce + size)
    assert found.computed == {"a.macs": pytest.approx(10), "a.share.1": pytest.approx((3 * 1 / 3 + 1 * 1) / 4)}


def test_one_training_pass_is_the_optimizers_steps_written_out():
    batches = [batch_of(4, 1), batch_of(4, 2), batch_of(2, 3)]
    ours, theirs = MeanChunk(), MeanChunk()
    found = run_epoch(engine_of(ours), batches, BCE, QUIET, "train", Update(clip_norm=0.5))
    optimizer = torch.optim.SGD(theirs.parameters(), 0.1)
    for batch in batches:
        optimizer.zero_grad()
        BCE(theirs(batch), batch).total.backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        optimizer.step()
    assert_close(weights(ours), weights(theirs))
    assert ours.training
    assert (found.batches, found.steps) == (3, 3)


@pytest.mark.parametrize("sizes", [(4, 4), (4, 2), (1, 3)])
def test_accumulated_batches_are_one_large_batch(sizes):
    parts = [batch_of(n, seed) for seed, n in enumerate(sizes)]
    small, large = MeanChunk(), MeanChunk()
    found = run_epoch(engine_of(small), parts, BCE, QUIET, "train", Update(100.0, accumulate=2))
    run_epoch(engine_of(large), [joined(*parts)], BCE, QUIET, "train", Update(100.0))
    assert_close(weights(small), weights(large))
    assert found.steps == 1


def test_parts_of_a_batch_are_that_batch_and_what_is_accumulated_are_batches():
    assert list(Update(1.0, parts=[1, 3, 2]).sizes()) == [1, 3, 2]
    assert list(Update(1.0, accumulate=2, parts=[1, 3, 2]).sizes()) == [4, 2]
    whole, small = MeanChunk(), MeanChunk()
    parts = [batch_of(size, i) for i, size in enumerate((4, 4, 2, 6))]
    run_epoch(engine_of(whole), [parts[0], joined(*parts[1:])], BCE, QUIET, "train", Update(100.0))
    found = run_epoch(engine_of(small), parts, BCE, QUIET, "train", Update(100.0, parts=[1, 3]))
    assert (found.batches, found.steps) == (4, 2)
    assert_close(weights(small), weights(whole))


def test_gradients_are_exchanged_once_a_step(monkeypatch):
    """Between processes, that is: forward and backward of all but a step's last batch run without it."""
    engine, events = engine_of(MeanChunk()), []

    @contextmanager
    def without_exchange(enabled=True):
        events.append("apart" if enabled else "together")
        yield
        events.append("done")

    backward = engine.backward
    monkeypatch.setattr(engine, "without_exchange", without_exchange)
    monkeypatch.setattr(engine, "backward", lambda loss: (events.append("backward"), backward(loss)))
    run_epoch(engine, [batch_of(2, i) for i in range(5)], BCE, QUIET, "t", Update(1.0, accumulate=2))
    apart, together = ["apart", "backward", "done"], ["together", "backward", "done"]
    assert events == apart + together + apart + together + together


def test_float32_is_float32_where_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    start_fabric("cpu", "bf16-mixed")
    assert torch.backends.cudnn.allow_tf32
    start_fabric("cpu", "32-true")
    assert not torch.backends.cudnn.allow_tf32


def test_a_group_left_over_at_the_end_is_a_step_too():
    model = MeanChunk()
    found = run_epoch(engine_of(model), [batch_of(2, i) for i in range(5)], BCE, QUIET, "t", Update(1.0, accumulate=2))
    assert found.steps == 3


def test_clipping_bounds_the_step():
    model = MeanChunk()
    before = weights(model)
    run_epoch(engine_of(model, rate=1.0), [batch_of(4, 1)], BCE, QUIET, "t", Update(clip_norm=0.01))
    moved = torch.cat([(a - b).flatten() for a, b in zip(weights(model), before, strict=True)]).norm().item()
    assert moved == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("position", [0, 20])
def test_a_loss_that_is_not_finite_names_the_batch(bad, position):
    batches = [batch_of(2, seed) for seed in range(24)]
    batches[position].chunks[0] = bad
    with pytest.raises(
        TrainingError, match=rf"epoch 7.*the loss is (nan|inf) on the batch of b{position}_0, b{position}_1"
    ):
        run_epoch(Engine(start_fabric("cpu"), MeanChunk()), batches, BCE, QUIET, "epoch 7")


def test_a_step_that_breaks_the_weights_is_found_in_the_pass_after_it():
    model = MeanChunk()
    engine = engine_of(model, rate=math.inf)
    run_epoch(engine, [batch_of(2, 1)], BCE, QUIET, "epoch 1", Update(1.0))
    with pytest.raises(TrainingError, match="epoch 1, valid"):
        run_epoch(engine, [batch_of(2, 2)], BCE, QUIET, "epoch 1, valid")


def test_bfloat16_gives_float32_answers_near_the_exact_ones():
    batches = [batch_of(8, 1)]
    exact = run_epoch(Engine(start_fabric("cpu"), MeanChunk()), batches, BCE, QUIET, "exact")
    model = MeanChunk()
    mixed = run_epoch(Engine(start_fabric("cpu", "bf16-mixed"), model), batches, BCE, QUIET, "mixed")
    assert mixed.logits.dtype == model.head.weight.dtype == torch.float32
    assert not torch.equal(mixed.logits, exact.logits)
    assert_close(mixed.logits, exact.logits, rtol=0.02, atol=0.02)


def test_waiting_is_the_time_in_the_loader(monkeypatch):
    """With a clock that only the loader moves, all of the pass is waiting."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    class Slow(list):
        def __iter__(self):
            for batch in super().__iter__():
                now[0] += 2.0
                yield batch

    found = run_epoch(Engine(start_fabric("cpu"), MeanChunk()), Slow([batch_of(2, 1), batch_of(2, 2)]), BCE, QUIET, "x")
    assert (found.seconds, found.wait_s) == (4.0, 4.0)
