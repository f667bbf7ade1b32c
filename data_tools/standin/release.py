"""`write_standin`: a whole stand-in release, made by processes in parallel, there complete or not at all."""

import json
import multiprocessing
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import cv2
from filelock import FileLock, Timeout

from data_tools.corpora.release import STANDIN_FILE
from data_tools.errors import DataError
from data_tools.files import write_json, write_text
from data_tools.processes import end_with_parent
from data_tools.standin import iemocap, mosei
from data_tools.standin.record import Made, Truth, write_truths

_VERSION = 1  # a part of the settings: raise it when the same settings give other bytes
_MOST_UTTERANCES = 100_000  # beyond it a dialogue of IEMOCAP would need turns of four digits
_CORPORA: dict[str, ModuleType] = {"iemocap": iemocap, "mosei": mosei}
_NOTE = """STAND-IN - this is not {real}.

Everything here was made by a program: two public-domain photographs warped into caricatures of expressions, a speech
synthesiser, and invented sentences, in the folders, names and file formats of the real release. It is there so that
the pipeline can be run and tested from end to end without a licence or a download. No person acted or was recorded,
nobody annotated anything, and no score on it means anything about people, about emotion recognition or about any
method's merit.

Every modality (text, audio, video) of every utterance shows another emotion than the label with probability {noise},
drawn on its own. STANDIN.csv says for each labelled utterance what each modality shows; STANDIN.json holds settings
and totals.
"""
_REAL_NAMES = {"iemocap": "the IEMOCAP release", "mosei": "the CMU-MOSEI release"}

Track = Callable[[Iterable[Any], int, str, str], Iterable[Any]]


def write_standin(
    dataset: str,
    out: Path,
    utterances: int = 240,
    seed: int = 0,
    noise: float = 0.25,
    workers: int = 2,
    track: Track | None = None,
) -> dict[str, Any]:
    """Write a stand-in release as a folder of `out` (`IEMOCAP_full_release` or `CMU_MOSEI`), and return its summary.

    For tests and demonstrations; no score on it means anything about people. dataset: iemocap or mosei.
    utterances: how many get a label that the task uses (IEMOCAP: one of the six classes; about 10 % more have other
    codes). noise: probability that a modality of an utterance shows another emotion. The bytes of every file depend on
    `dataset`, `utterances`, `seed` and `noise` alone. A complete release of the same settings is left as it is.
    track: wraps the finished jobs to show progress: `track(items, total, label, unit)`.
    Returns folder, dataset, settings, dialogues, utterances, labels (counts), video_s: plain values for JSON.

    Raises:
        DataError: a setting out of range, `out` cannot be written, or the folder there is something else.
    """
    _check(dataset, utterances, seed, noise, workers)
    corpus = _CORPORA[dataset]
    settings = {"dataset": dataset, "utterances": utterances, "seed": seed, "noise": noise, "version": _VERSION}
    folder = Path(out) / corpus.FOLDER
    _make_folder(Path(out))
    try:
        with FileLock(Path(out) / f".{corpus.FOLDER}.lock", timeout=0):
            there = _summary_of_existing(folder, settings)
            if there is not None:
                return {"folder": str(folder), **there}
            for left in Path(out).glob(f".{corpus.FOLDER}.*partial"):  # by runs that were killed
                shutil.rmtree(left, ignore_errors=True)
            # A name of its own: what is still ending of a killed run writes nothing into this one.
            partial = folder.with_name(f".{corpus.FOLDER}.{uuid4().hex[:12]}.partial")
            try:
                summary = _write(corpus, partial, settings, workers, track or _untracked)
                partial.replace(folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
            return {"folder": str(folder), **summary}
    except Timeout:
        raise DataError(
            f"another process is writing a stand-in to {out}; wait for it or choose another --out"
        ) from None
    except BrokenProcessPool:
        raise DataError(
            "a process that makes the stand-in ended without a word: out of memory, or called from a script that lacks "
            "`if __name__ == '__main__':`; --workers 1 needs neither"
        ) from None
    except OSError as error:
        raise DataError(
            f"cannot write {folder}: {error.strerror or error}; check permissions and free space"
        ) from error


def _check(dataset: str, utterances: int, seed: int, noise: float, workers: int) -> None:
    problems = []
    if dataset not in _CORPORA:
        problems.append(f"dataset is {dataset!r}, expected one of {', '.join(_CORPORA)}")
    if not 6 <= utterances <= _MOST_UTTERANCES:
        problems.append(
            f"utterances is {utterances}, expected at least 6 (one of each class), at most {_MOST_UTTERANCES}"
        )
    if seed < 0:
        problems.append(f"seed is {seed}, expected 0 or more")
    if not 0 <= noise < 1:
        problems.append(f"noise is {noise}, expected a probability in [0, 1)")
    if workers < 1:
        problems.append(f"workers is {workers}, expected at least 1")
    if problems:
        raise DataError("cannot make a stand-in: " + "; ".join(problems))


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder {out}: {error.strerror or error}; choose another --out") from error


def _summary_of_existing(folder: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The summary of a complete stand-in of the same settings; None where nothing is there."""
    if not folder.exists():
        return None
    try:
        summary = json.loads((folder / STANDIN_FILE).read_text(encoding="utf-8"))
        found = summary["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{folder} is there and is no stand-in; it is left alone: choose another --out") from None
    if found != settings:
        raise DataError(
            f"{folder} is a stand-in with settings {found}, wanted {settings}; delete it or choose another --out"
        )
    return summary


def _write(corpus: ModuleType, root: Path, settings: dict[str, Any], workers: int, track: Track) -> dict[str, Any]:
    jobs = corpus.plan(settings["utterances"], settings["seed"], settings["noise"])
    note = _NOTE.format(real=_REAL_NAMES[settings["dataset"]], noise=settings["noise"])
    for name in ("STANDIN.txt", "README.txt"):
        write_text(root / name, note)
    done = track(_made(corpus, jobs, root, settings["seed"], workers), len(jobs), "stand-in", "videos")
    # In the order of the plan, not of finishing, so that what follows is the same for any number of workers.
    made = [part for _, part in sorted(done, key=lambda item: item[0])]
    truths = [truth for part in made for truth in part.truths]
    corpus.finish(root, made, settings["seed"])
    write_truths(root, truths)
    summary = {
        "settings": settings,
        "dialogues": len(jobs),
        "utterances": corpus.counted(truths),
        "labels": _label_counts(truths),
        "video_s": round(sum(part.seconds for part in made), 3),
        "is": "a stand-in; no score on it means anything about people",
    }
    write_json(root / STANDIN_FILE, summary)
    return summary


def _made(corpus: ModuleType, jobs: list[Any], root: Path, seed: int, workers: int) -> Iterator[tuple[int, Made]]:
    """(place in `jobs`, result) of each job as it is finished."""
    if workers == 1 or len(jobs) == 1:
        for place, job in enumerate(jobs):
            yield place, corpus.make(job, root, seed)
        return
    # A fresh server process: the caller may have threads (a progress bar, torch), which must not be forked.
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context, initializer=_start_worker) as pool:
        places = {pool.submit(corpus.make, job, root, seed): place for place, job in enumerate(jobs)}
        try:
            for future in as_completed(places):
                yield places[future], future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _start_worker() -> None:
    end_with_parent()
    cv2.setNumThreads(1)


def _untracked(items: Iterable[Any], total: int, label: str, unit: str) -> Iterable[Any]:  # noqa: ARG001
    return items


def _label_counts(truths: list[Truth]) -> dict[str, int]:
    counts = Counter(emotion for truth in truths for emotion in truth.label or ("none",))
    return dict(sorted(counts.items()))
