from dataclasses import fields

import pytest
import torch
from torch import Tensor

import models
from data_tools.dataset import UtteranceDataset
from models import tokenizer_for
from pipeline.settings import ConfigError
from pipeline.training import batches as held
from pipeline.training import packed
from pipeline.training.batches import (
    EpochBatches,
    HeldBatches,
    OrderedBatches,
    bytes_of,
    is_to_be_held,
    lengths_of,
    train_loader,
)
from pipeline.training.damage import Changed, ModalityDropout

CPU = torch.device("cpu")
TOWERS = {"frontend": "towers", "tower_width": 4, "size": 8}
SMALL = {"lf-lstm": TOWERS, "emt": TOWERS | {"heads": 2}}


def same(first, second):
    for field in fields(first):
        if not field.compare:
            continue
        a, b = getattr(first, field.name), getattr(second, field.name)
        if isinstance(a, Tensor):
            assert (a.dtype, a.shape, a.stride()) == (b.dtype, b.shape, b.stride()), field.name
            assert torch.equal(a.nan_to_num(7), b.nan_to_num(7)), field.name
        elif field.name == "features":
            assert a.keys() == b.keys()
            assert all(torch.equal(a[k].values, b[k].values) and torch.equal(a[k].counts, b[k].counts) for k in a)
        else:
            assert a == b, field.name


@pytest.mark.parametrize("text", ["tiny", "minilm"])
def test_batches_out_of_memory_are_those_of_the_loader(toy_corpus, text):
    split, tokenize = UtteranceDataset(toy_corpus, "train"), tokenizer_for(text)
    for order in (EpochBatches(8, 3, 0), EpochBatches(8, 3, 0, lengths_of(split)), OrderedBatches(8, 3)):
        kept, read = HeldBatches(split, order, tokenize, CPU), train_loader(split, order, tokenize)
        assert len(kept) == len(read) == 3
        for order.epoch in (1, 2):
            for ours, theirs in zip(kept, read, strict=True):
                same(ours, theirs)


def test_so_are_those_with_sequences(toy_corpus, monkeypatch):
    split, tokenize = UtteranceDataset(toy_corpus, "train"), tokenizer_for("tiny")
    plain = UtteranceDataset.__getitem__

    def with_features(self, index):
        sample = plain(self, index)
        values = torch.arange(index * 2.0).view(-1, 2) + index
        sample.features.update({"a": values, "w": values.flatten()[:, None]})
        return sample

    monkeypatch.setattr(UtteranceDataset, "__getitem__", with_features)
    order = EpochBatches(8, 3, 1)
    for ours, theirs in zip(
        HeldBatches(split, order, tokenize, CPU), train_loader(split, order, tokenize), strict=True
    ):
        same(ours, theirs)


@pytest.mark.parametrize("name", ["lf-lstm", "emt"])
def test_so_are_those_that_modalities_are_left_out_of(toy_corpus, name):
    model = models.build(
        name, text_encoder="minilm" if name == "lf-lstm" else "tiny", modality_dropout=0.5, **SMALL[name]
    )
    split, tokenize = UtteranceDataset(toy_corpus, "train"), tokenizer_for(model)
    order = EpochBatches(8, 3, 0)
    dropout = ModalityDropout(model, seed=0, order=order)
    kept = HeldBatches(split, order, tokenize, CPU, dropout)
    read = Changed(train_loader(split, order, tokenize), dropout)
    left = set()
    for order.epoch in (1, 2, 3):
        for ours, theirs in zip(kept, read, strict=True):
            same(ours, theirs)
            left |= {(order.epoch, letter, int(ours.present(letter).sum())) for letter in "tav"}
    assert len({(letter, count) for _, letter, count in left}) > len("tav")  # other numbers in other epochs


def test_a_batch_is_made_without_reading_a_sample(toy_corpus, monkeypatch):
    split = UtteranceDataset(toy_corpus, "train")
    kept = HeldBatches(split, EpochBatches(8, 3, 0), tokenizer_for("tiny"), CPU)
    monkeypatch.setattr(UtteranceDataset, "__getitem__", lambda self, index: pytest.fail("a sample was read"))
    assert sum(len(batch) for batch in kept) == 8


def test_the_bytes_are_those_of_the_tensors(toy_corpus):
    split = UtteranceDataset(toy_corpus, "train")
    samples = [split[i] for i in range(8)]
    assert bytes_of(split) == sum(sample.faces.nbytes + sample.chunks.nbytes for sample in samples)


def test_a_split_is_packed_some_samples_at_a_time_into_no_more_than_it_takes(toy_corpus, monkeypatch):
    split, tokenize = UtteranceDataset(toy_corpus, "train"), tokenizer_for("tiny")
    at_once = []
    monkeypatch.setattr(packed, "_READ_AT_ONCE", 3)
    real = packed.collate
    counting = lambda samples, tokenize: at_once.append(len(samples)) or real(samples, tokenize)  # noqa: E731
    monkeypatch.setattr(packed, "collate", counting)
    kept = HeldBatches(split, OrderedBatches(8, 8), tokenize, CPU)
    assert at_once == [3, 3, 2]
    monkeypatch.undo()
    assert sum(rows.values.untyped_storage().nbytes() for rows in (kept._faces, kept._chunks)) == bytes_of(split)
    (whole,) = train_loader(split, OrderedBatches(8, 8), tokenize)
    same(next(iter(kept)), whole)


def test_auto_holds_what_fits_and_leaves_the_reading_to_workers(toy_corpus, monkeypatch):
    splits = [UtteranceDataset(toy_corpus, "train"), UtteranceDataset(toy_corpus, "valid")]
    needed = sum(map(bytes_of, splits))
    for free, expected in ((4 * needed, True), (4 * needed - 1, False)):
        monkeypatch.setattr(held, "free_bytes", lambda device, free=free: free)
        assert is_to_be_held(splits, CPU, "auto", 0) is expected
        assert is_to_be_held(splits, CPU, "auto", 2) is False
        assert is_to_be_held(splits, CPU, True, 2) is True
        assert is_to_be_held(splits, CPU, False, 0) is False
    monkeypatch.setattr(held, "free_bytes", lambda device: needed - 1)
    with pytest.raises(ConfigError, match="keep_on_device is true, but .* GiB free; use --set keep_on_device=auto"):
        is_to_be_held(splits, CPU, True, 0)


def test_free_memory_is_some_and_less_than_a_machine_has():
    assert 2**20 < held.free_bytes(CPU) < 2**50
