"""`pipeline standin`: a stand-in release in the real on-disk layout, made by the program itself."""

from pathlib import Path
from typing import Any

from data_tools.corpora.release import STANDINS
from pipeline.command import Command, fields_of
from pipeline.jobs.local import available_cores
from pipeline.progress import Reporter
from pipeline.settings import WORKERS_HELP, ConfigError, LocalPath, Settings, Workers, flag


class StandinSettings(Settings):
    """Settings of `pipeline standin`."""

    dataset: str = flag(help=f"{' or '.join(STANDINS)}.")
    out: LocalPath = flag(help="The folder to write the release into.")
    utterances: int = flag(240, ge=6, help="Utterances of the task's classes, at least 6.")
    seed: int = flag(0, ge=0, help="Of everything that is drawn.")
    noise: float | None = flag(None, help="Chance in [0, 1) that a modality misleads.")
    workers: Workers = flag(None, help=WORKERS_HELP)


def standin(
    dataset: str, out: Path, utterances: int, seed: int, noise: float | None, workers: int | None, reporter: Reporter
) -> dict[str, Any]:
    """Write the release; returns its folder and counts.

    Raises:
        ConfigError: a corpus that has no stand-in, or a noise outside [0, 1). DataError: it cannot be written.
    """
    if dataset not in STANDINS:
        raise ConfigError(f"--dataset is {dataset!r}; known: {', '.join(STANDINS)}")
    if noise is not None and not 0 <= noise < 1:
        raise ConfigError(f"--noise is {noise}: give a chance in [0, 1)")
    from data_tools.standin.release import write_standin

    options: dict[str, Any] = {} if noise is None else {"noise": noise}
    options["workers"] = workers or available_cores()
    result = write_standin(dataset, out, utterances=utterances, seed=seed, track=reporter.track, **options)
    reporter.say(
        f"stand-in {dataset}: {utterances} utterances in {result['folder']}; no score on it means anything about people"
    )
    return result


COMMAND = Command(
    standin,
    (StandinSettings,),
    example="pipeline standin --dataset iemocap --out raw --utterances 240",
    read=fields_of(StandinSettings),
)
