"""What the benchmarks are to reach, and which rows reach it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

# The published code, measured elsewhere on a 2-core CPU at batch 8, MESM at p 0.5: seconds of a float32 training step.
PUBLISHED_STEP_S = {
    ("towers only", "fe2e"): 3.1,
    ("towers only", "mesm"): 3.2,
    ("whole model", "fe2e"): 4.6,
    ("whole model", "mesm"): 4.2,
}
# At most so much of FE2E's time, by top_p.
CPU_RATIOS = {0.5: 0.70, 0.7: 0.90}
GPU_RATIOS = {0.5: 0.75}
OF_PUBLISHED = 0.5
ATTENTION_SHARE = 0.10
# Or as much as float32's own, from weights that are a rounding apart.
CURVE_DIFFERENCE = 0.02
EPOCH_S = 10.0
# The data path keeps up where the training hardly waits for it.
WAITING_SHARE = 0.05


@dataclass(frozen=True)
class Verdict:
    """One target beside what was found. found: None where it was not measured."""

    what: str
    target: float
    found: float | None
    unit: str = ""

    @property
    def met(self) -> str:
        """yes, no, or not measured."""
        if self.found is None:
            return "not measured"
        return "yes" if self.found <= self.target else "**no**"


def cpu_verdicts(rows: Sequence[dict[str, Any]]) -> list[Verdict]:
    """The targets that a CPU has, for every row that one speaks of."""
    return [verdict for row in rows for verdict in _of_cpu_row(row)]


def _of_cpu_row(row: dict[str, Any]) -> Iterator[Verdict]:
    name = describe(row)
    if row.get("ratio_to_fe2e") is not None and row["model"] == "mesm" and row["top_p"] in CPU_RATIOS:
        yield Verdict(f"{name}: of FE2E's time", CPU_RATIOS[row["top_p"]], row["ratio_to_fe2e"])
    if (found := of_published(row)) is not None and row["model"] == "mesm":
        yield Verdict(f"{name}: of the published step", OF_PUBLISHED, found)
    if "share_of_step" in row:
        yield Verdict(f"{name}: of MESM's step", ATTENTION_SHARE, row["share_of_step"])
    if "last_difference" in row and row["precision"] != "32-true":
        target = max(CURVE_DIFFERENCE, row.get("control_difference", 0.0))
        yield Verdict(f"{name}: end of the loss from float32's", target, row["last_difference"])


def gpu_verdicts(rows: Sequence[dict[str, Any]]) -> list[Verdict]:
    """The targets that a GPU has. A ratio counts in the fastest way that each model has, eager or not."""
    found = []
    for batch in sorted({row["batch"] for row in rows if row["work"].startswith("training step")}):
        for scope in ("towers only", "whole model"):
            same = {"work": f"training step, {scope}", "batch": batch, "precision": "bf16-mixed"}
            best = {
                model: min(
                    (
                        row["median_s"]
                        for row in rows
                        if row["median_s"] is not None
                        and row["model"] == model
                        and row["top_p"] in (None, 0.5)
                        and all(row[key] == value for key, value in same.items())
                    ),
                    default=None,
                )
                for model in ("fe2e", "mesm")
            }
            ratio = None if None in best.values() else best["mesm"] / best["fe2e"]  # type: ignore[operator]
            what = f"training step, {scope}, batch {batch}, bf16-mixed, MESM p 0.5: of FE2E's time, each at its fastest"
            found.append(Verdict(what, GPU_RATIOS[0.5], ratio))
    for row in rows:
        if row["work"].startswith("epoch"):
            found.append(Verdict(describe(row), EPOCH_S, row["median_s"], " s"))
        if row["work"].startswith("epoch from the store"):
            found.append(Verdict(f"{describe(row)}: waiting for data", WAITING_SHARE, row.get("waiting_share")))
    return found


def of_published(row: dict[str, Any]) -> float | None:
    """A CPU row's training step over that of the published code, where there is a figure for it."""
    work, _, scope = row["work"].partition(", ")
    timed = row.get("ratio_to_fe2e") is not None  # a floor has the same work
    comparable = timed and work == "training step" and row["top_p"] in (None, 0.5) and row["batch"] == 8
    published = PUBLISHED_STEP_S.get((scope, row["model"])) if comparable else None
    return None if published is None else row["median_s"] / published


def describe(row: dict[str, Any]) -> str:
    """What a row measures, in words."""
    model = row["model"] if row["top_p"] is None else f"{row['model']} p {row['top_p']}"
    return f"{row['work']}, batch {row['batch']}, {row['precision']}, {model}"
