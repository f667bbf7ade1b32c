"""`pipeline demo`: stages 1 to 4 on a stand-in corpus, FE2E and MESM side by side, and one page that shows it."""

import itertools
import time
from pathlib import Path
from typing import Any

from data_tools.standin.release import write_standin
from pipeline.command import Command, fields_of
from pipeline.preprocess import PreprocessSettings, preprocess
from pipeline.progress import Reporter
from pipeline.reorganize import ReorganizeSettings, reorganize
from pipeline.report.report import Run, write_report
from pipeline.run import RunDir
from pipeline.settings import (
    WORKERS_HELP,
    LocalPath,
    ModelSpec,
    Settings,
    Workers,
    configs_dir,
    flag,
    load_config,
    read_yaml,
)
from pipeline.train import train
from pipeline.training.settings import TrainSettings

RELEASE = "IEMOCAP_full_release"


class DemoSettings(Settings):
    """Settings of `pipeline demo`."""

    out: LocalPath = flag(Path("demo"), help="The folder for the release, the data, the runs and report.html.")
    workers: Workers = flag(None, help=WORKERS_HELP)


def demo(out: Path, reporter: Reporter, workers: int | None = None) -> dict[str, Any]:
    """Run configs/demo.yaml in `out`: raw/, data/, runs/fe2e, runs/mesm and report.html.

    Started again it goes on: a release, clips, stores and runs that are complete are kept.
    Returns the page's path, the seconds of each part and both models' summaries.

    Raises:
        ConfigError: configs/demo.yaml changed since the runs in `out` were made. DataError: as the stages.
    """
    config = read_yaml(configs_dir() / "demo.yaml")
    started = {"standin": time.monotonic()}
    root, data = out / "raw" / RELEASE, out / "data"
    share = {} if workers is None else {"workers": workers}
    write_standin("iemocap", out / "raw", track=reporter.track, **config["standin"], **share)
    started["reorganize"] = time.monotonic()
    values = load_config("datasets", "iemocap") | {"root": root, "out": data, "split": config["split"]} | share
    reorganize(ReorganizeSettings.checked(values, "configs/demo.yaml"), reporter)
    started["preprocess"] = time.monotonic()
    preprocess(PreprocessSettings.checked({"data": data} | share, "configs/demo.yaml"), reporter)
    runs = []
    for name, own in config["models"].items():
        started[f"train {name}"] = time.monotonic()
        runs.append(_train(name, config["model"] | own, config["train"], data, out / "runs" / name, reporter))
    started["report"] = time.monotonic()
    page = write_report(out / "report.html", data, runs, command=f"pipeline demo --out {out}")
    started["end"] = time.monotonic()
    seconds = _differences(started)
    for part, taken in seconds.items():
        reporter.say(f"{part}: {taken:.0f} s")
    reporter.say(f"the page is at {page.resolve()}")
    return {"report": str(page), "seconds": seconds, "runs": {run.name: run.summary for run in runs}}


def _train(
    name: str, model: dict[str, Any], values: dict[str, Any], data: Path, folder: Path, reporter: Reporter
) -> Run:
    """The run of one model: made, gone on with, or found finished."""
    settings = TrainSettings.checked(values | {"data": data, "out": folder}, "configs/demo.yaml")
    spec = ModelSpec.from_dict(load_config("models", name)["model"] | model)
    summary = train(settings, spec, reporter, resume=RunDir(folder).settings.is_file())
    return Run(name, folder, summary)


def _differences(started: dict[str, float]) -> dict[str, float]:
    names = list(started)
    return {name: started[after] - started[name] for name, after in itertools.pairwise(names)}


COMMAND = Command(demo, (DemoSettings,), example="pipeline demo --out demo", read=fields_of(DemoSettings))
