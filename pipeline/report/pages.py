"""Pages for people: a template of this package and its values become one HTML file that needs nothing beside it."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from data_tools.files import write_text


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
