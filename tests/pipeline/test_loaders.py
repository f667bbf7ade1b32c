from itertools import chain

import torch

from data_tools.dataset import UtteranceDataset
from pipeline.loaders import EpochBatches, ordered_loader, train_loader


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
