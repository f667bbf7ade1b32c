"""Typed, frozen settings: YAML files, then flags, then one checked object. An unknown key is an error."""

import importlib.util
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import unquote

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from pipeline.published import Published


class ConfigError(ValueError):
    """Settings that cannot work; the message lists every problem at once."""


class Settings(BaseModel):
    """Base of every stage's settings: read-only once built, and an unknown key is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def checked(cls, values: Mapping[str, Any], origin: str) -> Self:
        """Settings from plain values; `origin` says in errors where they came from.

        Raises:
            ConfigError: names every unknown key, wrong type and value out of range, with what was given.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise ConfigError("\n".join([f"settings from {origin}:", *map(_problem, error.errors())])) from None


def _problem(error: Any) -> str:
    name = ".".join(str(part) for part in error["loc"]) or "settings"
    if error["type"] == "extra_forbidden":
        return f"  {name}: unknown setting (value {error['input']!r})"
    return f"  {name} is {error['input']!r}: {error['msg']}"


def available_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def local_path(path: Any) -> Any:
    """`path` as it is, or of a `file:` URL (RFC 8089) the path: media and stores are read through local paths only.

    path: str or Path; anything else is left to the check of types.

    Raises:
        ConfigError: a URL of another kind, or of another machine.
    """
    # A Path of a URL has lost one of its slashes: s3:/bucket.
    url = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):(/.*)", str(path), re.DOTALL) if isinstance(path, str | Path) else None
    if url is None:
        return path
    scheme, rest = url.groups()
    host, slash, within = rest[2:].partition("/") if rest.startswith("//") else ("", "/", rest[1:])
    if scheme.lower() != "file" or host not in ("", "localhost"):
        raise ConfigError(
            f"{path} is a URL; only local and mounted folders are read and written: mount it (s3fs, gcsfuse, "
            "rclone mount, NFS) and give the folder of the mount"
        )
    return Path(unquote(slash + within))


def _check_executor(executor: str) -> str:
    if executor != LOCAL and importlib.util.find_spec("ray") is None:
        raise ConfigError("Ray is not installed; it is the extra `ray`: pip install 'emotion-pipeline[ray]'")
    return executor


LOCAL = "local"
ConfigKind = Literal["datasets", "models", "features"]
LocalPath = Annotated[Path, BeforeValidator(local_path)]
Workers = Annotated[int | None, Field(ge=1, description="tasks at once; None: one for each core (of the cluster)")]
Executor = Annotated[
    str,
    Field(
        pattern=r"^(local|ray|ray:[^\s/]+:\d+)$",
        description="local, ray (the running cluster, else one of this machine) or ray:HOST:PORT; the machines of a "
        "cluster must mount the release and the data folder under the same paths",
    ),
    AfterValidator(_check_executor),
]


class ReorganizeSettings(Settings):
    """Stage 1. One file in configs/datasets/ holds these for one corpus."""

    dataset: str
    root: LocalPath = Field(description="the raw release; found a few levels up or down from here")
    out: LocalPath
    emotions: tuple[str, ...] = Field(description="label order; none where only sentiment is wanted")
    task: Literal["multi-label", "single-label", "sentiment"] | None = Field(
        None, description="what training takes for task `auto`; None: multi-label where there are emotions"
    )
    reader: dict[str, Any] = Field({}, description="options of this corpus' reader alone")
    split: str = Field(
        "random",
        pattern=r"^(random|random:utterance|release|session:\w+|speaker:.+|lists:.+)$",
        description="random, random:utterance, release, session:K, speaker:ID or lists:FOLDER",
    )
    seed: int = Field(0, ge=0)
    workers: Workers = None
    executor: Executor = LOCAL
    max_reject_share: float = Field(0.2, ge=0, le=1, description="a larger share of broken utterances is a failure")
    min_duration_s: float = Field(0.1, gt=0)
    max_duration_s: float = Field(600.0, gt=0)
    crf: int = Field(18, ge=0, le=51, description="x264 quality of the clips; 0 is lossless")
    published: Published | None = Field(None, description="facts of the corpus; None: those of its own config file")


class FaceSettings(Settings):
    """Which faces are cut out; part of the store's fingerprint."""

    sample_every_ms: int = Field(500, gt=0)
    margin_px: int = Field(2, ge=0, le=24, description="added to the detected box's side, of the crop's 48 pixels")
    min_face_px: int = Field(40, ge=12, description="faces in IEMOCAP are 60-100 px; 20 finds more and costs double")
    batch_frames: int = Field(16, ge=1, description="frames in one detector pass")


class MelSettings(Settings):
    """How sound becomes chunks; part of the store's fingerprint. See data_tools/mel.py for the constants."""

    n_fft: int = Field(1024, ge=400, le=16_384, description="the paper's 400 leaves 4 of 128 filters empty")


class PreprocessSettings(Settings):
    """Stage 2."""

    data: LocalPath
    workers: Workers = None
    executor: Executor = LOCAL
    device: Literal["cpu", "cuda"] = "cpu"
    faces: FaceSettings = FaceSettings()
    mel: MelSettings = MelSettings()
    keep_blank: bool = Field(False, description="keep clips of one flat colour, and clips without any sound")


class DamageSettings(Settings):
    """How training input is damaged, anew in each epoch; see data_tools/damage.py."""

    protocol: Literal["random", "modalities", "bernoulli"] = Field(
        "random", description="steps go at random; some modalities are absent; noise on all elements"
    )
    rate: Annotated[float, Field(ge=0, le=1)] | tuple[float, float] | None = Field(
        None, description="random: the share that goes, or [low, high] for one of each utterance's own; bernoulli: 0.5"
    )
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _rate_fits_the_protocol(self) -> Self:
        if isinstance(self.rate, tuple) and not 0 <= self.rate[0] <= self.rate[1] <= 1:
            raise ValueError(f"rate is {list(self.rate)}: give [low, high] with 0 <= low <= high <= 1")
        if self.protocol == "random" and self.rate is None:
            raise ValueError("protocol random needs a rate, for example rate: [0.1, 1.0]")
        if self.protocol == "modalities" and self.rate is not None:
            raise ValueError("protocol modalities has no rate: each subset of them is present as often; leave it out")
        if self.protocol == "bernoulli" and isinstance(self.rate, tuple):
            raise ValueError("protocol bernoulli takes one rate, the probability of noise")
        return self


class TrainSettings(Settings):
    """Stage 3, all but the network itself, whose settings are `models`' own."""

    data: LocalPath = Path("data/iemocap")
    out: LocalPath | None = Field(None, description="None: runs/<model>-<dataset>-<time>")
    features: str | None = Field(
        None, description="extracted features for a model that reads them; None: `default`, or what was imported"
    )
    init: LocalPath | None = Field(
        None, description="a run folder of `pretrain` or `train`, whose weights a new run starts from"
    )
    standardise: bool = Field(True, description="features less the mean of train, over its deviation")
    epochs: int = Field(40, ge=1)
    patience: int = Field(5, ge=1, description="epochs without a better validation score before stopping")
    batch_size: int = Field(8, ge=1, description="utterances of a batch, all processes together")
    batching: Literal["length", "random"] = Field(
        "length", description="length: utterances of similar length meet in a batch; random: any"
    )
    accumulate: int = Field(1, ge=1, description="batches summed before a step")
    learning_rate: float = Field(5e-5, gt=0)
    text_learning_rate_scale: float = Field(0.1, ge=0, description="of learning_rate; 0 freezes the text encoder")
    weight_decay: float = Field(0.0, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    task: Literal["auto", "multi-label", "single-label", "sentiment"] = Field(
        "auto",
        description="auto: what the data set's own config states (single-label: iemocap-4, iemocap-5, meld), else "
        "multi-label where it has emotions, else sentiment",
    )
    loss: Literal["auto", "bce", "cross_entropy", "balanced_cross_entropy", "l1", "mse"] = Field(
        "auto", description="auto: bce for multi-label, cross_entropy for single-label, l1 for sentiment"
    )
    monitor: str = Field(
        "auto",
        description="loss or a metric of the task, by its name in metrics.json; auto: f1 for multi-label, "
        "unweighted_accuracy for single-label, mae for sentiment",
    )
    sentiment_range: Literal["auto", 1, 3] = Field(
        "auto", description="the end of the corpus' scale, which says what metrics there are; auto: from its labels"
    )
    loss_weights: dict[str, float] = Field({}, description="weight of each further loss a model returns, by name")
    damage: DamageSettings | None = Field(None, description="damage to the training input; None: none")
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = Field(
        "auto", description="auto: bf16-mixed where the processor or GPU multiplies bfloat16 itself, else 32-true"
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = Field(1, ge=1, description="processes of each machine, each with its share of every batch")
    nodes: int = Field(1, ge=1, description="machines that train together; they mount the same folders")
    compile: bool = Field(False, description="by torch.compile, which needs a C++ compiler")
    keep_on_device: Literal["auto"] | bool = Field(
        "auto",
        description="all utterances in the device's memory; auto: where they fit and no loader_workers are asked",
    )
    loader_workers: int = Field(0, ge=0, description="processes that read")
    seed: int = 0


class EvaluateSettings(Settings):
    """Stage 4."""

    run: LocalPath
    split: str = "test"
    data: LocalPath | None = Field(None, description="None: the folder that the run was trained on")
    batch_size: int | None = Field(None, ge=1, description="None: as in training, for the same scores to the last bit")
    device: Literal["auto", "cpu", "cuda"] = "auto"


class RobustnessSettings(Settings):
    """What `pipeline robustness` damages, and how much."""

    run: LocalPath
    protocol: Literal["random", "modalities", "bernoulli"] = "random"
    rates: tuple[Annotated[float, Field(ge=0, le=1)], ...] | None = Field(
        None,
        description="None: for random 0.1, 0.2 ... 1.0, or what the data set's own config states (sims: to 0.5), for "
        "bernoulli 0.5; modalities has none",
    )
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((111, 1111, 11111), min_length=1)
    split: str = "test"
    data: LocalPath | None = Field(None, description="None: the folder that the run was trained on")
    batch_size: int | None = Field(None, ge=1, description="None: as in training")
    device: Literal["auto", "cpu", "cuda"] = "auto"


def configs_dir() -> Path:
    """The folder configs/: beside the packages in a checkout, inside `pipeline` in an installed wheel."""
    package = Path(__file__).parent
    for folder in (package.parent / "configs", package / "_configs"):
        if folder.is_dir():
            return folder
    raise ConfigError(f"no configs folder beside {package}; install the project again with `make install`")


def config_names(kind: ConfigKind) -> list[str]:
    """The names that `load_config` knows, sorted."""
    return sorted(path.stem for path in (configs_dir() / kind).glob("*.yaml"))


def load_config(kind: ConfigKind, name: str) -> dict[str, Any]:
    """The plain values of configs/<kind>/<name>.yaml, or of the YAML file that `name` is a path to.

    Raises:
        ConfigError: unknown name (the known ones are listed), or not a YAML mapping.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else configs_dir() / kind / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(config_names(kind))
        raise ConfigError(f"no {kind} config {name!r}: looked for {path}; known: {known}, or give a path to a .yaml")
    return read_yaml(path)


def published_facts(dataset: str, own: Published | None = None) -> Published:
    """`own`, else what configs/datasets/<dataset>.yaml says is published of that corpus; maybe nothing."""
    if own is None and dataset in config_names("datasets"):
        own = ReorganizeSettings.checked(load_config("datasets", dataset), f"{dataset}.yaml").published
    return own or Published()


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping as plain values (safe loader, no tags)."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not readable YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds {type(values).__name__}, expected a mapping of settings")
    return values


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """`["top_p=0.5", "share=none"]` as plain values; each value is read as YAML, so numbers are numbers.

    Raises:
        ConfigError: an item without `=`, or a key given twice.
    """
    values: dict[str, Any] = {}
    for item in assignments:
        key, separator, text = item.partition("=")
        if not separator or not key:
            raise ConfigError(f"--set {item!r}: expected key=value, for example --set epochs=10")
        if key in values:
            raise ConfigError(f"--set {key} is given twice: {values[key]!r} and {text!r}")
        try:
            values[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {item!r}: the value is not YAML ({error})") from error
    return values
