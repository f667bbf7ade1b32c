"""Tests of the Triton kernels in Triton's interpreter; `tests/models/test_triton.py` runs them in a process of its own.

Interpreting has to be asked for before triton is imported, so another process's tests are left alone.
"""

import os
from importlib.util import find_spec

import pytest

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1" and find_spec("triton") is not None
collect_ignore_glob = [] if INTERPRETED else ["test_*.py"]


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    """Several tiles a kernel even on small maps; the interpreter takes milliseconds for each."""
    from models.triton_kernels.launch import TILES

    for name, size in {"rows": 64, "outputs": 16, "channels": 16, "sites": 256, "cells": 4096, "programs": 18}.items():
        monkeypatch.setattr(TILES, name, size)
