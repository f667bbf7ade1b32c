"""`predict` on a short and on a long film, without and with recognised words: speed beside real time, and memory."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cases import device_name
from benchmarks.peak_memory import with_peak
from benchmarks.rows import measured_on, write_result
from data_tools.errors import DataError
from data_tools.media.plain import loop_video
from data_tools.media.playable import write_playable
from data_tools.speech.recognition import PACKAGED
from data_tools.standin.release import write_standin
from pipeline.predict import predict
from pipeline.progress import Reporter
from pipeline.run import RunDir

SHORT_S = 60.0
MOST_MEMORY = 1.1


def films(run: Path, minutes: float, out: Path, reporter: Reporter) -> dict[str, Any]:
    """Score a dialogue of the stand-in IEMOCAP, two people on one screen, looped to a minute and to `minutes`.

    Each in a process of its own; writes films.json and films.md to `out`.

    Raises:
        ConfigError: there is no such run.
        DataError: a film has an error, or nothing can be written.
    """
    RunDir.existing(run)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_standin("iemocap", folder, utterances=24)
        # Not the "._" files that a copy from a Mac leaves. As an mp4, which most films are and the page can show.
        dialogue = write_playable(min(folder.rglob("[!.]*.avi")), folder, "dialogue")
        lengths_s = (SHORT_S, 60 * minutes)
        for length_s in lengths_s:
            loop_video(dialogue, folder / f"{length_s:.0f}.mp4", length_s)
        for asr in ("none", PACKAGED):
            found = [_measured(run, folder / f"{length_s:.0f}.mp4", asr, reporter) for length_s in lengths_s]
            (_, short_peak), (seconds, long_peak) = found
            rows.append(
                {
                    "work": f"predict --asr {asr}",
                    "film_s": lengths_s[1],
                    "real_time": round(lengths_s[1] / seconds, 2),
                    "peak_bytes": long_peak,
                    "peak_bytes_of_a_minute": short_peak,
                    "ratio": round(long_peak / short_peak, 3),
                    "target": MOST_MEMORY,
                }
            )
    about = measured_on(device_name("cpu"))
    rows = [row | about for row in rows]
    files = write_result(out, "films", rows, as_markdown(rows))
    reporter.say(f"written: {', '.join(map(str, files))}")
    return {"rows": rows, "files": [str(path) for path in files]}


def _measured(run: Path, film: Path, asr: str, reporter: Reporter) -> tuple[float, int]:
    seconds, peak = with_peak(_seconds_of, run, film, asr)
    reporter.say(f"predict --asr {asr}, {film.stem} s: {float(film.stem) / seconds:.1f} x real time, {peak >> 20} MiB")
    return seconds, peak


def _seconds_of(run: Path, film: Path, asr: str) -> float:
    """Seconds that the whole command takes, its page and files written."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        (answer,) = predict(run, [film], None, "cpu", Reporter(quiet=True), "speech", out=Path(out), asr=asr)["files"]
    if answer["error"]:
        raise DataError(answer["error"])
    return time.perf_counter() - started


def as_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Page of films.json."""
    first = rows[0]
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    faster = rows[0]["real_time"] / rows[1]["real_time"]
    lines = [
        "# Films",
        "",
        "Written by `python -m benchmarks films`; rows in films.json.",
        "",
        f"{first['date']}, {first['device']}, {versions}. A dialogue of the stand-in IEMOCAP (720x480, two faces, one "
        f"of which speaks), looped to {SHORT_S / 60:g} and {first['film_s'] / 60:g} minutes; the whole command, which "
        "writes its page and files, in a process of its own.",
        "",
        "| command | times real time | peak memory | of it in a minute's film | ratio | at most |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| `{row['work']}` | {row['real_time']:.1f} | {row['peak_bytes'] >> 20} MiB "
        f"| {row['peak_bytes_of_a_minute'] >> 20} MiB | {row['ratio']:.2f} | {row['target']:g} |"
        for row in rows
    ]
    lines += ["", f"Without words it is {faster:.2f} times as fast."]
    return "\n".join(lines) + "\n"
