"""Damage: the same for the same utterance whoever its neighbours are, and no more than was asked for."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.batch import WAVEFORM, Batch, Packed
from data_tools.damage import Blank, add_noise, drop_modalities, drop_steps, subsets

UNKNOWN, CLS, SEP, PAD = 7, 1, 2, 0
BLANK = Blank(UNKNOWN, frozenset({PAD, CLS, SEP}), (159.0, 111.0, 102.0), (37.0, 33.0, 32.0))
SUBSETS = ["t", "a", "v", "ta", "tv", "av", "tav"]
DIMS = {"t": 3, "a": 4, "v": 5}


def make(ids, steps=None, seed=0):
    """A batch with raw media and features of every modality; utterance number i of `ids` has steps[i] of each."""
    steps = steps or [3 + i % 4 for i in range(len(ids))]
    generator = torch.Generator().manual_seed(seed)
    counts, total, longest = torch.tensor(steps), sum(steps), max(steps) + 2
    tokens = torch.zeros(len(ids), longest, dtype=torch.int64)
    for row, count in zip(tokens, steps, strict=True):
        row[: count + 2] = torch.tensor([CLS, *range(10, 10 + count), SEP])
    return Batch(
        faces=torch.randint(0, 256, (total, 3, 48, 48), dtype=torch.uint8, generator=generator),
        face_counts=counts,
        chunks=torch.randn(total, 1, 128, 32, generator=generator),
        chunk_counts=counts,
        tokens=tokens,
        token_mask=tokens != PAD,
        labels=torch.zeros(len(ids), 2),
        sentiment=torch.zeros(len(ids)),
        ids=tuple(ids),
        features={letter: Packed(torch.randn(total, dim, generator=generator), counts) for letter, dim in DIMS.items()},
    )


def pick(batch, order):
    """The utterances at the positions `order`, packed anew."""

    def steps(values, counts):
        parts = values.split(counts.tolist())
        return torch.cat([parts[i] for i in order])

    counts = batch.face_counts[order]
    return replace(
        batch,
        faces=steps(batch.faces, batch.face_counts),
        face_counts=counts,
        chunks=steps(batch.chunks, batch.chunk_counts),
        chunk_counts=counts,
        tokens=batch.tokens[order],
        token_mask=batch.token_mask[order],
        labels=batch.labels[order],
        sentiment=batch.sentiment[order],
        ids=tuple(batch.ids[i] for i in order),
        features={
            letter: Packed(steps(packed.values, packed.counts), counts) for letter, packed in batch.features.items()
        },
        missing={
            name: mask[order] if name == "tokens" else steps(mask, batch.face_counts)
            for name, mask in batch.missing.items()
        },
    )


def without_media(ids, counts):
    """Features of one number a step, and as many tokens; neither faces nor sound."""
    nothing = torch.zeros(len(ids), dtype=torch.int64)
    return replace(
        make(ids[:1], [1]),
        ids=tuple(ids),
        faces=torch.zeros(0, 3, 48, 48, dtype=torch.uint8),
        face_counts=nothing,
        chunks=torch.zeros(0, 1, 128, 32),
        chunk_counts=nothing,
        tokens=torch.full((len(ids), int(counts.max())), 10),
        token_mask=torch.arange(int(counts.max())) < counts.unsqueeze(1),
        features={letter: Packed(torch.ones(int(counts.sum()), 1), counts) for letter in "tav"},
    )


def tensors(batch):
    return {
        "faces": batch.faces,
        "chunks": batch.chunks,
        "tokens": batch.tokens,
        **{letter: packed.values for letter, packed in batch.features.items()},
    }


def assert_same(one, other):
    assert one.ids == other.ids
    for name, value in tensors(one).items():
        assert torch.equal(value, tensors(other)[name]), name
    assert one.missing.keys() == other.missing.keys()
    for name, mask in one.missing.items():
        assert torch.equal(mask, other.missing[name]), name


WAYS = {
    "random": lambda batch, seed=0, epoch=0: drop_steps(batch, 0.5, seed, BLANK, epoch),
    "range": lambda batch, seed=0, epoch=0: drop_steps(batch, (0.2, 0.8), seed, BLANK, epoch),
    "modalities": lambda batch, seed=0, epoch=0: drop_modalities(batch, SUBSETS, seed, BLANK, epoch),
    "bernoulli": lambda batch, seed=0, epoch=0: add_noise(batch, 0.5, seed, BLANK, epoch),
}
IDS = [f"Ses01F_impro01_F{i:03}" for i in range(12)]


@pytest.mark.parametrize("damage", [
    lambda batch: drop_steps(batch, 0.0, 111, BLANK),
    lambda batch: drop_steps(batch, (0.0, 0.0), 111, BLANK),
    lambda batch: drop_modalities(batch, ["tav"], 111, BLANK),
    lambda batch: add_noise(batch, 0.0, 111, BLANK),
])  # fmt: skip
def test_nothing_asked_for_is_the_same_batch_bit_for_bit(damage):
    batch = make(IDS)
    damaged = damage(batch)
    for name, value in tensors(batch).items():
        found = tensors(damaged)[name]
        assert found.dtype == value.dtype
        assert torch.equal(found, value), name
        assert not damaged.missing[name].any()


def test_at_rate_one_only_start_end_and_lengths_are_left():
    batch = make(IDS)
    damaged = drop_steps(batch, 1.0, 111, BLANK)
    for row, count in zip(damaged.tokens.tolist(), batch.face_counts.tolist(), strict=True):
        assert row[: count + 2] == [CLS, *[UNKNOWN] * count, SEP]
        assert set(row[count + 2 :]) <= {PAD}
    assert damaged.missing["tokens"].sum(1).tolist() == batch.face_counts.tolist()
    assert damaged.chunks.count_nonzero() == 0
    assert all(packed.values.count_nonzero() == 0 for packed in damaged.features.values())
    assert torch.equal(
        damaged.faces, torch.tensor([159, 111, 102], dtype=torch.uint8).view(3, 1, 1).expand_as(batch.faces)
    )
    assert torch.equal(damaged.face_counts, batch.face_counts)
    assert torch.equal(damaged.token_mask, batch.token_mask)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_it_does_not_depend_on_batch_mates_or_their_order(way):
    batch = make(IDS)
    whole = way(batch)
    for order in ([5], [11, 0, 3], list(range(12))[::-1]):
        assert_same(way(pick(batch, order)), pick(whole, order))


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_seed_epoch_and_id_decide(way):
    batch = make(IDS)
    assert_same(way(batch, seed=111, epoch=2), way(batch, seed=111, epoch=2))
    first = tensors(way(batch, seed=111))
    for other in (
        way(batch, seed=1111),
        way(batch, seed=111, epoch=1),
        way(replace(batch, ids=tuple("abcdefghijkl")), 111),
    ):
        assert any(not torch.equal(first[name], value) for name, value in tensors(other).items())


@given(st.text(min_size=1), st.integers(0, 2**31), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_what_is_missing_at_one_rate_is_missing_at_every_higher_one(name, seed, one, other):
    batch = make([name], [9])
    low, high = (drop_steps(batch, rate, seed, BLANK).missing for rate in sorted([one, other]))
    for key, mask in low.items():
        assert (high[key] | ~mask).all(), key


def test_undamaged_steps_are_as_they_were_and_missing_tells_the_others():
    batch = make(IDS)
    damaged = drop_steps(batch, 0.4, 11111, BLANK)
    for name, value in tensors(batch).items():
        gone, found = damaged.missing[name], tensors(damaged)[name]
        assert gone.any()
        assert torch.equal(found[~gone], value[~gone])
        assert (found[gone] != value[gone]).any()


def test_the_share_of_missing_steps_is_the_rate_and_modalities_are_independent():
    batch = without_media([f"utterance {i}" for i in range(400)], torch.full((400,), 50))
    for rate in (0.1, 0.3, 0.9):
        masks = {
            name: mask.double().flatten()
            for name, mask in drop_steps(batch, rate, 111, BLANK).missing.items()
            if len(mask)
        }
        spread = (rate * (1 - rate) / 20_000) ** 0.5
        for mask in masks.values():
            assert abs(float(mask.mean()) - rate) < 4 * spread
        together = np.corrcoef([masks[letter].numpy() for letter in "tav"])
        assert np.abs(together - np.eye(3)).max() < 4 / 20_000**0.5
        # The token and the feature of one step of text are gone together.
        assert torch.equal(masks["t"], masks["tokens"])
        # Neither do utterances follow each other, nor a step the one before it.
        steps = masks["a"].view(400, 50)
        assert (
            abs(float(torch.corrcoef(torch.stack([steps[:-1].flatten(), steps[1:].flatten()]))[0, 1])) < 4 / 19_950**0.5
        )
        assert (
            abs(float(torch.corrcoef(torch.stack([steps[:, :-1].flatten(), steps[:, 1:].flatten()]))[0, 1]))
            < 4 / 19_600**0.5
        )


def test_a_range_gives_every_utterance_one_rate_for_all_modalities():
    ids = [f"utterance {i}" for i in range(200)]
    damaged = drop_steps(make(ids[:1], [1]), (0.2, 0.2), 0, BLANK)
    assert_same(damaged, drop_steps(make(ids[:1], [1]), 0.2, 0, BLANK))
    counts = torch.full((200,), 100)
    batch = replace(make(ids, [1] * 200), features={letter: Packed(torch.ones(20_000, 1), counts) for letter in "tav"})
    missing = drop_steps(batch, (0.1, 0.5), 0, BLANK).missing
    shares = {letter: missing[letter].view(200, 100).double().mean(1) for letter in "tav"}
    assert float(shares["t"].mean()) == pytest.approx(0.3, abs=0.03)
    assert float(shares["t"].min()) < 0.2 < 0.4 < float(shares["t"].max())
    assert float(torch.corrcoef(torch.stack([shares["a"], shares["v"]]))[0, 1]) > 0.7


def test_the_subsets_are_counted_by_hand():
    assert subsets("tav") == SUBSETS
    assert subsets("ta") == ["t", "a", "ta"]


@pytest.mark.parametrize("present", SUBSETS)
def test_absent_modalities_are_gone_and_present_ones_untouched(present):
    batch = make(IDS)
    damaged = drop_modalities(batch, [present], 0, BLANK)
    everything = drop_steps(batch, 1.0, 0, BLANK)
    for name, letter in {"faces": "v", "chunks": "a", "tokens": "t", "t": "t", "a": "a", "v": "v"}.items():
        expected = batch if letter in present else everything
        assert torch.equal(tensors(damaged)[name], tensors(expected)[name])


def test_without_a_choice_each_utterance_keeps_one_of_the_seven_subsets():
    counts = torch.ones(1400, dtype=torch.int64)
    batch = without_media([f"utterance {i}" for i in range(1400)], counts)
    values = drop_modalities(batch, SUBSETS, 0, BLANK).features
    kept = ["".join(letter for letter in "tav" if values[letter].values[i, 0]) for i in range(1400)]
    counts = {subset: kept.count(subset) for subset in set(kept)}
    assert set(counts) == set(SUBSETS)
    assert all(abs(count - 200) < 4 * (1400 * 6 / 49) ** 0.5 for count in counts.values())


def test_noise_adds_one_deviation_to_half_of_all_elements():
    batch = make(IDS)
    noisy = add_noise(batch, 0.5, 111, BLANK)
    for name in ("chunks", *"tav"):
        added = tensors(noisy)[name] - tensors(batch)[name]
        assert torch.isclose(added, added.round(), atol=1e-5).all()
        assert set(added.round().unique().tolist()) == {0.0, 1.0}
        assert not noisy.missing[name].any()
    assert float((noisy.chunks - batch.chunks).mean()) == pytest.approx(0.5, abs=0.01)
    for channel, deviation in enumerate((37, 33, 32)):
        before, after = batch.faces[:, channel].int(), noisy.faces[:, channel].int()
        risen = after != before
        assert torch.equal(after[risen], (before[risen] + deviation).clamp(max=255))
        assert float(risen[before < 255].double().mean()) == pytest.approx(0.5, abs=0.01)
    assert torch.equal(noisy.tokens, drop_steps(batch, 0.5, 111, BLANK).tokens)


def test_of_the_sound_itself_twenty_milliseconds_go_together_as_modality_a():
    counts = torch.tensor([1000, 16_000])
    samples = torch.arange(1, 17_001, dtype=torch.float32).unsqueeze(1)
    batch = replace(make(["a", "b"], [2, 2]), features={WAVEFORM: Packed(samples, counts)})
    damaged = drop_steps(batch, 0.5, 0, BLANK)
    gone = damaged.missing[WAVEFORM]
    assert torch.equal(damaged.features[WAVEFORM].values[:, 0] == 0, gone)
    first, second = gone.split([1000, 16_000])
    for part in (*first.split(320), *second.split(320)):
        assert len(part.unique()) == 1
    assert 10 < int(second[::320].sum()) < 40  # of 50 steps
    # The same draws as for any other steps of sound.
    others = replace(batch, features={"a": Packed(torch.ones(54, 1), torch.tensor([4, 50]))})
    assert torch.equal(drop_steps(others, 0.5, 0, BLANK).missing["a"], torch.cat([first[::320], second[::320]]))
    assert not drop_modalities(batch, ["tv"], 0, BLANK).features[WAVEFORM].values.any()
    assert torch.equal(drop_modalities(batch, ["a"], 0, BLANK).features[WAVEFORM].values, samples)
    added = add_noise(batch, 0.5, 0, BLANK).features[WAVEFORM].values - samples
    assert float(added.mean()) == pytest.approx(0.5, abs=0.02)


def test_an_utterance_without_steps_stays_without():
    batch = make(["a", "b"], [0, 2])
    for way in WAYS.values():
        damaged = way(batch)
        assert damaged.tokens[0].tolist() == [CLS, SEP, PAD, PAD]
        assert len(damaged.faces) == 2


def test_a_moved_batch_takes_its_other_view_along():
    batch = make(IDS)
    damaged = replace(drop_steps(batch, 0.5, 0, BLANK), complete=batch)
    moved = damaged.to("meta")
    assert moved.complete.faces.device.type == moved.missing["t"].device.type == "meta"
    assert damaged.complete is batch
