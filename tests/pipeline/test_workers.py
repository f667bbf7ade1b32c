import os
import signal

import pytest

from pipeline.workers import Died, run_tasks


def double(number):
    return 2 * number


def crash_on_three(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


def fail(number):
    raise ValueError(f"task {number}")


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_once(workers):
    results = dict(run_tasks(double, list(range(7)), workers, preload=__name__))
    assert results == {n: 2 * n for n in range(7)}


def test_a_killed_worker_costs_its_own_task_only():
    results = dict(run_tasks(crash_on_three, list(range(7)), 2, preload=__name__))
    assert results.pop(3) == Died(3)
    assert results == {n: 2 * n for n in range(7) if n != 3}


@pytest.mark.parametrize("workers", [1, 2])
def test_an_exception_reaches_the_caller(workers):
    with pytest.raises(ValueError, match="task"):
        list(run_tasks(fail, [1, 2], workers, preload=__name__))
