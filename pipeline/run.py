"""Names and places in runs/<name>/, and what is read back from there."""

import hashlib
import importlib.metadata
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NotRequired

import torch
import yaml
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from data_tools.errors import DataError
from data_tools.files import read_json, refuse_links, sweep, write_json, write_text
from pipeline.hub import local_folder
from pipeline.run_data import DataFacts, first_problems, joined_name
from pipeline.settings import ConfigError, read_yaml
from pipeline.shared_folder import KnownIds, check_shared, is_shared
from pipeline.training.settings import TrainSettings

# One data folder, or several that a run was trained on together.
Folders = Path | Sequence[Path]
# Scores of a finished run, as `RunDir.metrics` and its like name them.
_OF_A_FINISHED_RUN = re.compile(
    r"thresholds\.json|(metrics|predictions|robustness)(-.+-[0-9a-f]{6})?\.(json|parquet|png)", re.DOTALL
)
_PACKAGES = ("emotion-pipeline", "torch", "lightning", "numpy", "safetensors", "transformers", "scikit-learn")


class _SavedValue(TypedDict):
    value: float | None
    baseline: float | None
    positives: int


class _SavedMetric(TypedDict):
    value: float | None
    baseline: float | None
    per_emotion: NotRequired[dict[str, _SavedValue]]


class _SavedReport(TypedDict):
    """The part of metrics.json about one split, as far as it is read again; the rest is for people."""

    split_protocol: str
    dataset: str
    folder: str
    task: str
    utterances: int
    notice: str | None
    metrics: dict[str, dict[str, _SavedMetric]]


@dataclass(frozen=True)
class RunDir:
    """The files of one run. The weights, model.safetensors and model.json, are written by `models.save`."""

    path: Path

    @property
    def is_shared(self) -> bool:
        """True for a model that somebody passed on: its data lie elsewhere."""
        return is_shared(self.path)

    @property
    def settings(self) -> Path:
        """Settings as used; written first, so it says that this folder is a run."""
        return self.path / "settings.yaml"

    @property
    def data(self) -> Path:
        """`DataFacts`."""
        return self.path / "data.json"

    @property
    def splits(self) -> Path:
        """Split -> ids of the utterances that the run learned from (train) and was chosen by (valid), or digests."""
        return self.path / "splits.json"

    @property
    def environment(self) -> Path:
        """Versions and device, one object for each time the run was started or resumed."""
        return self.path / "environment.json"

    @property
    def model(self) -> Path:
        """The best weights."""
        return self.path / "model.safetensors"

    @property
    def state(self) -> Path:
        """Everything to go on after the last finished epoch."""
        return self.path / "last" / "state.safetensors"

    @property
    def log(self) -> Path:
        """One row an epoch."""
        return self.path / "log.csv"

    @property
    def events(self) -> Path:
        """Folder of TensorBoard's event files."""
        return self.path / "events"

    @property
    def thresholds(self) -> Path:
        """The threshold of each emotion; written when training is over."""
        return self.path / "thresholds.json"

    def metrics(self, data: Folders, label_map: str | None = None) -> Path:
        """metrics.json, or metrics-<data set>-<6 hex digits>.json for another data folder than the run's own.

        The digits follow from the folder's path: two folders of one data set, say with other splits, stay apart. A run
        on several folders has metrics.json of all together, and further ones of each.
        label_map: the name of one that the run was not trained with; it comes before the digits.
        """
        return self.path / f"metrics{self._suffix(data, label_map)}.json"

    def predictions(self, data: Folders, label_map: str | None = None) -> Path:
        """predictions.parquet, named like `metrics`."""
        return self.path / f"predictions{self._suffix(data, label_map)}.parquet"

    def robustness(self, data: Path, kind: str = "json") -> Path:
        """robustness.json, or the picture of kind `png`, named like `metrics`."""
        return self.path / f"robustness{self._suffix(data)}.{kind}"

    def _suffix(self, data: Folders, label_map: str | None = None) -> str:
        folders = as_folders(data)
        places = [folder.resolve() for folder in folders]
        if not self.is_shared and label_map is None and places == [own.resolve() for own in self.own_folders()]:
            return ""
        digits = hashlib.sha256("\n".join(place.as_posix() for place in places).encode()).hexdigest()[:6]
        return "-".join(["", joined_name(folders), *([label_map] if label_map else []), digits])

    @classmethod
    def existing(cls, path: Path) -> "RunDir":
        """The run folder at `path`, a shared model too; `hub:USER/NAME[@revision]` is fetched.

        Raises:
            ConfigError: it isn't one. DataError: a shared model that cannot be fetched, or breaks a rule of these.
        """
        run = cls(local_folder(path))
        if not run.settings.is_file():
            raise ConfigError(f"no run at {path}: {run.settings} is not there; make one with `pipeline train`")
        if run.is_shared:
            check_shared(run.path)
        return run

    def is_own(self, data: Sequence[Path]) -> bool:
        """Return True if the run was trained on these data folders; those of a shared run are elsewhere."""
        mine = () if self.is_shared else self.own_folders()
        return {folder.resolve() for folder in mine} == {folder.resolve() for folder in data}

    def own_data(self) -> Path:
        """The one data folder that the run was trained on.

        Raises:
            ConfigError: as `own_folders`; there are several. DataError: data.json is damaged.
        """
        folders = self.own_folders()
        if len(folders) > 1:
            listed = ", ".join(map(str, folders))
            raise ConfigError(f"{self.path} was trained on several data folders ({listed}): name one with --data")
        return folders[0]

    def own_folders(self) -> list[Path]:
        """The data folders that the run was trained on, mostly one.

        Raises:
            ConfigError: it is a shared model, which comes without. DataError: data.json is damaged.
        """
        if self.is_shared:
            raise ConfigError(
                f"{self.path} is a shared model and comes without data: name a data folder with --data that was "
                "preprocessed as its data.json says"
            )
        facts = self.facts()
        return [Path(folder) for folder in (facts.folder, *facts.more_folders)]

    def facts(self) -> DataFacts:
        """Facts about the run's training data. Raises DataError where data.json is damaged."""
        return DataFacts.read(self.data)

    def learned_from(self) -> dict[str, KnownIds]:
        """The ids of the utterances of `train` and of `valid` that the run was made with.

        Raises:
            DataError: they cannot be read.
        """
        values = read_json(self.splits)
        if set(values) != {"train", "valid"}:
            raise DataError(
                f"{self.splits} has {sorted(values)!s:.100}, expected train and valid; restore it or train again"
            )
        for split, ids in values.items():
            if not isinstance(ids, list) or not all(isinstance(name, str) for name in ids):
                raise DataError(f"{self.splits} is damaged: {split} is no list of ids; restore it or train again")
        return {split: KnownIds(ids, self.is_shared) for split, ids in values.items()}

    def read_preprocessing(self) -> dict[str, Any]:
        """The settings of stage 2 that the run's data was made with: `{"faces": {...}, "mel": {...}}`."""
        preprocessing = self.facts().preprocessing
        if not preprocessing:
            raise DataError(f"{self.data} doesn't say how its data was preprocessed; train again on a data folder")
        return preprocessing

    def write_thresholds(
        self,
        thresholds: Mapping[str, float],
        chosen_on: str,
        definition: str,
        by_present: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        """Write the threshold of each emotion, with how and on which split it was chosen.

        by_present: those for utterances that have some of the modalities alone, by their letters.
        """
        values = {"thresholds": dict(thresholds), "chosen_on": chosen_on, "definition": definition}
        write_json(self.thresholds, values | ({"by_present": dict(by_present)} if by_present else {}))

    def read_thresholds(self, present: str | None = None) -> dict[str, float]:
        """The threshold of each emotion, in label order; empty for a task without thresholds.

        present: letters of the modalities that an utterance has; None for all. Where the run has no thresholds for
        them, as one that never left any out, they are those for all.

        Raises:
            ConfigError: the run isn't finished.
            DataError: thresholds.json is damaged.
        """
        if not self.thresholds.is_file():
            raise ConfigError(f"the run {self.path} is not finished: go on with `pipeline train --resume` on it")
        written, task = read_json(self.thresholds), self.read_settings()[0].task
        found, by_present = written.get("thresholds"), written.get("by_present", {})
        if isinstance(by_present, dict) and present in by_present:
            found = by_present[present]
        emotions = self.facts().emotions if task in ("auto", "multi-label") else []
        if not isinstance(found, dict) or not all(isinstance(found.get(name), int | float) for name in emotions):
            raise DataError(
                f"{self.thresholds} is damaged: no number for one of {', '.join(emotions)}; "
                "`pipeline train --resume` on the run writes it again"
            )
        return {name: float(found[name]) for name in emotions}

    def read_settings(self) -> tuple[TrainSettings, dict[str, Any]]:
        """(training settings, model settings) as used, ready for `train(..., resume=True)`.

        Raises:
            ConfigError: settings.yaml is damaged.
        """
        values = read_yaml(self.settings)
        if not all(isinstance(values.get(part), dict) for part in ("train", "model")):
            raise ConfigError(f"{self.settings} is damaged: it needs `train` and `model`; restore it or train again")
        # A run from before there was `batching` goes on as it began.
        train = {"batching": "random"} | values["train"]
        return TrainSettings.checked(train, str(self.settings)), values["model"]

    def write_start(
        self,
        settings: TrainSettings,
        model_settings: Mapping[str, Any],
        facts: DataFacts,
        train_ids: Sequence[str],
        valid_ids: Sequence[str],
    ) -> None:
        """Write what is known before the first epoch; settings.yaml last."""
        write_json(self.data, asdict(facts))
        write_json(self.splits, {"train": list(train_ids), "valid": list(valid_ids)})
        values = {"train": settings.model_dump(mode="json"), "model": dict(model_settings)}
        write_text(self.settings, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))

    def note_environment(self, device: torch.device, from_epoch: int) -> None:
        """Add the versions, the device and the threads of this start to environment.json."""
        starts = self.read_starts() if self.environment.is_file() else []
        cuda = device.type == "cuda"
        now = {
            "from_epoch": from_epoch,
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "python": platform.python_version(),
            "platform": platform.platform(),
            "device": torch.cuda.get_device_name(device) if cuda else platform.processor() or platform.machine(),
            "device_type": device.type,
            "cuda": torch.version.cuda if cuda else None,
            "threads": torch.get_num_threads(),
            "versions": {name: _version(name) for name in _PACKAGES},
        }
        write_json(self.environment, {"starts": [*starts, now]})

    def read_starts(self) -> list[dict[str, Any]]:
        """Return the entry in environment.json of each start of the run.

        Raises:
            DataError: it cannot be read.
        """
        starts = read_json(self.environment).get("starts")
        if not isinstance(starts, list) or not all(isinstance(start, dict) for start in starts):
            raise DataError(f"{self.environment} is damaged: it has no list of starts; delete it")
        return starts

    def read_scores(self, data: Folders, label_map: str | None = None) -> dict[str, dict[str, Any]]:
        """Return the entry of each evaluated split in metrics.json, or its like for other data or labels; maybe none.

        Raises:
            DataError: it cannot be read.
        """
        return self._read_scores(self.metrics(data, label_map))

    def read_own_scores(self) -> dict[str, dict[str, Any]]:
        """As `read_scores`, on the data that the run was trained on."""
        return self._read_scores(self.path / "metrics.json")

    def _read_scores(self, path: Path) -> dict[str, dict[str, Any]]:
        splits: Any = read_json(path).get("splits") if path.is_file() else {}
        try:
            TypeAdapter(dict[str, _SavedReport]).validate_python(splits, strict=True)
        except ValidationError as error:
            raise DataError(
                f"{path} is damaged ({first_problems(error)}); delete it and evaluate each split again"
            ) from None
        return splits

    def reopen(self) -> None:
        """Delete what only a finished run has: more training makes it untrue."""
        for stale in self.path.iterdir():
            if _OF_A_FINISHED_RUN.fullmatch(stale.name) and not stale.is_dir():
                stale.unlink()

    def sweep(self) -> None:
        """Delete the temporary files that a killed process left behind.

        Raises:
            DataError: one of the folders in the run is a link to another place.
        """
        for folder in (self.path, self.state.parent, self.events, self.path / "tokenizer", self.path / "explain"):
            refuse_links(self.path, folder)
            if folder.is_dir():
                sweep(folder)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def as_folders(data: Folders) -> list[Path]:
    """One data folder, or several, as a list."""
    return [data] if isinstance(data, Path) else list(data)
