"""`pipeline inspect`: what became of single utterances, from the release to the model's input, on one page."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_tools.about import read_dataset_facts
from data_tools.files import check_writable
from data_tools.manifest import emotions_of, read_manifest, read_rejects
from data_tools.records import LABEL_PREFIX, Reject
from pipeline.command import Command, fields_of
from pipeline.progress import Reporter
from pipeline.report.chosen import check_known
from pipeline.report.contact_sheet import make_sheet
from pipeline.report.pages import write_page
from pipeline.run_data import dataset_name, notice_of, preprocessing_of
from pipeline.settings import DATA_HELP, DEFAULT_DATA, LocalPath, Names, Settings, flag
from pipeline.stats import stats

DEFAULT_PAGE = "inspect.html"
# Of the utterances in which most frames have no face, this many are shown beside the sample.
WORST = 4
_NO_LABEL = ""  # no emotion is called so


class InspectSettings(Settings):
    """Settings of `pipeline inspect`."""

    ids: Names = flag((), positional=True, help="Utterances, kept or rejected; by default a sample.")
    data: LocalPath = flag(DEFAULT_DATA, help=DATA_HELP)
    out: LocalPath | None = flag(None, help="The page, by default inspect.html in the data folder.")
    count: int = flag(12, ge=1, help="Utterances of the sample.")
    seed: int = flag(0, ge=0, help="Of the sample.")


def inspect(
    data: Path, ids: Sequence[str], out: Path | None, count: int, seed: int, reporter: Reporter
) -> dict[str, Any]:
    """Write a page that shows the utterances `ids`, or a sample where none is given.

    The sample: `count` utterances, drawn with `seed` so that splits and labels come out as evenly as they can, and the
    WORST ones by the share of frames without a face.

    Returns where the page is and which utterances are on it. What stage 2 has not made yet is left out, and said so.

    Raises:
        DataError: no manifest, an id that is neither in it nor among the rejects, or the page cannot be written.
    """
    table = read_manifest(data)
    page = out or data / DEFAULT_PAGE
    check_writable(page, "name another file with --out")
    table.index = pd.Index(table["utterance_id"], name=None)
    rejects: dict[str, list[Reject]] = defaultdict(list)
    for reject in read_rejects(data):
        rejects[reject.utterance_id or ""].append(reject)
    if ids:
        check_known(ids, [*table.index, *filter(None, rejects)], data, ", neither kept nor rejected")
        groups = [("Asked for", "", list(dict.fromkeys(ids)))]
    else:
        groups = _sample(table, count, seed)
    settings = preprocessing_of(data)
    emotions = emotions_of(table)
    shown = [name for _, _, names in groups for name in names]
    made = reporter.track(
        (
            make_sheet(data, name, table.loc[name] if name in table.index else None, emotions, rejects[name], settings)
            for name in shown
        ),
        len(shown),
        "inspect",
        "utterances",
    )
    sheets = dict(zip(shown, made, strict=True))
    about = read_dataset_facts(data)
    write_page(
        page,
        "report/inspect.html.j2",
        title=f"Inside the data set {dataset_name(data)}",
        notice=notice_of(about),
        protocol=about.get("split"),
        notes=about.get("notes", []),
        summary=_summary(table, settings),
        stats=stats(data),
        emotions=emotions,
        rejects=_reasons(rejects),
        groups=[(title, note, [sheets[name] for name in names]) for title, note, names in groups],
        version=version("emotion-pipeline"),
    )
    return {"page": str(page), "utterances": shown}


def format_inspection(result: dict[str, Any]) -> str:
    """The answer of `inspect` as a line for a person."""
    return f"{len(result['utterances'])} utterances in {result['page']}"


def _sample(table: pd.DataFrame, count: int, seed: int) -> list[tuple[str, str, list[str]]]:
    """(title, note, ids) of what is shown when nobody asked for anything."""
    drawn = _drawn(table, count, seed)
    note = f"{len(drawn)} of {len(table)}, drawn with seed {seed} over splits and labels."
    groups = [("Sample", note, drawn)]
    rest = table[~table["utterance_id"].isin(drawn) & (table["no_face_share"] > 0)]
    worst = rest.sort_values("no_face_share", ascending=False, kind="stable")["utterance_id"].head(WORST)
    if len(worst):
        groups.append(("Fewest faces", "The largest shares of sampled frames without a face.", worst.tolist()))
    return groups


def _drawn(table: pd.DataFrame, count: int, seed: int) -> list[str]:
    """`count` ids in the manifest's order; each draw is from the split that has the fewest so far,
    and there from the label that has.
    """
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    order = np.random.default_rng(seed).permutation(len(table)).tolist()
    labels, splits, ids = _main_labels(table), table["split"].tolist(), table["utterance_id"].tolist()
    for row in order:
        groups[splits[row], labels[row]].append(ids[row])
    taken: Counter[str] = Counter()
    chosen: set[str] = set()
    while groups and len(chosen) < count:
        split, label = min(groups, key=lambda key: (taken[f"split {key[0]}"], taken[f"label {key[1]}"]))
        chosen.add(groups[split, label].pop())
        taken.update([f"split {split}", f"label {label}"])
        if not groups[split, label]:
            del groups[split, label]
    return [name for name in table["utterance_id"] if name in chosen]


def _main_labels(table: pd.DataFrame) -> list[str]:
    """The strongest emotion of each row."""
    columns = [name for name in table.columns if name.startswith(LABEL_PREFIX)]
    if not columns:
        return [_NO_LABEL] * len(table)
    values = table[columns]
    return [
        name.removeprefix(LABEL_PREFIX) if strength > 0 else _NO_LABEL
        for name, strength in zip(values.idxmax(axis=1), values.max(axis=1), strict=True)
    ]


def _summary(table: pd.DataFrame, settings: dict[str, Any]) -> str:
    minutes = (table["end_s"] - table["start_s"]).sum() / 60
    shares = table["no_face_share"].dropna()
    text = f"{len(table)} utterances, {f'{minutes / 60:.1f} hours' if minutes >= 120 else f'{minutes:.1f} minutes'}."
    if len(shares):
        some, none = int((shares > 0).sum()), int((shares == 1).sum())
        text += f" In {some} of them a sampled frame shows no face, in {none} none of the frames does."
    if not settings:
        text += " Stage 2 has not finished here: crops and mel-spectrograms are shown where there are any."
    return text


def _reasons(rejects: dict[str, list[Reject]]) -> list[tuple[str, str, int, str]]:
    """(stage, reason, how many, an example) of everything that was left out."""
    grouped: dict[tuple[str, str], list[Reject]] = defaultdict(list)
    for reject in (reject for group in rejects.values() for reject in group):
        grouped[reject.stage, reject.reason].append(reject)
    return [
        (stage, reason, len(group), group[0].utterance_id or group[0].source)
        for (stage, reason), group in sorted(grouped.items())
    ]


COMMAND = Command(
    inspect,
    (InspectSettings,),
    example="pipeline inspect --data data/iemocap Ses01F_impro01_F000",
    read=fields_of(InspectSettings),
    for_people=format_inspection,
    allows_dashes=True,
)
