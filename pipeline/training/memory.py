"""The most memory that work took: on a GPU what torch allocated there, else what this process held resident."""

import torch

from benchmarks.peak_memory import resident_peak


def start_peak(device: torch.device) -> None:
    """From now on `peak_bytes` counts anew, on a GPU; the peak of a process can't be set back."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int:
    """The most bytes: on a GPU allocated by torch since `start_peak`, on a CPU resident since this process began."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else resident_peak()


def peak_of(device: torch.device) -> str:
    """What `peak_bytes` tells of, in words."""
    return "allocated on the GPU" if device.type == "cuda" else "resident in the process"
