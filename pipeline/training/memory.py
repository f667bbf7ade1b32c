"""Memory of a training: the most that it took, and glibc's malloc told to keep what was freed."""

import ctypes
import sys

import torch

from data_tools.processes import resident_peak

# From malloc.h: M_TRIM_THRESHOLD and M_MMAP_THRESHOLD.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# No activation of a batch that fits a CPU's memory is larger; the parameters of mallopt are ints.
_LARGEST_KEPT = 2**30


def start_peak(device: torch.device) -> None:
    """From now on `peak_bytes` counts anew, on a GPU; the peak of a process can't be set back."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int:
    """The most bytes: on a GPU allocated by torch since `start_peak`, on a CPU resident since this process began."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else resident_peak()


def peak_of(device: torch.device) -> str:
    """Kind of memory that `peak_bytes` counts, in words."""
    return "allocated on the GPU" if device.type == "cuda" else "resident in the process"


def keep_freed_memory() -> bool:
    """Keep blocks up to 1 GiB in the heap of this process from now on; returns True if this malloc can.

    By default malloc maps every large block anew and gives it back when it is freed, so that the system has to clear
    and map each page of each activation again in every step: 350,000 page faults in a training step at batch 8.
    Freed memory is reused and stays with the process, so the resident size stays at its peak. Another malloc than
    glibc's is left as it is.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))
