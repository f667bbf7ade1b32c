"""A model in a folder: `model.safetensors`, `model.json` and `tokenizer/`, enough to rebuild it without a network."""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.base import Model
from models.errors import ModelError
from models.layers.pretrained import Most
from models.layers.speech import SpeechEncoder, restored_speech
from models.layers.text import TextEncoder, restored
from models.layers.tokenizers import HASH_FILE, Tokenizer
from models.reading import read_object

WEIGHTS_FILE = "model.safetensors"
DESCRIPTION_FILE = "model.json"
TOKENIZER_DIR = "tokenizer"
FORMAT = 1
# A network may have this beside its weights: the pooler of an encoder, positions.
_ROOM = Most(2**24, 256)
_DIGEST = "sha256"

# What stands in a file that Git LFS has not fetched.
_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class Saved:
    """A saved model: its name in the registry, its settings and its weights."""

    name: str
    settings: dict[str, Any]
    text_config: dict[str, Any] | None
    speech_config: dict[str, Any] | None
    weights: dict[str, Tensor]
    folder: Path

    @property
    def most(self) -> Most:
        """Size that its network can have: that of its weights, with room for what is made and not kept."""
        values = sum(value.numel() for value in self.weights.values())
        return Most(2 * values + _ROOM.values, 2 * len(self.weights) + _ROOM.tensors)

    def text_encoder(self, max_tokens: int) -> TextEncoder | None:
        """The text encoder's architecture and tokenizer, without its weights; None for a model without text.

        Raises:
            ModelError: one of them cannot be restored.
        """
        if self.text_config is None:
            return None
        try:
            return restored(self.text_config, self.folder / TOKENIZER_DIR, max_tokens, self.most)
        except ModelError as error:
            raise ModelError(f"{self.folder / DESCRIPTION_FILE} has a text encoder that fails here: {error}") from error

    def speech_encoder(self) -> SpeechEncoder | None:
        """The speech encoder's architecture without its weights; None for a model without one.

        Raises:
            ModelError: it cannot be restored.
        """
        return None if self.speech_config is None else restored_speech(self.speech_config, self.most)


def write_model(folder: Path, name: str, model: Model) -> None:
    """Writes `model`, in the registry `name`; each file under a temporary name, then renamed, the description last.

    Raises:
        ModelError: the folder cannot be written.
    """
    text, speech = model.text, model.speech_encoder()
    description: dict[str, Any] = {
        "format": FORMAT,
        "name": name,
        "settings": model.config.model_dump(),
        "text_encoder": None if text is None else _architecture(text.config),
    }
    if speech is not None:
        description["speech_encoder"] = _architecture(speech.encoder.config)
    weights = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if text is not None:
            description["tokenizer"] = _write_tokenizer(text.tokenizer, folder)
        _replace(folder / WEIGHTS_FILE, lambda path: write_weights(path, weights))
        lines = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
        _replace(folder / DESCRIPTION_FILE, lambda path: path.write_text(lines, encoding="utf-8"))
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot write the model to {folder}: {error}; check permissions and free space") from error


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write tensors that are on the CPU, with a digest of them all. Raises OSError, SafetensorError."""
    save_file(dict(weights), path, metadata={_DIGEST: digest_of(weights)})


def digest_of(weights: Mapping[str, Tensor]) -> str:
    """The SHA-256 of tensors on the CPU with their names, types and shapes, in any order."""
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _architecture(config: Any) -> dict[str, Any]:
    # Where the weights once came from says nothing on another machine.
    return {key: value for key, value in config.to_dict().items() if key != "_name_or_path"}


def _write_tokenizer(tokenizer: Tokenizer, folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of the tokenizer, by name.

    A tokenizer decides itself how many files it writes; they are made elsewhere and then put in place one by one.
    """
    target = folder / TOKENIZER_DIR
    if target.is_symlink():
        raise ModelError(f"{target} is a link to another place, and nothing is written through it; remove the link")
    target.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as made:
        tokenizer.save(Path(made))
        files = {path.name: path.read_bytes() for path in sorted(Path(made).iterdir()) if path.is_file()}
    # Another tokenizer's files would be read in place of this one's; what else lies there is none of ours.
    for name in _tokenizer_before(folder) - files.keys():
        (target / name).unlink(missing_ok=True)
    for name, content in files.items():
        _replace(target / name, lambda path, content=content: path.write_bytes(content))
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def _tokenizer_before(folder: Path) -> set[str]:
    """Names of the files that an earlier model has put into its tokenizer's folder."""
    try:
        names = read_object(folder / DESCRIPTION_FILE).get("tokenizer")
    except (OSError, ValueError):
        names = None
    found = names if isinstance(names, dict) else {HASH_FILE}
    return {name for name in found if Path(name).name == name and not (folder / TOKENIZER_DIR / name).is_dir()}


def _replace(target: Path, write: Any) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # a link of that name would be written through
        # The permissions of a new file, as the umask has it: safetensors makes one for its owner alone.
        temporary.touch()
        permissions = temporary.stat().st_mode
        write(temporary)
        temporary.chmod(permissions)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def read_model(folder: Path) -> Saved:
    """Read what `write_model` wrote.

    Raises:
        ModelError: a file is missing, damaged or not readable, a weight is no finite number, or the folder was written
            in another format.
    """
    try:
        description = read_object(folder / DESCRIPTION_FILE)
        weights = read_weights(folder / WEIGHTS_FILE)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(
            f"{folder} holds no readable model ({error!s:.300}); expected {DESCRIPTION_FILE} and {WEIGHTS_FILE}, "
            "which `pipeline train` writes"
        ) from error
    if (found := description.get("format")) != FORMAT:
        raise ModelError(
            f"{folder / DESCRIPTION_FILE} has format {found!r:.60}, this program reads {FORMAT}; train again"
        )
    kinds: dict[str, Any] = {
        "name": str,
        "settings": dict,
        "text_encoder": (dict, type(None)),
        "speech_encoder": (dict, type(None)),
        "tokenizer": dict,
    }
    # Written only for models that have one; the files of a tokenizer were not named by earlier versions.
    description = {"speech_encoder": None, "tokenizer": {}} | description
    for key, kind in kinds.items():
        if key not in description or not isinstance(description[key], kind):
            raise ModelError(
                f"{folder / DESCRIPTION_FILE} has {key} = {description.get(key)!r:.100}, which no saved model has; "
                "copy the folder again or train again"
            )
    name, settings, text, speech, tokenizer = (description[key] for key in kinds)
    _check_tokenizer(folder / TOKENIZER_DIR, tokenizer)
    return Saved(name, settings, text, speech, weights, folder)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights in a file, compared with their digest, where they have one.

    Raises:
        OSError, SafetensorError: it cannot be read. ValueError: it is damaged; says how.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there, or no file")
    with path.open("rb") as content:  # safetensors says "No such file" of any that it cannot open
        if content.read(len(_POINTER)) == _POINTER:
            raise ValueError(f"{path.name} is a Git LFS pointer: run `git lfs pull` where it was cloned")
    with safe_open(path, framework="pt") as file:
        digest = (file.metadata() or {}).get(_DIGEST)
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    if digest is not None and digest != digest_of(weights):
        raise ValueError(f"{path} is damaged: the weights are not those that were written")
    for name, value in weights.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"{path} is damaged: {name} has values that are not finite")
    return weights


def _check_tokenizer(folder: Path, digests: Mapping[str, Any]) -> None:
    """Compare the files of a tokenizer with their digests; those that are not there are noticed where they are read."""
    for name, digest in digests.items():
        path = folder / name
        if Path(name).name == name and path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise ModelError(f"{folder} holds no readable tokenizer ({name} is damaged); copy the folder again")
