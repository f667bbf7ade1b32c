from fractions import Fraction

import pytest

from pipeline.settings import ConfigError
from pipeline.study.runs import MOST_RUNS, check_runs
from pipeline.sweep import parse_grid


def test_a_grid_has_exact_values():
    assert parse_grid("0.1:1.0:0.1") == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    assert [str(value) for value in parse_grid("0.1:0.7:0.2")] == ["0.1", "0.3", "0.5", "0.7"]
    assert parse_grid("0.05:1:0.05") == tuple(float(Fraction(number, 20)) for number in range(1, 21))


def test_the_last_number_counts_where_a_step_falls_on_it():
    assert parse_grid("0.1:1.0:0.2") == (0.1, 0.3, 0.5, 0.7, 0.9)
    assert parse_grid("0.5:0.5:0.1") == parse_grid("0.5") == (0.5,)


def test_values_can_be_listed_and_come_out_rising():
    assert parse_grid("0.9, 0.3,0.5") == (0.3, 0.5, 0.9)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("0:1:0.1", "0 is outside (0, 1]"),
        ("0.5:1.2:0.1", "1.1 is outside (0, 1]"),
        ("-0.1,0.5", "-0.1 is outside (0, 1]"),
        ("0.1:1:0", "the step is 0"),
        ("1:0.1:-0.1", "the step is -0.1"),
        ("0.9:0.1:0.1", "begins above its end"),
        ("0.1:1", "expected FIRST:LAST:STEP"),
        ("a:b:c", "not all of it are numbers"),
        ("", "not all of it are numbers"),
        ("nan", "finite"),
        ("0.1:inf:0.1", "finite"),
        ("0.5,0.50", "comes twice"),
        ("0.0001:1:0.0001", "10000 trainings"),
        ("0.1:1:1e-300", "at most 500"),
    ],
)
def test_what_is_no_grid_is_refused_with_its_text(text, part):
    with pytest.raises(ConfigError) as refused:
        parse_grid(text)
    assert part in str(refused.value)
    assert text in str(refused.value)
    assert "--top-p" in str(refused.value)


def test_too_many_trainings_are_refused():
    check_runs(MOST_RUNS, "x")
    with pytest.raises(ConfigError, match="30 rows: 501 trainings"):
        check_runs(MOST_RUNS + 1, "30 rows")
