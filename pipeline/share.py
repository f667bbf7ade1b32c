"""`pipeline share`: a finished run as a folder that can be passed on, with a model card, or on the Hugging Face hub."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from data_tools.errors import DataError
from data_tools.files import read_json, write_json, write_text
from pipeline.command import Command, fields_of
from pipeline.hub import PREFIX, HubModel, upload
from pipeline.progress import Reporter
from pipeline.settings import RUN_HELP, ConfigError, LocalPath, Settings, flag
from pipeline.shared_folder import FILES, FORMAT, MARK, TOKENIZER, check_shared, is_shared

# Of dataset.json: the rest is about the folder that it lay in, and notes that may name files.
_DATASET_FACTS = ("dataset", "split", "task", "standin")


class ShareSettings(Settings):
    """Settings of `pipeline share`."""

    run: LocalPath = flag(help=RUN_HELP)
    to: str = flag(help="A new folder, or hub:USER/NAME for the Hugging Face hub.")
    public: bool = flag(False, help="On the hub, let everybody see it; else it is private.")
    licence: str | None = flag(
        None, pattern=r"^[a-z0-9][a-z0-9.+-]{0,60}$", help="The licence by its name on the hub, e.g. cc-by-nc-4.0."
    )
    title: str | None = flag(None, max_length=100, help="The title of the model card, by default NAME.")


def share(
    run: Path, to: str, public: bool, licence: str | None, title: str | None, reporter: Reporter
) -> dict[str, Any]:
    """Write a run's model with all that `predict`, `evaluate` and `explain` need of it into `to`, and its model card.

    Places on this machine and ids of utterances are left out: of the ids there are digests, by which `evaluate` refuses
    what the model has seen. A folder that `share` made before is replaced as a whole; on the hub it is one commit.
    Returns {"to", "files": bytes by name, "notice", and on the hub "url", "commit", "private"}.

    Raises:
        ConfigError: no such run, it isn't finished, `to` is taken or no name of the hub, `public` of a folder.
        DataError: it cannot be written or uploaded. ModelError: the model cannot be read.
    """
    model = HubModel.parse(to) if to.startswith(PREFIX) else None
    if model is not None and model.revision:
        raise ConfigError(f"{to} names a revision, and the upload makes a new one; give {PREFIX}{model.repo}")
    if public and model is None:
        raise ConfigError("--public is for the hub: a folder is as open as the place where it lies")
    name = model.repo.partition("/")[2] if model else Path(to).resolve().name
    with _building(None if model else Path(to)) as folder:
        notice = _write(run, folder, title or name, licence)
        check_shared(folder)
        files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in _files(folder)}
        result: dict[str, Any] = {"to": to, "files": files, "notice": notice}
        if model is not None:
            reporter.say(f"uploading {sum(files.values()) / 2**20:.1f} MB to {to}")
            result |= upload(folder, model.repo, public, f"Share {title or name}")
    return result


@contextmanager
def _building(target: Path | None) -> Iterator[Path]:
    """A folder to write into, which takes the place of `target` when the block ends well; None for one that goes.

    Raises:
        ConfigError: there is something else at `target`. DataError: it cannot be written.
    """
    if target is None:
        with tempfile.TemporaryDirectory() as place:
            yield Path(place)
        return
    _check_free(target)
    made, old = (target.with_name(f".{target.name}.{os.getpid()}.{kind}") for kind in ("tmp", "old"))
    try:
        made.mkdir(parents=True)
        yield made
        if target.exists():
            target.rename(old)
        made.rename(target)
    except OSError as error:
        raise DataError(
            f"cannot write {target}: {error.strerror or error}; check permissions and free space"
        ) from error
    finally:
        for leftover in (made, old):
            shutil.rmtree(leftover, ignore_errors=True)


def _check_free(target: Path) -> None:
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise ConfigError(f"{target} is a link or a file; name a new folder with --to")
    if not target.is_dir() or not any(target.iterdir()):
        return
    others = [path for path in _files(target) if path.relative_to(target).as_posix() not in FILES]
    strange = [path for path in others if path.parent != target / TOKENIZER and path.name != ".lock"]
    if not is_shared(target) or strange:
        found = strange[0] if strange else target
        raise ConfigError(f"{target} holds something that is no shared model ({found}); name a new folder with --to")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())


def _write(run_path: Path, folder: Path, title: str, licence: str | None) -> str | None:
    """Write the files of the run into the new `folder`, the mark last; returns the notice that belongs to it."""
    import models
    from models.checkpoint import DESCRIPTION_FILE
    from pipeline.model_card import model_card
    from pipeline.run import RunDir
    from pipeline.training.scoring import model_of_run, task_of_run

    run, new = RunDir.existing(run_path), RunDir(folder)
    thresholds, facts, task = run.read_thresholds(), run.facts(), task_of_run(run).settings.task
    settings, model_settings = run.read_settings()
    model = model_of_run(run)
    models.save(model, folder)
    description = read_json(folder / DESCRIPTION_FILE)
    write_json(folder / DESCRIPTION_FILE, description | {"settings": _without_places(description["settings"])})
    dataset = {name: facts.dataset[name] for name in _DATASET_FACTS if name in facts.dataset}
    data = str(dataset.get("dataset", "data"))
    values = asdict(facts)
    own = {name: _without_places(values[name]) for name in ("preprocessing", "features")}
    write_json(new.data, values | own | {"dataset": dataset, "folder": data, "more_folders": []})
    write_json(new.splits, {split: ids.digests() for split, ids in run.learned_from().items()})
    write_json(new.thresholds, read_json(run.thresholds))
    scores = {split: report | {"folder": data} for split, report in (run.read_own_scores()).items()}
    if scores:
        write_json(folder / "metrics.json", {"splits": scores})
    train = settings.model_dump(mode="json") | {"data": data, "more_data": [], "out": None}
    given = {"train": _without_places(train), "model": _without_places(model_settings)}
    write_text(new.settings, yaml.safe_dump(given, sort_keys=False, allow_unicode=True))
    parameters = sum(value.numel() for value in model.parameters())
    card = model_card(title, model_settings["name"], parameters, facts, task, thresholds, scores, licence)
    write_text(folder / "README.md", card)
    about = {"format": FORMAT, "title": title, "model": model_settings["name"], "dataset": data, "task": task}
    write_json(folder / MARK, about | {"emotions": facts.emotions, "notice": facts.notice})
    return facts.notice


def _without_places(value: Any) -> Any:
    """`value` with the last part alone of every text that is a path of this machine, such as that of an encoder."""
    if isinstance(value, dict):
        return {key: _without_places(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_places(inner) for inner in value]
    is_place = isinstance(value, str) and (
        value.startswith(("~", "./", "../")) or Path(value).is_absolute() or ("/" in value and os.path.lexists(value))
    )
    return Path(value).name if is_place else value


def format_shared(result: dict[str, Any]) -> str:
    """The answer of `share` for a person."""
    size = sum(result["files"].values()) / 2**20
    lines = [f"{len(result['files'])} files, {size:.1f} MB in {result.get('url') or result['to']}"]
    if result["notice"]:
        lines.append(result["notice"])
    if "url" in result:
        seen = "private: only you and your organisation see it" if result["private"] else "public: everybody sees it"
        lines.append(f"  {seen}; use it with --run {result['to']}@{result['commit']}")
    else:
        lines.append(f"  use it with --run {result['to']}; its model card is README.md")
    lines.append("  Whether a model may be passed on is in the terms of the corpus that it was trained on.")
    return "\n".join(lines)


COMMAND = Command(
    share,
    (ShareSettings,),
    example="pipeline share --run runs/first --to shared/first",
    read=fields_of(ShareSettings),
    for_people=format_shared,
)
