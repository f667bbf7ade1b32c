"""Modalities that are left out: which, and what of the batch is left."""

import numpy as np
import pytest
import torch

import models
from data_tools.absent import draw_absent, leave_out, leave_out_all
from data_tools.batch import WAVEFORM
from data_tools.dataset import Sample, collate

TOKENIZE = models.tokenizer_for("tiny", 12)
EMPTY = tuple(part[:1] for part in TOKENIZE(["", "a " * 12]))
NAMES = [f"u{i}" for i in range(2000)]
ALL = {letter: np.ones(len(NAMES), bool) for letter in "tav"}


def sample(name, faces=2, chunks=3, text="so it is", features=None):
    generator = torch.Generator().manual_seed(len(name))
    return Sample(
        name,
        torch.randint(0, 256, (faces, 3, 48, 48), dtype=torch.uint8, generator=generator),
        torch.ones(faces),
        torch.randn(chunks, 1, 128, 32, generator=generator),
        text,
        torch.zeros(2),
        0.5,
        features or {},
    )


def same(one, other):
    for name, value in vars(one).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, getattr(other, name)), name
    assert set(one.features) == set(other.features)
    for name, packed in one.features.items():
        assert torch.equal(packed.values, other.features[name].values)
        assert torch.equal(packed.counts, other.features[name].counts)


def test_each_goes_with_its_probability_and_never_all():
    gone = draw_absent(NAMES, ALL, 0.3, seed=0, epoch=1)
    # All three would go in 0.027 of the utterances; in these one of them stays.
    expected = 0.3 - 0.027 / 3
    for letter, flags in gone.items():
        assert flags.mean() == pytest.approx(expected, abs=0.04), letter
    assert not np.logical_and.reduce(list(gone.values())).any()
    together = (gone["t"] & gone["a"]).mean()
    assert together == pytest.approx(0.3 * 0.3 - 0.027 * 2 / 3, abs=0.03)


def test_the_draw_hangs_on_the_utterance_the_seed_and_the_epoch_alone():
    whole = draw_absent(NAMES, ALL, 0.5, seed=0, epoch=1)
    few = draw_absent(NAMES[7:9], {letter: flags[7:9] for letter, flags in ALL.items()}, 0.5, seed=0, epoch=1)
    for letter in "tav":
        assert np.array_equal(few[letter], whole[letter][7:9])
    for other in (draw_absent(NAMES, ALL, 0.5, 1, 1), draw_absent(NAMES, ALL, 0.5, 0, 2)):
        assert not np.array_equal(other["t"], whole["t"])


def test_of_what_an_utterance_has_something_stays():
    rng = np.random.default_rng(0)
    present = {letter: rng.random(len(NAMES)) < 0.5 for letter in "tav"}
    gone = draw_absent(NAMES, present, 0.9, seed=0, epoch=1)
    there = np.stack(list(present.values()))
    left = there & ~np.stack(list(gone.values()))
    assert not (np.stack(list(gone.values())) & ~there).any()
    assert np.array_equal(left.any(0), there.any(0))


def test_what_is_left_is_the_batch_of_utterances_that_never_had_it():
    whole = [sample("a"), sample("bb", faces=1, text="a much longer text than the others are"), sample("ccc", chunks=1)]
    absent = {"t": [False, True, False], "a": [True, False, False], "v": [False, True, True]}
    lacking = [sample("a", chunks=0), sample("bb", faces=0, text=""), sample("ccc", faces=0, chunks=1)]
    found = leave_out(
        collate(whole, TOKENIZE), {letter: torch.tensor(flags) for letter, flags in absent.items()}, EMPTY
    )
    # The drawn values of a sample hang on its name, and those of faces come first.
    expected = collate(lacking, TOKENIZE)
    chunks = torch.cat([whole[1].chunks, whole[2].chunks])
    assert torch.equal(found.chunks, chunks)
    assert torch.equal(found.faces, whole[0].faces)
    for name in ("tokens", "token_mask", "has_words", "face_counts", "chunk_counts"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name


def test_features_and_the_waveform_go_with_their_modality():
    made = {"t": torch.ones(3, 4), "v": torch.ones(2, 5), WAVEFORM: torch.ones(320, 1)}
    whole = collate([sample("a", 0, 0, "so", made), sample("b", 0, 0, "so", made)], TOKENIZE)
    left = leave_out_all(whole, "ta", EMPTY)
    assert {name: packed.counts.tolist() for name, packed in left.features.items()} == {
        "t": [0, 0],
        "v": [2, 2],
        WAVEFORM: [0, 0],
    }
    assert [left.present(letter).tolist() for letter in "tav"] == [[False] * 2, [False] * 2, [True] * 2]


def test_nothing_absent_is_the_same_batch():
    whole = collate([sample("a"), sample("bb")], TOKENIZE)
    same(leave_out(whole, {}, EMPTY), whole)
