"""Results of making a stand-in: the truth of every utterance, and totals."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from data_tools.files import atomic_path
from data_tools.standin.cues import MODALITIES, Cues, Emotions

TRUTH_FILE = "STANDIN.csv"


@dataclass(frozen=True)
class Truth:
    """One labelled utterance: what it is labelled and what each modality shows. label: as in the release's files."""

    utterance_id: str
    label: Emotions
    cues: Cues


@dataclass(frozen=True)
class Made:
    """Output of one job: its labelled utterances, and seconds of video."""

    truths: tuple[Truth, ...]
    seconds: float


def write_truths(root: Path, truths: Iterable[Truth]) -> None:
    """`STANDIN.csv`: utterance_id, label, text, audio, video; several emotions are joined by `+`, none is `none`."""
    with atomic_path(root / TRUTH_FILE) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["utterance_id", "label", *MODALITIES])
        for truth in sorted(truths, key=lambda truth: truth.utterance_id):
            shown = [getattr(truth.cues, modality) for modality in MODALITIES]
            rows.writerow([truth.utterance_id, *("+".join(emotions) or "none" for emotions in (truth.label, *shown))])
