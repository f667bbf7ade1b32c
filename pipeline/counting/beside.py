"""FE2E and MESM counted side by side, beside Tables 3 and 4 of Dai et al. 2021."""

from typing import Any

from pipeline.counting import paper
from pipeline.counting.model import count_model

_COLUMNS = (
    "model",
    "one face",
    "one chunk",
    "convolutions",
    "utterance",
    "of FE2E",
    "paper",
    "of FE2E",
    "code, of FE2E",
)


def beside_paper() -> dict[str, Any]:
    """Our counts of the models in the paper's tables, ready for JSON.

    Of MESM what sites that are really active need is counted (backend `torch`), on seeded random faces and mels with
    new weights: `pipeline flops --run` counts a trained one. `of_fe2e`: by convolutions of the utterance.
    """
    sparse = {top_p: count_model("mesm", {"top_p": top_p, "backend": "torch"}) for top_p in paper.MESM}
    dense = count_model("fe2e", {})
    rows = [_row("fe2e", None, dense, 1.0, paper.FE2E, 1.0, 1.0)]
    for top_p, counted in sparse.items():
        share = counted["convolutions"]["of_fe2e"]
        of_fe2e, of_code = paper.of_fe2e(top_p), paper.CODE_OF_FE2E[top_p]
        rows.append(_row("mesm", top_p, counted, share, paper.MESM[top_p], of_fe2e, of_code))
    inputs = {"fe2e": dense["input"], "mesm": sparse[min(sparse)]["input"]}
    return {"unit": "multiply-adds", "input": inputs, "rows": rows, "explanation": paper.explanation()}


def _row(
    model: str,
    top_p: float | None,
    counted: dict[str, Any],
    share: float,
    published: float,
    published_share: float,
    code_share: float,
) -> dict[str, Any]:
    return {
        "model": model,
        "top_p": top_p,
        "per_face": counted["per_face"]["total"],
        "per_chunk": counted["per_chunk"]["total"],
        "convolutions": counted["convolutions"]["macs"],
        "utterance": counted["utterance"],
        "of_fe2e": share,
        "paper": {"flops": published, "of_fe2e": published_share},
        "code_of_fe2e": code_share,
    }


def format_beside(found: dict[str, Any]) -> str:
    """The counts as a table for a person; figures in units of 1e6 (M) and 1e9 (G)."""
    table = [_COLUMNS, *(_cells(row) for row in found["rows"])]
    widths = [max(len(cells[i]) for cells in table) for i in range(len(_COLUMNS))]
    first, *others = found["input"].values()
    lines = [f"multiply-adds for {first}", *(f"mesm: {text}" for text in others), ""]
    for cells in table:
        name, *numbers = (
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        lines.append("  ".join([name, *numbers]))
    return "\n".join([*lines, "", *found["explanation"]])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    published = row["paper"]
    return (
        row["model"] + ("" if row["top_p"] is None else f", top_p {row['top_p']}"),
        f"{row['per_face'] / 1e6:.2f}M",
        f"{row['per_chunk'] / 1e6:.2f}M",
        f"{row['convolutions'] / 1e9:.2f}G",
        f"{row['utterance']['total'] / 1e9:.2f}G",
        f"{row['of_fe2e']:.2f}",
        f"{published['flops'] / 1e9:.2f}G",
        f"{published['of_fe2e']:.2f}",
        f"{row['code_of_fe2e']:.2f}",
    )
