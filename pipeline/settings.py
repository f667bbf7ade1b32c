"""Base of all settings: typed and frozen, from YAML files, `--set` and flags. An unknown key is an error."""

import difflib
import importlib.util
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import unquote

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from data_tools.errors import DataError
from data_tools.files import read_limited
from data_tools.splits import SplitSpec
from pipeline.yaml_text import MAX_YAML_BYTES, parse_yaml

if TYPE_CHECKING:
    from models.base import ModelSettings


class ConfigError(ValueError):
    """Settings that cannot work; the message lists every problem at once."""


class Settings(BaseModel):
    """Base of every command's settings: read-only once built, and an unknown key is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def checked(cls, values: Mapping[str, Any], origin: str) -> Self:
        """Settings from plain values; `origin` says in errors where they came from.

        Raises:
            ConfigError: names every unknown key, wrong type and value out of range, with what was given.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"settings from {origin}: {values!r:.60}, expected names with values")
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            problems = [_problem(found, cls.model_fields) for found in error.errors()]
            raise ConfigError("\n".join([f"settings from {origin}:", *problems])) from None


def _problem(error: Any, known: Collection[str]) -> str:
    name = ".".join(str(part) for part in error["loc"])[:100] or "settings"
    if error["type"] == "extra_forbidden":
        return f"  {name}: unknown setting (value {error['input']!r:.100}){did_you_mean(name, known)}"
    return f"  {name} is {error['input']!r:.200}: {error['msg']}"


def did_you_mean(name: str, known: Collection[str]) -> str:
    """`; did you mean epochs?` for a name that is close to a known one, else nothing."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def flag(
    default: Any = ...,
    *,
    help: str,  # noqa: A002
    positional: bool = False,
    in_file: bool = False,
    repeats: bool = False,
    **constraints: Any,
) -> Any:
    """A field of `Settings` that is also a flag of the command line, with `help` as its text there.

    positional: an argument without a flag, such as the files of `predict`. in_file: the flag may be left out, since a
    config file has the value. repeats: it may be given several times, and becomes a list. constraints: those of
    pydantic's `Field`.
    """
    place = "argument" if positional else "option"
    return Field(
        default,
        description=help,
        json_schema_extra={"flag": place, "in_file": in_file, "repeats": repeats},
        **constraints,
    )


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


def first_and_further(values: Any) -> Any:
    """Settings whose `data` is a list as settings with its first folder in `data`, the others in `more_data`."""
    data = values.get("data") if isinstance(values, dict) else None
    if not isinstance(data, list | tuple):
        return values
    if not data:
        raise ValueError("data is an empty list: name a data folder")
    return values | {"data": data[0], "more_data": [*data[1:], *values.get("more_data", ())]}


def split_commas(value: Any) -> Any:
    """`a,b` as it is typed in a flag -> ["a", "b"]; a list stays one."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _check_executor(executor: str) -> str:
    if executor != LOCAL and importlib.util.find_spec("ray") is None:
        raise ConfigError("Ray is not installed; it is the extra `ray`: pip install 'emotion-pipeline[ray]'")
    return executor


def _read_split(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return SplitSpec.parse(value)
    except DataError as error:
        raise ValueError(str(error)) from None


LOCAL = "local"
ConfigKind = Literal["datasets", "models", "features", "labels"]
Device = Literal["auto", "cpu", "cuda"]
LocalPath = Annotated[Path, BeforeValidator(local_path)]
SplitProtocol = Annotated[SplitSpec, BeforeValidator(_read_split), PlainSerializer(str)]
Names = Annotated[tuple[str, ...], BeforeValidator(split_commas)]
Workers = Annotated[int | None, Field(ge=1)]
TimeLimit = Annotated[float, Field(gt=0)]
Executor = Annotated[str, Field(pattern=r"^(local|ray|ray:[^\s/]+:\d+)$"), AfterValidator(_check_executor)]

# Help texts of flags that several commands have.
WORKERS_HELP = "Processes; by default one for each core, of all machines. With 1 all runs in the command's own process."
TIME_LIMIT_S = 600.0
TIME_LIMIT_HELP = (
    "Seconds that a dialogue may take, beside 30 times the length of its media; after that it is given up and the "
    "others go on. Not watched with --workers 1."
)
EXECUTOR_HELP = (
    "local; ray: the Ray cluster that runs here, or one of this machine alone; ray:HOST:PORT: that cluster. Its "
    "machines must mount the release and the data folder under the same paths."
)
DATA_HELP = "The data folder that `pipeline reorganize` made."
RUN_HELP = "The run folder that `pipeline train` made, a shared model, or hub:USER/NAME[@revision]."
OTHER_DATA_HELP = "Another data folder than the run was trained on."
LABELS_HELP = (
    "A label map, for corpora that name their emotions in other ways: a file in configs/labels, or a path to one."
)
SPLIT_HELP = "A split of the manifest: train, valid or test."
DEFAULT_DATA = Path("data/iemocap")


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
    path = Path(name) if name.lower().endswith((".yaml", ".yml")) else configs_dir() / kind / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(config_names(kind))
        raise ConfigError(f"no {kind} config {name!r}: looked for {path}; known: {known}, or give a path to a .yaml")
    return read_yaml(path)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping as plain values, see `parse_yaml`. Raises ConfigError where it is none."""
    try:
        values = parse_yaml(read_limited(path, MAX_YAML_BYTES).decode("utf-8"))
    except (OSError, ValueError) as error:
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
            values[key] = parse_yaml(text)
        except ValueError as error:
            raise ConfigError(f"--set {item!r}: the value is not YAML ({error})") from error
    return values


@dataclass(frozen=True)
class ModelSpec:
    """A model by name with its settings, which are checked where it is made.

    given: the settings as they were given, those left out keep the model's defaults; a run folder records them.
    note: for people, where the settings are from if that was a choice.
    """

    name: str
    given: dict[str, Any]
    note: str = field(default="", compare=False)

    @classmethod
    def checked(cls, name: str, given: Mapping[str, Any], note: str = "") -> Self:
        """The model `name` with the settings `given`.

        Raises:
            ModelError: no such model, or a setting that it does not have or that is out of range.
        """
        spec = cls(name, dict(given), note)
        _ = spec.config
        return spec

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], note: str = "") -> Self:
        """As `checked`, of `{"name": ..., setting: value ...}` as a YAML file has them.

        Raises:
            ConfigError: no name. ModelError: as `checked`.
        """
        if "name" not in values:
            raise ConfigError(f"the model's settings {dict(values)} have no `name`")
        return cls.checked(str(values["name"]), {key: value for key, value in values.items() if key != "name"}, note)

    @property
    def config(self) -> "ModelSettings":
        """All settings of the model, defaults included."""
        import models

        return models.config_of(self.name, self.given)

    def with_settings(self, **settings: Any) -> Self:
        """The model with these settings changed. Raises ModelError as `checked`."""
        return self.checked(self.name, self.given | settings, self.note)

    def recorded(self) -> dict[str, Any]:
        """`{"name": ..., setting: value ...}`, as a run folder records it."""
        return {"name": self.name} | self.given


class ModelFlags(Settings):
    """The model of `train`, `pretrain` and `flops`: a name or a file, and its settings that are flags."""

    model: str | None = flag(
        None, help="A model or config, e.g. mesm; of settings with a column for the data set that column is taken."
    )
    config: str | None = flag(None, help="A file in configs/models, or a path to a YAML file, as it stands.")


class ModelSettingFlags(Settings):
    """Settings of models that are flags; each model says itself which of them it has."""

    top_p: float | None = flag(None, help="Share of the attention that is kept, in (0, 1]; 1 keeps every site.")
    modalities: str | None = flag(None, help="Letters of tav: text, audio, vision.")
    frontend: str | None = flag(
        None, help="features: extracted ones; towers: end to end, from faces, chunks and tokens; cmt: encoders."
    )


class ResumeFlag(Settings):
    """The flag `--resume` of `train` and `pretrain`."""

    resume: bool = flag(False, help="Go on with the run in --out where it stopped.")
