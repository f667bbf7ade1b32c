"""Pages for people: a template of this package and its values become one HTML file that needs nothing beside it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from data_tools.files import write_json, write_text
from data_tools.names import for_terminal
from pipeline.progress import Reporter


def write_page(page: Path, template: str, **values: Any) -> None:
    """Fill `template`, e.g. report.html.j2, and write it to `page`, whole or not at all.

    Every value is escaped: ids, transcripts and paths come from other people's files. The templates extend
    page.html.j2, which holds what all pages look like, and tells the browser to load nothing but the pictures inside.

    Raises:
        DataError: the page cannot be written.
    """
    environment = Environment(
        loader=PackageLoader("pipeline", ""),
        autoescape=select_autoescape(["html", "j2"]),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    write_text(page, environment.get_template(template).render(**values))


@dataclass(frozen=True)
class Cell:
    """best: of its column."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Table:
    """rows: as long as `columns`, the name of the row first."""

    title: str
    note: str
    columns: list[str]
    rows: list[list[Cell]]


def score_column(scores: Sequence[Mapping[str, Any] | None], lower_is_better: bool) -> list[Cell]:
    """A score in each row, `{"mean", "spread", "values"}` over the seeds, the best marked; None where there is none."""
    # Equal in what is shown is equal.
    means = [None if score is None or score["mean"] is None else round(score["mean"], 3) for score in scores]
    known = [mean for mean in means if mean is not None]
    best = (min(known) if lower_is_better else max(known)) if known else None
    return [
        Cell("-") if score is None else Cell(number(**score), mean is not None and mean == best)
        for score, mean in zip(scores, means, strict=True)
    ]


def number(mean: float | None, spread: float | None = None, values: Sequence[float | None] = (), **_: Any) -> str:
    """A score as it is shown, with its spread where there are several values."""
    if mean is None:
        return "undefined"
    return f"{mean:.3f}" + (f" ± {spread:.3f}" if len(values) > 1 else "")


def labels_sentence(report: Mapping[str, Any]) -> str:
    """The label map of a report, and what it left out; empty for labels of the data set's own."""
    if "labels" not in report:
        return ""
    labels = report["labels"]
    lost = ", ".join(f"{count} with {name}" for name, count in labels["left_out"].items())
    left_out = f"; left out, without counterpart: {lost}" if lost else ""
    return f"Labels by the map {labels['map']}: {', '.join(labels['emotions'])}{left_out}. "


@dataclass(frozen=True)
class Sheet:
    """Tables, and what a reader must know of them.

    notice: what must stand beside every score. about: data set, protocol and what the scores are. remarks: what
    holds for single rows. command: what made it.
    """

    title: str
    notice: str | None
    about: str
    tables: Sequence[Table]
    remarks: Sequence[str]
    command: str
    versions: dict[str, str | None]


def markdown(sheet: Sheet) -> str:
    """The sheet as a page of Markdown."""
    lines = [f"# {plain_line(sheet.title)}", ""]
    if sheet.notice:
        lines += [f"**{plain_line(sheet.notice)}**", ""]
    lines += [plain_line(sheet.about), ""]
    for table in sheet.tables:
        lines += [f"## {plain_line(table.title)}", "", plain_line(table.note), ""]
        lines += [table_line(table.columns), table_line(["---"] * len(table.columns))]
        lines += [table_line(f"**{cell.text}**" if cell.best else cell.text for cell in row) for row in table.rows]
        lines.append("")
    lines += [f"- {plain_line(line)}" for line in sheet.remarks]
    return "\n".join([*lines, "", f"Written by {_code(sheet.command)}.", ""])


def table_line(cells: Iterable[str]) -> str:
    """A row of a table in Markdown."""
    return "| " + " | ".join(plain_line(cell).replace("|", "\\|") for cell in cells) + " |"


def plain_line(text: str) -> str:
    """`text` in one line, without HTML and links: names and messages in it come from other people's files."""
    one_line = " ".join(for_terminal(text).splitlines())
    return one_line.replace("<", "&lt;").replace("](", "]\\(")


def _code(text: str) -> str:
    """`text` as it is, between more back quotes than there are in it."""
    one_line = " ".join(for_terminal(text).splitlines())
    fence = "`" * (1 + max(map(len, re.findall("`+", one_line)), default=0))
    return f"{fence}{one_line}{fence}"


def write_sheet(page: Path, sheet: Sheet, template: str = "report/tables.html.j2", **values: Any) -> None:
    """Write the sheet as one HTML file. template: one that extends the default. values: what it has besides.

    Raises:
        DataError: it cannot be written.
    """
    write_page(
        page,
        template,
        title=sheet.title,
        notice=sheet.notice,
        about=sheet.about,
        tables=sheet.tables,
        remarks=sheet.remarks,
        command=sheet.command,
        versions=", ".join(f"{name} {version}" for name, version in sheet.versions.items()),
        **values,
    )


def write_result(
    out: Path,
    name: str,
    result: Mapping[str, Any],
    sheet: Sheet,
    reporter: Reporter,
    template: str = "report/tables.html.j2",
    **values: Any,
) -> None:
    """<name>.json, <name>.md and <name>.html; for the page see `write_sheet`.

    Raises:
        DataError: one cannot be written.
    """
    write_json(out / f"{name}.json", result)
    write_text(out / f"{name}.md", markdown(sheet))
    write_sheet(out / f"{name}.html", sheet, template, **values)
    reporter.say(f"the page is at {(out / f'{name}.html').resolve()}")
