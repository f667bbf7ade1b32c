from itertools import chain

import numpy as np
import pytest
import torch

from data_tools.dataset import UtteranceDataset
from pipeline.training.batches import (
    EpochBatches,
    OrderedBatches,
    StepLimit,
    lengths_of,
    ordered_loader,
    padding_share,
    train_loader,
)
from pipeline.training.device import Ranks


def tokenize(texts):
    mask = torch.tensor([[True, bool(text)] for text in texts])
    return torch.tensor([[1, len(text)] for text in texts]), mask


def ids(loader):
    return [batch.ids for batch in loader]


def test_every_utterance_once_an_epoch_in_another_order_each():
    batches = EpochBatches(11, 4, seed=3)
    orders = []
    for batches.epoch in (1, 2, 3):
        drawn = list(batches)
        assert len(drawn) == len(batches) == 3
        assert [len(positions) for positions in drawn] == [4, 4, 3]
        assert sorted(chain.from_iterable(drawn)) == list(range(11))
        orders.append([*chain.from_iterable(drawn)])
    assert orders[0] != orders[1] != orders[2]


def test_seed_and_epoch_alone_decide_the_order():
    first, second, other = EpochBatches(50, 8, 0), EpochBatches(50, 8, 0), EpochBatches(50, 8, 1)
    list(first)
    torch.manual_seed(7)
    first.epoch = second.epoch = other.epoch = 5
    assert list(first) == list(second) != list(other)


def test_the_loader_follows_the_batches_with_or_without_workers(toy_corpus):
    dataset = UtteranceDataset(toy_corpus, "train")
    names = dataset.table["utterance_id"].tolist()
    batches = EpochBatches(len(dataset), 3, seed=0)
    here, apart = train_loader(dataset, batches, tokenize), train_loader(dataset, batches, tokenize, workers=2)
    # A fork of a process with threads in it (Ray's, say) may crash.
    assert apart.multiprocessing_context.get_start_method() == "forkserver"
    for batches.epoch in (1, 2):
        expected = [tuple(names[i] for i in positions) for positions in batches]
        assert ids(here) == ids(apart) == expected


def test_the_ordered_loader_keeps_the_order_of_the_manifest(toy_corpus):
    dataset = UtteranceDataset(toy_corpus, "test")
    loader = ordered_loader(dataset, 2, tokenize)
    assert sum(ids(loader), ()) == tuple(dataset.table["utterance_id"])


def test_loading_draws_no_random_number_of_the_model(toy_corpus):
    """Else dropout would depend on how often somebody looked at the validation split."""
    loader = ordered_loader(UtteranceDataset(toy_corpus, "test"), 2, tokenize)
    before = torch.get_rng_state()
    ids(loader)
    assert torch.equal(torch.get_rng_state(), before)


LENGTHS = np.random.default_rng(0).lognormal(3, 0.6, 203).astype(np.int64) + 1


def test_batches_by_length_have_every_utterance_once_and_other_mates_in_each_epoch():
    batches, seen = EpochBatches(203, 8, 3, LENGTHS), []
    for batches.epoch in (1, 2):
        drawn = list(batches)
        assert len(drawn) == len(batches) == 26
        assert sorted(batches.sizes()) == [3] + [8] * 25
        assert sorted(chain.from_iterable(drawn)) == list(range(203))
        seen.append({frozenset(batch) for batch in drawn})
    assert len(seen[0] & seen[1]) < 5


def test_batches_by_length_pad_less_and_come_in_no_order_of_length():
    by_length, anyhow = EpochBatches(203, 8, 0, LENGTHS), EpochBatches(203, 8, 0)
    for by_length.epoch in (1, 2, 3):
        anyhow.epoch = by_length.epoch
        drawn = list(by_length)
        assert padding_share(LENGTHS, drawn) < 0.5 * padding_share(LENGTHS, list(anyhow))
        longest = [LENGTHS[batch].max() for batch in drawn]
        assert longest != sorted(longest)


def test_padding_is_what_stands_beside_the_shorter_ones():
    # 2 and 5 padded to 5, 4 and 4 to 4: 3 steps of 18 are nothing.
    assert padding_share(np.array([2, 5, 4, 4]), [[0, 1], [2, 3]]) == pytest.approx(3 / 18)


def test_seed_and_epoch_alone_decide_the_order_by_length():
    first, second, other = (EpochBatches(203, 8, seed, LENGTHS) for seed in (0, 0, 1))
    list(first)
    torch.manual_seed(7)
    first.epoch = second.epoch = other.epoch = 5
    assert list(first) == list(second) != list(other)


def test_the_processes_shares_are_the_batches_of_one():
    whole = list(EpochBatches(11, 4, 3))
    first, second = (list(EpochBatches(11, 4, 3, ranks=Ranks(rank, 2))) for rank in (0, 1))
    assert [sorted(a + b) for a, b in zip(first, second, strict=True)] == [sorted(batch) for batch in whole]


def test_lengths_are_those_of_the_samples_and_no_sample_is_read(toy_corpus, monkeypatch):
    dataset = UtteranceDataset(toy_corpus, "train")
    expected = [len(sample.faces) + len(sample.chunks) for sample in (dataset[i] for i in range(len(dataset)))]
    monkeypatch.setattr(UtteranceDataset, "__getitem__", lambda self, index: pytest.fail("a sample was read"))
    assert lengths_of(dataset).tolist() == expected
    assert 0 in expected


LIMIT = StepLimit(LENGTHS, 60)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_a_batch_of_too_many_steps_comes_in_parts(lengths):
    whole = EpochBatches(203, 8, 3, lengths)
    limited = EpochBatches(203, 8, 3, lengths, limit=LIMIT)
    parts = list(limited)
    assert len(parts) == len(limited) == sum(limited.parts()) > len(whole)
    assert limited.sizes() == [len(part) for part in parts]
    rest = iter(parts)
    for batch, count in zip(whole, limited.parts(), strict=True):
        own = [next(rest) for _ in range(count)]
        assert list(chain(*own)) == batch
        steps = [int(LENGTHS[part].sum()) for part in own]
        assert all(total <= 60 or len(part) == 1 for total, part in zip(steps, own, strict=True))
        # No part could have taken the next one's first utterance too.
        assert all(total + LENGTHS[after[0]] > 60 for total, after in zip(steps, own[1:], strict=False))
    ordered = list(OrderedBatches(203, 8, limit=LIMIT))
    assert list(chain(*ordered)) == list(range(203))
    assert max(int(LENGTHS[part].sum()) for part in ordered if len(part) > 1) <= 60


def test_steps_of_features_weigh_less_than_faces_and_chunks(toy_corpus):
    data = UtteranceDataset(toy_corpus, "train")
    limit = StepLimit.from_dataset(data, 10)
    assert (limit.most, limit.steps.tolist()) == (10, [len(data[i].faces) + len(data[i].chunks) for i in range(8)])
