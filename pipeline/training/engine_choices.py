"""Where the engines that `auto` took for sparse convolutions are written down: beside a run, and once a machine.

Without that, a second run could measure another engine as the fastest and differ in the last bits.
"""

from pathlib import Path

from data_tools.errors import DataError
from data_tools.files import read_json, write_json
from models.layers.choice import picked, start_over, take_up, used
from models.layers.native.build import cache_folder


def of_machine() -> Path:
    """The file of this user and machine; keys in it name device, threads and torch version, so it never gets stale."""
    return cache_folder() / "engines.json"


def take_up_choices(of_run: Path) -> None:
    """Use the engines that were taken on this machine before and, before all, those in the run's file `of_run`.

    Raises:
        DataError: the file of the run is damaged.
    """
    start_over()
    take_up(_read_or_nothing(of_machine()))
    take_up(_read(of_run))


def keep_choices(of_run: Path) -> list[str]:
    """Write what this run took into its file and the machine's; returns lines that say what is new in the run.

    A folder of the machine that cannot be written to is left alone. With nothing taken no file is made.
    """
    known, met = _read(of_run), used()
    now = known | {kind: engine for kind, engine in picked().items() if kind in met}
    new = {kind: engine for kind, engine in now.items() if known.get(kind) != engine}
    if not new:
        return []
    write_json(of_run, now)
    try:
        of_machine().parent.mkdir(parents=True, exist_ok=True)
        # Another run may have written since; what was measured first stays.
        write_json(of_machine(), now | _read_or_nothing(of_machine()))
    except (OSError, DataError):
        pass
    return [f"  auto took {engine}: {kind}" for kind, engine in new.items()]


def _read(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    choices = read_json(path)
    if not all(isinstance(engine, str) for engine in choices.values()):
        raise DataError(f"{path} is damaged: it needs names of engines; delete it, they are measured anew")
    return choices


def _read_or_nothing(path: Path) -> dict[str, str]:
    """What is unreadable in a cache is measured anew and written again."""
    try:
        return _read(path)
    except DataError:
        return {}
