import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import auc

from pipeline.metrics.metric import DEFINITIONS, FIRST_RATE, auilc, named_auilcs

RATES = [i / 10 for i in range(11)]


def test_by_hand():
    # (0.8 + 0.6) / 2 * 0.1 + (0.6 + 0.2) / 2 * 0.4
    assert auilc(np.array([0.1, 0.2, 0.6]), np.array([0.8, 0.6, 0.2])) == pytest.approx(0.07 + 0.16)


@given(st.lists(st.floats(-1, 1), min_size=11, max_size=11))
def test_is_the_sum_of_equation_17_and_scikit_learns_area(values):
    total = sum(0.5 * (values[i] + values[i + 1]) * (RATES[i + 1] - RATES[i]) for i in range(10))
    assert auilc(np.array(RATES), np.array(values)) == pytest.approx(total) == pytest.approx(auc(RATES, values))


def test_a_perfect_metric_has_the_width_of_the_rates():
    """Not normalised: 0.9 and 1.0 over rates to 1.0, 0.4 and 0.5 over those of CH-SIMS."""
    assert named_auilcs(dict.fromkeys(RATES, 1.0)) == {
        "auilc": pytest.approx(0.9),
        "auilc_from_zero": pytest.approx(1.0),
    }
    assert named_auilcs(dict.fromkeys(RATES[:6], 1.0)) == {
        "auilc": pytest.approx(0.4),
        "auilc_from_zero": pytest.approx(0.5),
    }


def test_the_variants_differ_by_the_first_trapezoid():
    scores = {rate: 0.9 - rate / 2 for rate in reversed(RATES)}
    areas = named_auilcs(scores)
    assert areas["auilc_from_zero"] - areas["auilc"] == pytest.approx((scores[0.0] + scores[0.1]) / 2 * 0.1)
    assert set(areas) == set(FIRST_RATE) == set(DEFINITIONS)


def test_an_undefined_value_makes_its_variants_undefined():
    scores = dict.fromkeys(RATES, 0.5)
    assert named_auilcs(scores | {1.0: None}) == {"auilc": None, "auilc_from_zero": None}
    assert named_auilcs(scores | {0.0: None}) == {"auilc": pytest.approx(0.45), "auilc_from_zero": None}


@pytest.mark.parametrize("rates", [[0.1], [0.1, 0.1], [0.2, 0.1], []])
def test_rates_that_have_no_area_are_refused(rates):
    with pytest.raises(ValueError, match="at least two, increasing"):
        auilc(np.array(rates), np.ones(len(rates)))


def test_a_missing_first_rate_is_refused():
    with pytest.raises(ValueError, match=r"auilc begins at rate 0\.1, which is none of 0\.0, 0\.5"):
        named_auilcs({0.5: 1.0, 0.0: 1.0})
