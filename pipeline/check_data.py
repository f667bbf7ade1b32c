"""`pipeline check --data`: the stores and features of a data folder, compared with their checksums."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from data_tools.about import read_dataset_facts, read_store_facts
from data_tools.checksums import has_checksum
from data_tools.errors import DataError
from data_tools.manifest import has_media, read_manifest, read_rejects
from data_tools.sequences.store import DialogueFeatures, feature_names, features_path, read_facts
from data_tools.store import DialogueStore, store_path
from pipeline.progress import Reporter


def check_data(data: Path, reporter: Reporter) -> dict[str, Any]:
    """Read every store and every file of features of a data folder whole.

    Returns {"data", "files", "without_checksum": files of earlier versions, which cannot be compared, "problems":
    sentences, each with its remedy}.

    Raises:
        DataError: there is no manifest in `data`, or it is damaged.
    """
    table = read_manifest(data)
    dialogues = sorted(table["dialogue_id"].unique())
    problems: list[str] = []
    for read in (lambda: read_dataset_facts(data), lambda: read_rejects(data)):
        tried(read, problems)
    work: list[tuple[Path, Callable[[Path], Any]]] = []
    if has_media(table) and tried(lambda: read_store_facts(data), problems):
        work += [(store_path(data, name), DialogueStore) for name in dialogues]
    for features in feature_names(data):
        if tried(lambda name=features: read_facts(data, name), problems):  # type: ignore[misc]
            work += [(features_path(data, features, name), DialogueFeatures) for name in dialogues]
    for path, kind in reporter.track(work, len(work), "check", "files"):
        tried(lambda path=path, kind=kind: kind(path), problems)  # type: ignore[misc]
    return {
        "data": str(data),
        "files": len(work),
        "without_checksum": sum(not has_checksum(path) for path, _ in work),
        "problems": problems,
    }


def tried(step: Callable[[], Any], problems: list[str]) -> Any:
    """Result of `step`; None, and the error's text in `problems`, where it fails."""
    try:
        return step()
    except DataError as error:
        problems.append(str(error))
        return None


def format_data_check(summary: Mapping[str, Any]) -> str:
    """The answer of `check_data` as lines for a person."""
    lines = [f"{summary['data']}: {summary['files']} files of stores and features"]
    if summary["without_checksum"]:
        lines.append(
            f"  {summary['without_checksum']} without a checksum, of an earlier version: only their form is right"
        )
    lines += [f"problem: {problem}" for problem in summary["problems"]]
    count = len(summary["problems"])
    return "\n".join([*lines, f"{count} problem{'s' * (count > 1)}" if count else "nothing is damaged"])
