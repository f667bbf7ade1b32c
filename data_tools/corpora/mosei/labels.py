"""Choice of CMU-MOSEI's labels: the annotators' tables of the zip, or the label file of the CMU SDK."""

from collections.abc import Sequence

from data_tools.corpora.mosei.annotators import read_annotators
from data_tools.corpora.mosei.clips import LabelFiles
from data_tools.corpora.mosei.label_file import FILE, read_csd_labels
from data_tools.corpora.release import Release
from data_tools.errors import DataError

KINDS = ("auto", "csv", "csd")


def read_labels(release: Release, emotions: Sequence[str], kind: str, way_out: str = "") -> LabelFiles:
    """The labels in the release's root, its folder Labels/, or beside it.

    kind: csv, Labels/*.csv; csd, CMU_MOSEI_Labels.csd; auto, the first of the two that is there. way_out: ends the
    message where there is neither.

    Raises:
        DataError: another kind, no labels, or a .csd file that cannot be used.
    """
    if kind not in KINDS:
        raise DataError(f"labels is {kind!r}; expected one of {', '.join(KINDS)}, e.g. --set 'reader={{labels: csd}}'")
    beside = release.root.parent
    folders = [release.root / "Labels", release.root, beside / "Labels", beside]
    if kind in ("auto", "csv"):
        for folder in folders[::2]:
            annotators = read_annotators(release, folder, emotions)
            if annotators:
                release.notes.append(f"labels are those of the annotators' tables in {folder.name}/")
                return annotators
    if kind in ("auto", "csd"):
        csd = read_csd_labels(release, folders, emotions)
        if csd:
            release.notes.append(f"labels are those of {csd.name}")
            return csd
    tables = f"*.csv in {folders[0]} with the columns Input.VIDEO_ID, Input.CLIP and Answer.*"
    looked_for = {"auto": f"{tables}, and {FILE} in {release.root}", "csv": tables, "csd": f"{FILE} in {release.root}"}
    copy = {"auto": f"{FILE} or the folder Labels of CMU_MOSEI.zip", "csv": "that folder", "csd": FILE}
    where = f"looked for {looked_for[kind]}, its folder Labels and beside it"
    raise DataError(f"no labels: {where}; copy {copy[kind]} there{way_out}")
