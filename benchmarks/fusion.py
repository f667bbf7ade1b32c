"""What a further modality costs in EMT's three ways of fusion (Table 1 of its paper), by clock and by count."""

import statistics
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from data_tools.files import write_json, write_text
from models.emt import EMTConfig, EMTFusion, Strategy
from models.layers.padded import Padded
from pipeline.jobs.local import available_cores
from pipeline.progress import Reporter

STRATEGIES: tuple[Strategy, ...] = ("oagl", "ooll", "oall")
MODALITIES = (2, 3, 4, 5, 6)
STEPS = 100
REPEATS = 7


def bench_fusion(
    out: Path,
    reporter: Reporter,
    modalities: Sequence[int] = MODALITIES,
    steps: int = STEPS,
    repeats: int = REPEATS,
    settings: EMTConfig | None = None,
) -> dict[str, Any]:
    """Measure EMT's fusion on noise and write `out`/fusion.json, one object a row, and a page of it beside.

    Each row is one strategy with so many modalities of `steps` steps, one utterance: the median seconds of a forward
    and backward pass on the CPU, and the multiply-adds of the forward one. All rows run in turn, `repeats` times, so
    that a drifting machine slows all of them; one round more warms up. settings: of EMT, the paper's by default;
    `fusion` in it has no meaning here. Returns {"rows": [...], "files": [...]}.

    Raises:
        DataError: `out` cannot be written to.
    """
    common = (settings or EMTConfig()).model_dump(exclude={"fusion"})
    cases = [
        _Case(EMTConfig(fusion=strategy, **common), count, steps) for strategy in STRATEGIES for count in modalities
    ]
    taken: list[list[float]] = [[] for _ in cases]
    for turn in reporter.track(range(repeats + 1), repeats + 1, "fusion", "rounds"):
        for case, seconds in zip(cases, taken, strict=True):
            found = case.seconds()
            if turn > 0:
                seconds.append(found)
    rows = [
        {
            "work": "EMT's fusion, forward and backward",
            "fusion": case.config.fusion,
            "modalities": case.modalities,
            "steps": steps,
            "median_s": statistics.median(seconds),
            "repeats": repeats,
            "multiply_adds": case.multiply_adds(),
        }
        | _where()
        for case, seconds in zip(cases, taken, strict=True)
    ]
    for row in rows:
        first = next(r for r in rows if r["fusion"] == row["fusion"])
        row["seconds_ratio"] = row["median_s"] / first["median_s"]
        row["multiply_adds_ratio"] = row["multiply_adds"] / first["multiply_adds"]
    files = [out / "fusion.json", out / "fusion.md"]
    write_json(files[0], rows)
    write_text(files[1], as_markdown(rows))
    reporter.say(f"written: {', '.join(map(str, files))}")
    return {"rows": rows, "files": [str(path) for path in files]}


class _Case:
    """A fusion and an utterance of noise for it."""

    def __init__(self, config: EMTConfig, modalities: int, steps: int) -> None:
        self.config, self.modalities = config, modalities
        letters = "abcdefghijklmnopqrstuvwxyz"[:modalities]
        torch.manual_seed(0)
        self.fusion = EMTFusion(list(letters), config)
        present = torch.ones(1, steps, dtype=torch.bool)
        self.sequences = {letter: Padded(torch.randn(1, steps, config.size), present) for letter in letters}
        self.whole = {letter: torch.randn(1, config.size) for letter in letters}

    def seconds(self) -> float:
        """Of one forward and one backward pass, in training mode."""
        self.fusion.train().zero_grad(set_to_none=True)
        started = time.perf_counter()
        self._forward().sum().backward()
        return time.perf_counter() - started

    def multiply_adds(self) -> int:
        """Of one forward pass, by torch's counter, the attention's own among them."""
        self.fusion.eval()
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            self._forward()
        return int(counter.get_total_flops()) // 2

    def _forward(self) -> Tensor:
        """All that comes out: the scores alone would spare the last layer a part of its backward pass."""
        after, fused = self.fusion(self.sequences, self.whole)
        return torch.cat([fused.flatten(), *(sequence.values.flatten() for sequence in after.values())])


def as_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The seconds, and what they and the multiply-adds are times those of the fewest modalities."""
    first = rows[0]
    least = first["modalities"]
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    lines = [
        "# A further modality in EMT's fusion",
        "",
        "Written by `pipeline bench-fusion`; rows in fusion.json.",
        "",
        f"{first['date']}, {first['device']}, {versions}. One utterance of noise, {first['steps']} steps in each "
        f"modality; forward and backward; medians of {first['repeats']} rounds, all rows in turn in one process. In "
        f"brackets: times that of {least} modalities. Multiply-adds are those of the forward pass.",
        "",
        "| modalities | " + " | ".join(f"{name} s | {name} multiply-adds" for name in STRATEGIES) + " |",
        "|---:|" + "---:|" * (2 * len(STRATEGIES)),
    ]
    for count in dict.fromkeys(row["modalities"] for row in rows):
        by_name = {row["fusion"]: row for row in rows if row["modalities"] == count}
        cells = [_cells(by_name[name]) for name in STRATEGIES]
        lines.append(f"| {count} | " + " | ".join(cells) + " |")
    most = max(row["modalities"] for row in rows)
    lines += [
        "",
        f"A line from {least} to {most} modalities is {most / least:.2f} times, a square {(most / least) ** 2:.2f} "
        f"times, the pairs {most * (most - 1) / (least * (least - 1)):.2f} times.",
    ]
    return "\n".join(lines) + "\n"


def _cells(row: dict[str, Any]) -> str:
    seconds = f"{row['median_s']:.4f} ({row['seconds_ratio']:.2f})"
    return f"{seconds} | {row['multiply_adds'] / 1e9:.3f}e9 ({row['multiply_adds_ratio']:.2f})"


def _where() -> dict[str, Any]:
    return {
        "device": f"CPU {torch.backends.cpu.get_cpu_capability()}, {available_cores()} cores, "
        f"{torch.get_num_threads()} threads used",
        "versions": {"torch": torch.__version__, "python": sys.version.split()[0]},
        "date": datetime.now(UTC).date().isoformat(),
    }
