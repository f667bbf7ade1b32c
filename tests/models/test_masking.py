"""Masks of pretraining against counts: how much is hidden, with what, in which spans."""

import numpy as np
import torch

from models.layers.masking import Vocabulary, mask_tokens, span_mask, span_masks

WORDS = Vocabulary(100, 4, frozenset({0, 1, 2, 3, 4}))


def draws(count, seed=0):
    return [np.random.default_rng([seed, i]) for i in range(count)]


def test_of_the_tokens_15_percent_are_chosen_and_of_these_80_10_10_are_hidden_swapped_and_kept():
    tokens = torch.randint(5, 100, (200, 500), generator=torch.Generator().manual_seed(0))
    masked, chosen = mask_tokens(tokens, torch.ones_like(tokens, dtype=torch.bool), 0.15, WORDS, draws(200))
    # 100,000 tokens: three standard deviations of a share of 0.15 are 0.0034, and of 0.1 of the chosen 15,000 0.0075.
    assert abs(chosen.float().mean() - 0.15) < 0.0034
    assert torch.equal(masked[~chosen], tokens[~chosen])
    hidden, kept = masked[chosen] == 4, masked[chosen] == tokens[chosen]
    assert abs(hidden.float().mean() - 0.8) < 0.01
    # A random word is by chance, 1 in 95, the one that stood there.
    assert abs(kept.float().mean() - (0.1 + 0.1 / 95)) < 0.0075
    others = masked[chosen][~hidden & ~kept]
    assert others.min() >= 5
    assert len(set(others.tolist())) == 95


def test_special_tokens_and_padding_are_never_chosen():
    tokens = torch.tensor([[1, 7, 8, 2, 0, 0], [1, 2, 0, 0, 0, 0]])
    present = torch.tensor([[True] * 4 + [False] * 2, [True] * 2 + [False] * 4])
    masked, chosen = mask_tokens(tokens, present, 0.999, WORDS, draws(2))
    assert chosen.tolist() == [[False, True, True, False, False, False], [False] * 6]
    assert torch.equal(masked[~chosen], tokens[~chosen])


def test_an_utterance_s_tokens_do_not_depend_on_its_neighbours():
    tokens = torch.randint(5, 100, (3, 40), generator=torch.Generator().manual_seed(0))
    every = torch.ones_like(tokens, dtype=torch.bool)
    together = mask_tokens(tokens, every, 0.5, WORDS, draws(3))
    last = mask_tokens(tokens[2:], every[2:], 0.5, WORDS, draws(3)[2:])
    assert torch.equal(together[0][2:], last[0])
    assert torch.equal(together[1][2:], last[1])


def slow_spans(begins, span):
    hidden = np.zeros(len(begins), bool)
    for start in np.flatnonzero(begins):
        for step in range(start, min(start + span, len(begins))):
            hidden[step] = True
    return hidden


def test_spans_are_10_steps_from_where_they_begin_with_chance_0_075():
    share = []
    for seed in range(50):
        hidden = span_mask(2000, 0.075, 10, np.random.default_rng(seed))
        begins = np.random.default_rng(seed).random(2000) < 0.075
        assert (hidden == slow_spans(begins, 10)).all()
        share.append(hidden[10:].mean())
        # Each run of hidden steps is one span or several that overlap, so at least 10 long; the end may cut the last.
        edges = np.flatnonzero(np.diff(np.concatenate([[0], hidden.astype(int), [0]])))
        runs = edges[1::2] - edges[::2]
        assert runs[:-1].min() >= 10
    # A step is hidden unless none of the 10 steps up to it begins a span.
    assert abs(np.mean(share) - (1 - 0.925**10)) < 0.005


def test_short_sounds_have_two_spans_and_others_no_more_than_their_steps():
    for seed in range(30):
        hidden = span_mask(40, 1e-9, 10, np.random.default_rng(seed))
        assert 11 <= hidden.sum() <= 20 or hidden[-9:].any()
    assert span_mask(1, 1e-9, 10, np.random.default_rng(0)).tolist() == [True]


def test_each_utterance_has_spans_in_its_real_steps_alone():
    present = torch.arange(30) < torch.tensor([[30], [0], [12]])
    hidden = span_masks(present, 0.075, 10, draws(3))
    assert not (hidden & ~present).any()
    assert hidden.any(1).tolist() == [True, False, True]
    assert torch.equal(span_masks(present[2:, :12], 0.075, 10, draws(3)[2:])[0], hidden[2, :12])
