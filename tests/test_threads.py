"""Settings of the OpenMP runtime: made before torch is loaded, and never over a user's own."""

import os
import subprocess
import sys

import pytest

# Ends where torch would be loaded, with what the runtime would read.
SPY = """
import builtins, os
real = builtins.__import__
def spy(name, *rest, **more):
    if name.split(".")[0] == "torch":
        print(os.environ.get("GOMP_SPINCOUNT", "none"), flush=True)
        os._exit(0)
    return real(name, *rest, **more)
builtins.__import__ = spy
import {}
"""


def spin_count(package, **user):
    own = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    environment = {name: value for name, value in os.environ.items() if name not in own} | user
    command = [sys.executable, "-c", SPY.format(package)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("package", ["models", "data_tools.batch", "data_tools.dataset", "pipeline.train"])
def test_waiting_threads_give_their_core_away(package):
    assert spin_count(package) == "1000"


def test_a_users_own_setting_wins():
    assert spin_count("data_tools.batch", GOMP_SPINCOUNT="7") == "7"
    assert spin_count("data_tools.batch", OMP_WAIT_POLICY="active") == "none"
