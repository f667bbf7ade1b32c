import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.jobs.local import died, timed_out
from pipeline.jobs.run import run_jobs, time_limit


def double(number):
    return 2 * number


def crash_on_three(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


def start_a_pool_and_say_its_workers():
    """Run in a process of its own that is then killed."""
    for _, worker in run_jobs(own_id, list(range(2)), 2, preload=__name__):
        print(worker, flush=True)


def own_id(number):
    if number:
        time.sleep(60)
    return os.getpid()


def hang_on_three(number):
    if number == 3:
        time.sleep(3600)
    return 2 * number


def wait_for_a_server(number):
    raise TimeoutError(errno.ETIMEDOUT, "the file server does not answer")


def fail(number):
    raise ValueError(f"task {number}")


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_once(workers):
    results = dict(run_jobs(double, list(range(7)), workers, preload=__name__))
    assert results == {n: 2 * n for n in range(7)}


def test_a_killed_worker_costs_its_own_task_only():
    results = dict(run_jobs(crash_on_three, list(range(7)), 2, preload=__name__))
    assert results.pop(3) == died(3)
    assert results == {n: 2 * n for n in range(7) if n != 3}


def test_a_job_without_end_is_given_up_and_the_others_go_on():
    limits = {3: 1.5}
    results = dict(run_jobs(hang_on_three, list(range(7)), 2, __name__, limit_s=lambda job: limits.get(job, 600.0)))
    assert results.pop(3) == timed_out(3, 1.5)
    assert results == {n: 2 * n for n in range(7) if n != 3}


def test_a_time_out_of_the_system_is_an_error_as_any_other():
    with pytest.raises(TimeoutError, match="does not answer"):
        list(run_jobs(wait_for_a_server, [1], 2, __name__, limit_s=lambda job: 600.0))


def test_the_same_workers_do_all_jobs():
    workers = {worker for _, worker in run_jobs(own_id, [0] * 400, 2, __name__)}
    assert 1 <= len(workers) <= 2
    assert os.getpid() not in workers


def test_a_limit_grows_with_the_media():
    assert time_limit(600.0, 0.0) == 600.0
    assert time_limit(600.0, 10.0) == 900.0


@pytest.mark.parametrize("workers", [1, 2])
def test_an_exception_reaches_the_caller(workers):
    with pytest.raises(ValueError, match="task"):
        list(run_jobs(fail, [1, 2], workers, preload=__name__))


def test_workers_end_with_a_killed_parent():
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_run as t; "
    code += "t.start_a_pool_and_say_its_workers()"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    assert is_running(worker)
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 60
    while is_running(worker):
        assert time.monotonic() < deadline, f"worker {worker} outlives its parent"
        time.sleep(0.02)


def is_running(process_id):
    try:
        return "zombie" not in Path(f"/proc/{process_id}/status").read_text()
    except FileNotFoundError:
        return False
