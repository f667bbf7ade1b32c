"""Fixtures that several packages' tests share."""

import os
import shutil
import sys
from pathlib import Path

# So that test files can say `from acted import ...`: with importlib mode nothing is on the path by itself.
sys.path.append(str(Path(__file__).parent))

# Tests run on machines of 2 cores, several at a time: one thread a process is steadier and no slower there.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest

# No sandbox: tests run as root in containers. The camera is one that shows a test picture and beeps.
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]
SENTENCES = (
    "how dare you speak to me that way.",
    "we are going on a huge adventure, come on.",
    "I am so thrilled I want to jump and dance.",
    "nobody here can give me a straight answer.",
)


# Of the longest files: begun last, one of them would keep one process busy while the others have nothing left to do.
FIRST = ["test_chain.py", "test_contributing.py", "test_processes.py", "test_triton.py", "test_interruption.py"]


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in FIRST)


@pytest.fixture(scope="session")
def speech_maker():
    """(pauses in seconds) -> (samples (S,) float32 at 16 kHz, [(start_s, end_s)] of each sentence).

    Sentences follow each other with these pauses before, between and after them, in the noise of a quiet room.
    """
    # Not at the top: most tests need no voices.
    from data_tools.standin.cast import Voice
    from data_tools.standin.expressions import Prosody
    from data_tools.standin.speech import Synthesiser

    def make(pauses):
        synthesiser, noise = Synthesiser(), np.random.default_rng(0)
        parts, times = [np.zeros(round(16_000 * pauses[0]))], []
        for number, pause in enumerate(pauses[1:]):
            sentence = SENTENCES[number % len(SENTENCES)]
            said = synthesiser.say(sentence, Voice("en-us+f1"), Prosody(170, 50, 50), noise)
            start_s = sum(map(len, parts)) / 16_000
            times.append((start_s, start_s + len(said) / 16_000))
            parts += [said, np.zeros(round(16_000 * pause))]
        samples = np.concatenate(parts)
        return (samples + 0.0005 * noise.standard_normal(len(samples))).astype(np.float32), times

    return make


@pytest.fixture(scope="session")
def plain_speech():
    """(S,) float32 at 16 kHz: "Life is good and I enjoy every minute.", slowly, with a second of silence around it."""
    from data_tools.standin.cast import Voice
    from data_tools.standin.expressions import Prosody
    from data_tools.standin.speech import Synthesiser

    noise = np.random.default_rng(0)
    said = Synthesiser().say("Life is good and I enjoy every minute.", Voice("en-us"), Prosody(130, 50, 50), noise)
    samples = np.concatenate([np.zeros(16_000), said, np.zeros(16_000)])
    return (samples + 0.0005 * noise.standard_normal(len(samples))).astype(np.float32)


# Not for the whole session: it holds an event loop, and other tests have their own.
@pytest.fixture(scope="module")
def browser():
    """Debian's chromium or another browser of its family on the PATH, driven by playwright."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("there is no chromium on the PATH")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=CHROMIUM_FLAGS)
        yield opened
        opened.close()
