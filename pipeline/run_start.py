"""Start of a run: its folder, new or one to go on in, and what a resumed run may change."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.run import Folders, RunDir, as_folders
from pipeline.run_data import joined_name
from pipeline.settings import ConfigError
from pipeline.training.settings import TrainSettings

# What a resumed run may change: none of them alters an epoch that is done.
CHANGEABLE = (
    "data",
    "more_data",
    "out",
    "epochs",
    "patience",
    "device",
    "devices",
    "nodes",
    "compile",
    "keep_on_device",
    "loader_workers",
)


def default_path(model: str, data: Folders, now: datetime) -> Path:
    """runs/<model>-<dataset>-<time>."""
    return Path("runs") / f"{model}-{joined_name(as_folders(data))}-{now:%Y%m%d-%H%M%S}"


def _is_used(path: Path) -> bool:
    """Return True if the folder holds more than a start leaves that was killed before it wrote settings.yaml."""
    names = {found.name for found in path.iterdir()} if path.is_dir() else set()
    started = {RunDir(path).data.name, RunDir(path).splits.name}
    return any(not name.startswith(".") and name not in started for name in names)


def new_run(path: Path) -> RunDir:
    """The run folder `path` for a run that starts from nothing.

    Raises:
        ConfigError: there is something in the folder already.
    """
    if path.is_file():
        raise ConfigError(f"the run folder {path} is a file; choose another --out")
    if _is_used(path):
        raise ConfigError(f"the run folder {path} is there already; add --resume to go on with it, or change --out")
    return RunDir(path)


def resumed_run(path: Path | None, settings: TrainSettings, model_settings: Mapping[str, Any]) -> RunDir:
    """The run folder `path` to go on in; one that was killed before settings.yaml starts from nothing.

    Raises:
        ConfigError: no folder given, or it isn't a run, or the settings differ from those it was started with in
            more than what may change (`CHANGEABLE`).
    """
    if path is None:
        raise ConfigError("--resume needs the run folder: add --out runs/NAME")
    run = RunDir(path)
    if not run.settings.is_file():
        if not path.is_dir() or _is_used(path):
            raise ConfigError(f"nothing to resume: {run.settings} is not there; leave --resume out to start a run")
        return run
    if run.is_shared:
        raise ConfigError(f"{path} is a shared model, which keeps no state to go on from; start anew in another --out")
    before, model_before = run.read_settings()
    pairs = [("train", before.model_dump(mode="json"), settings.model_dump(mode="json"))]
    pairs.append(("model", model_before, dict(model_settings)))
    changed = [
        f"  {kind}.{key}: was {old.get(key)!r}, now {new.get(key)!r}"
        for kind, old, new in pairs
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not (kind == "train" and key in CHANGEABLE)
    ]
    if changed:
        raise ConfigError(
            "\n".join([f"{path} was started with other settings; give the same, or start anew:", *changed])
        )
    return run
