"""What a machine has for `make gpu-test`, and what it lacks. Imports nothing that could be missing."""

import importlib.metadata
import importlib.util
import platform
import shutil
import sys
from typing import Any

from data_tools.processes import run_at_most

# Import name -> (package, what cannot be done without it).
PACKAGES = {
    "torch": ("torch", "anything"),
    "numpy": ("numpy", "anything"),
    "pydantic": ("pydantic", "anything"),
    "safetensors": ("safetensors", "anything"),
    "filelock": ("filelock", "anything"),
    "transformers": ("transformers", "the whole model"),
    "av": ("av", "every data stage and training"),
    "ffmpeg": ("ffmpeg-python", "every data stage and training"),
    "imageio_ffmpeg": ("imageio-ffmpeg", "every data stage and training"),
    "soundfile": ("soundfile", "every data stage and training"),
    "scipy": ("scipy", "every data stage and training"),
    "cv2": ("opencv-python-headless", "preprocess"),
    "facenet_pytorch": ("facenet-pytorch", "preprocess"),
    "skimage": ("scikit-image", "the test of preprocess"),
    "lightning": ("lightning", "training"),
    "torchmetrics": ("torchmetrics", "training"),
    "sklearn": ("scikit-learn", "training"),
    "pandas": ("pandas", "training"),
    "pyarrow": ("pyarrow", "training"),
    "tensorboard": ("tensorboard", "training"),
    "librosa": ("librosa", "training"),
    "yaml": ("pyyaml", "training"),
    "rich": ("rich", "training"),
    "pytest": ("pytest", "the tests"),
    "spconv": ("spconv-cu126", "the engine spconv (optional)"),
    "spconv_triton": ("spconv-triton", "the engine spconv_triton (optional)"),
    "triton": ("triton", "torch.compile"),
}


def machine() -> dict[str, Any]:
    """torch, CUDA, driver, GPU; versions of the packages that are there, and `missing` with what that costs."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "cuda": torch.version.cuda,
        "driver": _driver(),
        "cudnn": torch.backends.cudnn.version(),
        "python": sys.version.split()[0],
        "system": platform.platform(),
        "compiler": shutil.which("gcc") or shutil.which("cc"),
        "packages": {
            package: found for module, (package, _) in PACKAGES.items() if (found := _version(module, package))
        },
        "missing": missing(),
    }


def missing() -> dict[str, str]:
    """Packages that are not installed, each with what cannot be done without it."""
    return {package: needs for module, (package, needs) in PACKAGES.items() if importlib.util.find_spec(module) is None}


def _version(module: str, package: str) -> str | None:
    if importlib.util.find_spec(module) is None:
        return None
    # One import name can come from several packages: spconv-cu126, spconv-cu120.
    names = [package, *importlib.metadata.packages_distributions().get(module, [])]
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"


def _driver() -> str | None:
    """The driver's version, by nvidia-smi; None where that says nothing."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = run_at_most(command, limit_s=20)
    except OSError:
        return None
    return found.output.strip().split("\n")[0] or None if found.code == 0 else None
