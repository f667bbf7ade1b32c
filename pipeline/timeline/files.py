"""Files of a film's answer: a table and JSON for programs, subtitles of words and emotions for players."""

import csv
import html
import io
import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import count
from pathlib import Path
from typing import Any

from data_tools.errors import DataError
from data_tools.files import read_json, write_json, write_text
from data_tools.media.playable import write_playable
from pipeline.run import RunDir
from pipeline.timeline.answers import Prediction, predicted_scores
from pipeline.timeline.elan import readable, write_eaf
from pipeline.timeline.page import write_film_page

ENDINGS = (".segments.csv", ".srt", ".vtt", ".eaf", ".html", ".json")
_SOURCE, _MADE_FROM, _PAGE_FILM = "source", "made_from", "page_film"
# The film for the page is called <name>.page.mp4, so that it is taken for no film of a person's own.
_PAGE = ".page"
_ANSWER = tuple(Prediction("").for_json())


class OutFolder:
    """The folder of `predict --out`: `<name>` with each of `ENDINGS` for every film, of which the last one is written
    last, and the film for its page, `<name>.page.<ending>`.

    A film keeps its own name without the ending; where files of that name are there that are not its own, `-2`, `-3`
    and so on are added.

    run, settings: whatever else the answers depend on, ready for JSON.
    """

    def __init__(self, folder: Path, run: Any, settings: Any) -> None:
        self._folder = folder
        self._depends_on = [run, settings]
        self._names: dict[Path, str] = {}

    def finished(self, film: Path) -> dict[str, Any] | None:
        """The answer for `film` that lies in the folder; None where there is none for these settings and this run."""
        path = self._path(film, ".json")
        if not path.is_file() or not film.is_file():
            return None
        found = read_json(path)
        is_of_this = found.get(_MADE_FROM) == self._fingerprint(film) and all(name in found for name in _ANSWER)
        written = self._written(film, found.get(_PAGE_FILM))
        if not is_of_this or not all(Path(path).is_file() for path in written):
            return None
        return {name: found[name] for name in _ANSWER} | {"file": str(film), "written": written}

    def write(self, film: Path, about: Mapping[str, Any], prediction: Prediction) -> dict[str, Any]:
        """Write the files of an answer, each whole or not at all, and return it with their paths as "written".

        about: facts about the run. An answer that is an error has no files. A film that cannot be made into one that
        browsers play has a page without it, which says why.

        Raises:
            DataError: they cannot be written.
        """
        answer = prediction.for_json()
        if answer["error"]:
            return {**answer, "written": []}
        segments, task = answer["segments"], about["task"]
        source = {_SOURCE: readable(film.resolve())}
        # The name belongs to the film from now on, and the files are not finished until this one says what they are of.
        write_json(self._path(film, ".json"), source)
        write_text(self._path(film, ".segments.csv"), segment_table(segments))
        write_text(self._path(film, ".srt"), subtitles(segments, task, ".srt"))
        write_text(self._path(film, ".vtt"), subtitles(segments, task, ".vtt"))
        write_eaf(self._path(film, ".eaf"), film, segments, task)
        played = self._write_page(film, about, prediction)
        finished = {_MADE_FROM: self._fingerprint(film), **answer, "file": readable(film)}
        write_json(self._path(film, ".json"), {**about, **source, _PAGE_FILM: played, **finished})
        return {**answer, "written": self._written(film, played)}

    def _write_page(self, film: Path, about: Mapping[str, Any], prediction: Prediction) -> str | None:
        """Write the page and the film for it; return the ending of that one's name, None where there is none."""
        playable, problem = None, ""
        try:
            playable = write_playable(film, self._folder, f"{self._name(film)}{_PAGE}")
        except DataError as error:
            problem = str(error)
        write_film_page(self._path(film, ".html"), film.name, playable, problem, about, prediction)
        is_new = playable is not None and playable.stem == f"{self._name(film)}{_PAGE}"
        return playable.suffix if playable is not None and is_new else None

    def _written(self, film: Path, played: str | None) -> list[str]:
        endings = [*ENDINGS, *([] if played is None else [f"{_PAGE}{played}"])]
        return [str(self._path(film, ending)) for ending in endings]

    def _path(self, film: Path, ending: str) -> Path:
        return self._folder / f"{self._name(film)}{ending}"

    def _name(self, film: Path) -> str:
        source = film.resolve()
        if source not in self._names:
            taken = {name.casefold() for name in self._names.values()}
            names = (film.stem if number == 1 else f"{film.stem}-{number}" for number in count(1))
            self._names[source] = next(
                name for name in names if name.casefold() not in taken and self._is_free(name, source)
            )
        return self._names[source]

    def _is_free(self, name: str, source: Path) -> bool:
        """Return True if the files of this name are of this film, or there are none: nothing else is written over."""
        try:
            return read_json(self._folder / f"{name}.json").get(_SOURCE) == readable(source)
        except DataError:
            return not any((self._folder / f"{name}{ending}").exists() for ending in ENDINGS)

    def _fingerprint(self, film: Path) -> str:
        about = film.stat()
        depends_on = [*self._depends_on, about.st_size, about.st_mtime_ns]
        return blake2b(json.dumps(depends_on, sort_keys=True).encode(), digest_size=16).hexdigest()


def run_state(run: Path) -> list[Any]:
    """Facts that change when a run is trained again: its place, and size and time of its weights and thresholds."""
    state: list[Any] = [str(run.resolve())]
    for path in (RunDir(run).model, RunDir(run).thresholds):
        about = path.stat()
        state += [about.st_size, about.st_mtime_ns]
    return state


def segment_table(segments: Sequence[Mapping[str, Any]]) -> str:
    """CSV, a row a segment: start_s, end_s, text, predicted, score_<name> of each, no_face_share, absent.

    Several predicted emotions have blanks between them, several sentences of `absent` a semicolon.
    """
    names = list(segments[0]["scores"]) if segments else []
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    scores = [f"score_{name}" for name in names]
    rows.writerow(["start_s", "end_s", "text", "predicted", *scores, "no_face_share", "absent"])
    for part in segments:
        share = "" if part["no_face_share"] is None else part["no_face_share"]
        row = [f"{part['start_s']:.3f}", f"{part['end_s']:.3f}", part["text"], " ".join(part["predicted"])]
        rows.writerow([*row, *(part["scores"][name] for name in names), share, "; ".join(part["absent"])])
    return table.getvalue()


def subtitles(segments: Sequence[Mapping[str, Any]], task: str, ending: str) -> str:
    """SubRip (`.srt`) or WebVTT (`.vtt`): of each segment its words and, in brackets, the predicted emotions."""
    is_vtt = ending == ".vtt"
    parts = ["WEBVTT\n"] if is_vtt else []
    for number, part in enumerate(segments, start=1):
        times = " --> ".join(_clock(part[name], "." if is_vtt else ",") for name in ("start_s", "end_s"))
        words = " ".join(part["text"].split())
        # An arrow would be read as times.
        words = html.escape(words, quote=False) if is_vtt else words.replace("-->", "->")
        emotions = f"[{predicted_scores(part, task) or 'none'}]"
        parts.append("\n".join([*([] if is_vtt else [str(number)]), times, *filter(None, [words]), emotions]) + "\n")
    return "\n".join(parts)


def _clock(seconds: float, point: str) -> str:
    """`00:01:02.345`."""
    whole, thousandths = divmod(round(1000 * seconds), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{point}{thousandths:03}"
