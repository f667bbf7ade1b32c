"""Peak memory of work in a process of its own. This file imports little: so does the process."""

import numpy as np
import pytest

from benchmarks.peak_memory import with_peak


def zeros(count):
    return int(np.zeros(count, np.uint8).sum() + np.ones(count, np.uint8).sum())


def test_the_peak_is_of_the_function_alone():
    mine = np.ones(300_000_000, np.uint8)  # must not count: it lies in another process
    result, small = with_peak(zeros, 1_000_000)
    _, large = with_peak(zeros, 201_000_000)
    assert (result, mine[0]) == (1_000_000, 1)
    assert large - small == pytest.approx(200_000_000, rel=0.1)
