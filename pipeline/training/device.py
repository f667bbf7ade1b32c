"""Device and precision of a training or a scoring."""

import os
import shutil

import torch

from pipeline.settings import ConfigError
from pipeline.training.allocator import keep_freed_memory


def choose_device(device: str) -> torch.device:
    """The device called auto, cpu or cuda; `auto` takes CUDA where torch sees it.

    Raises:
        ConfigError: CUDA is asked for and not there.
    """
    cuda = torch.cuda.is_available()
    if device == "cuda" and not cuda:
        raise ConfigError("device is 'cuda', but torch sees no CUDA device; use device cpu or auto")
    if cuda and device != "cpu":
        return torch.device("cuda", torch.cuda.current_device())
    keep_freed_memory()
    return torch.device("cpu")


def check_compiler() -> None:
    """Raises ConfigError where torch.compile has no C++ compiler to work with."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise ConfigError(
            f"compile needs a C++ compiler, and {compiler!r} is not there; install g++ (or name another one in the "
            "environment variable CXX), or leave --compile out"
        )


def resolve_precision(precision: str, device: str) -> str:
    """`auto` as bf16-mixed where the device multiplies bfloat16 itself, else as 32-true; others as they are.

    At the papers' sizes bfloat16 steps take a third of the time on such a processor; see docs/performance.md.
    """
    if precision != "auto":
        return precision
    if device != "cpu" and torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported()
    else:
        native = torch.cpu._is_avx512_bf16_supported()  # torch has no public name for it before 2.12
    return "bf16-mixed" if native else "32-true"
