import math

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.testing import assert_close

from data_tools.batch import Batch
from models.output import Output
from pipeline.settings import ConfigError
from pipeline.training.losses import (
    CrossEntropy,
    Distance,
    MultiLabelBCE,
    Objective,
    balanced_weights,
    positive_weights,
)


def batch_of(labels, sentiment=None):
    nothing = torch.zeros(0)
    sentiment = nothing if sentiment is None else sentiment
    return Batch(nothing, nothing, nothing, nothing, nothing, nothing, labels, sentiment, ("a", "b"))


def test_weights_are_negatives_over_positives():
    labels = torch.tensor([[1.0, 1], [0, 1], [0, 1], [0, 0]])
    assert_close(positive_weights(labels), torch.tensor([3.0, 1 / 3]))


def test_an_empty_and_a_full_class_weigh_one():
    labels = torch.tensor([[0.0, 1, 1], [0, 1, 0], [0, 1, 0]])
    assert_close(positive_weights(labels), torch.tensor([1.0, 1.0, 2.0]))


def test_half_of_the_annotators_make_a_positive():
    assert_close(positive_weights(torch.tensor([[0.5], [0.49], [0.0]])), torch.tensor([2.0]))


def test_bce_is_the_formula_of_the_weighted_cross_entropy():
    logits, labels = torch.tensor([[0.3, -1.2], [2.0, 0.1]]), torch.tensor([[1.0, 0], [0, 1]])
    weight = torch.tensor([3.0, 0.5])
    expected = 0.0
    for i in range(2):
        for e in range(2):
            p, y = 1 / (1 + math.exp(-logits[i, e])), labels[i, e].item()
            expected -= (weight[e].item() * y * math.log(p) + (1 - y) * math.log(1 - p)) / 4
    assert MultiLabelBCE(weight)(logits, batch_of(labels)).item() == pytest.approx(expected, rel=1e-6)


def test_half_precision_logits_lose_nothing_in_the_loss():
    logits = torch.tensor([[12.0, -12.0]], dtype=torch.bfloat16)
    loss = MultiLabelBCE(torch.ones(2)).against(logits, torch.tensor([[1.0, 0.0]]))
    assert loss.dtype == torch.float32
    # In bfloat16 the sum 12 + 6e-6 would swallow the loss whole; float32 keeps it to its last digits.
    assert loss.item() == pytest.approx(math.log1p(math.exp(-12)), abs=1e-6)


def test_balanced_weights_are_scikit_learns():
    truth = [0, 0, 0, 1, 2, 2]
    expected = compute_class_weight("balanced", classes=np.arange(3), y=truth)
    assert_close(balanced_weights(torch.tensor([3, 1, 2])), torch.from_numpy(expected).float())
    assert_close(balanced_weights(torch.tensor([4, 0])), torch.tensor([0.5, 1.0]))


def test_cross_entropy_is_minus_the_log_of_the_true_share():
    logits, labels = torch.tensor([[0.3, -1.2, 0.0], [2.0, 0.1, -1.0]]), torch.tensor([[0.0, 1, 0], [0.6, 0.4, 0]])
    shares = [[math.exp(x) / sum(math.exp(y) for y in row) for x in row] for row in logits.tolist()]
    weights = torch.tensor([0.5, 3.0, 1.0])
    expected = -(3.0 * math.log(shares[0][1]) + 0.5 * math.log(shares[1][0])) / 2
    assert CrossEntropy(weights)(logits, batch_of(labels)).item() == pytest.approx(expected, rel=1e-6)


def test_cross_entropies_of_two_batches_add_up():
    """Divided by utterances, not by weights: the mean over four is that of the means over two and two."""
    draw = torch.Generator().manual_seed(0)
    logits, truth = torch.randn(4, 3, generator=draw), torch.tensor([0, 1, 1, 2])
    loss = CrossEntropy(torch.tensor([0.5, 3.0, 1.0]))
    halves = (loss.against(logits[:2], truth[:2]) + loss.against(logits[2:], truth[2:])) / 2
    assert_close(loss.against(logits, truth), halves)


@pytest.mark.parametrize(("kind", "expected"), [("l1", (0.5 + 2.0) / 2), ("mse", (0.25 + 4.0) / 2)])
def test_distances_of_scores(kind, expected):
    logits, sentiment = torch.tensor([[1.5], [-1.0]]), torch.tensor([1.0, 1.0])
    assert Distance(kind)(logits, batch_of(torch.zeros(2, 0), sentiment)).item() == pytest.approx(expected)


def test_the_models_own_losses_are_weighed_by_name():
    output = Output(torch.zeros(2, 1), losses={"reconstruction": torch.tensor(4.0), "contrast": torch.tensor(10.0)})
    objective = Objective("task", lambda logits, batch: torch.tensor(1.0), {"reconstruction": 0.5})
    loss = objective(output, batch_of(torch.zeros(2, 1)))
    assert loss.total.item() == 1 + 0.5 * 4 + 10
    assert {name: part.item() for name, part in loss.parts.items()} == {
        "task": 1.0,
        "reconstruction": 4.0,
        "contrast": 10.0,
    }


def test_a_weight_for_an_unknown_loss_is_refused():
    objective = Objective("task", lambda logits, batch: torch.tensor(1.0), {"reconstuction": 0.5})
    output = Output(torch.zeros(2, 1), losses={"reconstruction": torch.tensor(4.0)})
    with pytest.raises(ConfigError, match="reconstuction.*of this model: reconstruction"):
        objective(output, batch_of(torch.zeros(2, 1)))
