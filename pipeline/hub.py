"""Models on the Hugging Face hub: `hub:USER/NAME[@revision]` to a folder of this machine, and a folder to the hub.

The address of the hub (HF_ENDPOINT), the token and the place of what was fetched (HF_HOME) are huggingface-hub's own.
"""

import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.errors import DataError
from pipeline.settings import ConfigError
from pipeline.shared_folder import (
    FILES,
    HUB_NAME,
    MARK,
    MAX_TOKENIZER_FILES,
    NEEDED,
    TOKENIZER,
    check_shared,
    size_limit,
)

PREFIX = "hub:"
_REVISION = re.compile(r"[\w][\w./-]{0,99}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TOKENIZER_FILE = re.compile(rf"{TOKENIZER}/([A-Za-z0-9][\w.-]{{0,95}})", re.ASCII)


@dataclass(frozen=True)
class HubModel:
    """A model on the hub: `USER/NAME`, and the branch, tag or commit; None for the newest."""

    repo: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> "HubModel":
        """The model that `hub:USER/NAME[@revision]` names.

        Raises:
            ConfigError: it is no such name.
        """
        repo, at, revision = text.removeprefix(PREFIX).partition("@")
        names_one = HUB_NAME.fullmatch(repo) and repo.count("/") == 1 and not re.search(r"--|\.\.", repo)
        if not names_one or (at and not _REVISION.fullmatch(revision)) or ".." in revision:
            raise ConfigError(
                f"{text!r:.150} names no model of the hub; expected {PREFIX}USER/NAME or {PREFIX}USER/NAME@REVISION"
            )
        return cls(repo, revision or None)

    def __str__(self) -> str:
        return PREFIX + self.repo + (f"@{self.revision}" if self.revision else "")


def is_hub_name(run: Path | str) -> bool:
    """Return True if `run` names a model of the hub and no folder."""
    return str(run).startswith(PREFIX)


def local_folder(run: Path) -> Path:
    """The folder of a run: of `hub:USER/NAME` one that it is fetched into, else `run` itself.

    Raises:
        ConfigError, DataError: as `fetch`.
    """
    return fetch(HubModel.parse(str(run))) if is_hub_name(run) else run


def fetch(model: HubModel) -> Path:
    """A folder with the files of a shared model, fetched unless it is there; one for each commit.

    Of what lies beside the model on the hub nothing is fetched. A commit that was fetched before and is named in full
    needs no network.

    Raises:
        ConfigError: no such name. DataError: the hub cannot be asked, has no such model, or it is none of
            `pipeline share`, or larger than any is.
    """
    from huggingface_hub import HfApi, constants

    place = Path(constants.HF_HOME) / "emotion-pipeline" / model.repo.replace("/", "--")
    if model.revision and _COMMIT.fullmatch(model.revision) and (place / model.revision).is_dir():
        return place / model.revision
    api = HfApi()
    with _asking(f"{model} cannot be fetched", place):
        info = api.model_info(model.repo, revision=model.revision, files_metadata=True)
    commit, names = str(info.sha), _names(model, info.siblings or [])
    if not _COMMIT.fullmatch(commit):
        raise DataError(f"the hub names the commit {commit!r:.60} of {model}, which is none")
    target = place / commit
    if target.is_dir():
        return target
    try:
        place.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".", dir=place))
    except OSError as error:
        raise DataError(f"cannot write {place}: {error.strerror or error}; name another place with HF_HOME") from error
    try:
        with _asking(f"{model} cannot be fetched", place):
            for name in names:
                api.hf_hub_download(model.repo, name, revision=commit, local_dir=temporary)
        shutil.rmtree(temporary / ".cache", ignore_errors=True)
        check_shared(temporary)
        if not target.is_dir():  # another process may have been faster
            temporary.chmod(0o755)
            temporary.rename(target)
    except OSError as error:
        raise DataError(
            f"cannot write {target}: {error.strerror or error}; check permissions and free space"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _names(model: HubModel, siblings: Sequence[Any]) -> list[str]:
    """The files to fetch, of those that the hub has. Raises DataError where one is missing or too large."""
    sizes = {file.rfilename: file.size for file in siblings}
    names = [name for name in sizes if name in FILES or _TOKENIZER_FILE.fullmatch(name)]
    if lacking := [name for name in NEEDED if name not in sizes]:
        raise DataError(
            f"{model} is no model of `pipeline share`: {lacking[0]} is not there; give one that has {MARK}, as "
            "docs/share.md says"
        )
    if len(names) > len(FILES) + MAX_TOKENIZER_FILES:
        raise DataError(f"{model} has {len(names)} files; no tokenizer has more than {MAX_TOKENIZER_FILES}")
    for name in names:
        size, limit = sizes[name], size_limit(name)
        if not isinstance(size, int) or not 0 <= size <= limit:
            raise DataError(f"{name} of {model} has {size} bytes; the limit for such a file is {limit}")
    return names


def upload(folder: Path, repo: str, public: bool, message: str) -> dict[str, Any]:
    """Put the files of a shared folder into the repository `repo` in one commit; made private unless `public`.

    Files of an earlier model of the same kind that this one lacks are deleted; what else is in the repository stays.
    Returns {"url", "commit", "private"}.

    Raises:
        ConfigError: the repository is public and `public` is False. DataError: the hub refuses it or cannot be asked.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api, place = HfApi(), Path(repo)
    with _asking(f"cannot upload to {PREFIX}{repo}", place):
        try:
            before = api.model_info(repo)
        except RepositoryNotFoundError:
            before = None
            api.create_repo(repo, private=not public, exist_ok=True)
    if before is not None and not before.private and not public:
        raise ConfigError(f"{PREFIX}{repo} is there and public: add --public to publish the model, or name another one")
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    there = [] if before is None else [file.rfilename for file in before.siblings or []]
    stale = [name for name in there if (name in FILES or _TOKENIZER_FILE.fullmatch(name)) and name not in files]
    operations: list[Any] = [CommitOperationAdd(name, path) for name, path in files.items()]
    operations += [CommitOperationDelete(name) for name in stale]
    with _asking(f"cannot upload to {PREFIX}{repo}", place):
        done = api.create_commit(repo, operations, commit_message=message)
    private = not public if before is None else bool(before.private)
    return {"url": f"{api.endpoint}/{repo}", "commit": done.oid, "private": private}


@contextmanager
def _asking(problem: str, place: Path) -> Iterator[None]:
    """For the block that asks the hub; every error of it is one sentence that begins with `problem`."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except RevisionNotFoundError as error:
        raise DataError(f"{problem}: the hub has no such revision; leave out what follows @") from error
    except (GatedRepoError, RepositoryNotFoundError) as error:
        raise DataError(
            f"{problem}: the hub has no such model, or does not show it to you; check the name, or log in with "
            "`hf auth login`"
        ) from error
    except OfflineModeIsEnabled as error:
        raise DataError(
            f"{problem}: HF_HUB_OFFLINE is set; unset it, or name in full (@COMMIT) one of the commits in {place}"
        ) from error
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        login = "; log in with `hf auth login` (a token that may write)" if status in (401, 403) else ""
        raise DataError(f"{problem}: the hub answers {_first_line(error)}{login}") from error
    except Exception as error:  # those of the network library, which another version of huggingface-hub replaces
        raise DataError(f"{problem} ({type(error).__name__}: {_first_line(error)}); check the network") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0][:300]
