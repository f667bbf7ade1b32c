"""A small corpus and settings with which a study trains in seconds."""

import pytest
from listener import Listener


class Ticking(Listener):
    """Its clock advances by a second each time that it is read."""

    def __init__(self, stop_at=None):
        super().__init__(stop_at, clock=self._tick)
        self.now_s = 0.0

    def _tick(self):
        self.now_s += 1.0
        return self.now_s


@pytest.fixture(scope="session")
def listener():
    """The class."""
    return Ticking


@pytest.fixture(scope="session")
def tiny():
    """Settings of training and of both models."""
    return {
        "text_encoder": "tiny",
        "width": 4,
        "layers": 1,
        "epochs": 1,
        "batch_size": 8,
        "device": "cpu",
    }


@pytest.fixture(scope="session")
def run_files():
    """Folder -> name -> bytes of all files of the runs in it but for their locks."""

    def read(folder):
        paths = [path for path in folder.glob("**/seed-*/**/*") if path.is_file() and path.name != ".lock"]
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}

    return read
