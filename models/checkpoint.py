"""A model in a folder: `model.safetensors`, `model.json` and `tokenizer/`, enough to rebuild it without a network."""

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.base import Model
from models.errors import ModelError
from models.layers.speech import SpeechEncoder, restored_speech
from models.layers.text import TextEncoder, restored
from models.layers.tokenizers import Tokenizer

WEIGHTS_FILE = "model.safetensors"
DESCRIPTION_FILE = "model.json"
TOKENIZER_DIR = "tokenizer"
FORMAT = 1

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

    def text_encoder(self, max_tokens: int) -> TextEncoder | None:
        """The text encoder's architecture and tokenizer, without its weights; None for a model without text.

        Raises:
            ModelError: one of them cannot be restored.
        """
        if self.text_config is None:
            return None
        try:
            return restored(self.text_config, self.folder / TOKENIZER_DIR, max_tokens)
        except ModelError as error:
            raise ModelError(f"{self.folder / DESCRIPTION_FILE} has a text encoder that fails here: {error}") from error

    def speech_encoder(self) -> SpeechEncoder | None:
        """The speech encoder's architecture without its weights; None for a model without one.

        Raises:
            ModelError: it cannot be restored.
        """
        return None if self.speech_config is None else restored_speech(self.speech_config)


def write_model(folder: Path, name: str, model: Model) -> None:
    """Writes `model`, in the registry `name`; each file under a temporary name, then renamed, the description last.

    Raises:
        ModelError: the folder cannot be written.
    """
    text, speech = model.text, model.speech_encoder()
    description = {
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
            _write_tokenizer(text.tokenizer, folder / TOKENIZER_DIR)
        _replace(folder / WEIGHTS_FILE, lambda path: save_file(weights, path))
        lines = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
        _replace(folder / DESCRIPTION_FILE, lambda path: path.write_text(lines, encoding="utf-8"))
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot write the model to {folder}: {error}; check permissions and free space") from error


def _architecture(config: Any) -> dict[str, Any]:
    # Where the weights once came from says nothing on another machine.
    return {key: value for key, value in config.to_dict().items() if key != "_name_or_path"}


def _write_tokenizer(tokenizer: Tokenizer, target: Path) -> None:
    """A tokenizer decides itself how many files it writes; they are made elsewhere and then put in place one by one."""
    target.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as made:
        tokenizer.save(Path(made))
        files = {path.name: path.read_bytes() for path in sorted(Path(made).iterdir()) if path.is_file()}
    for name, content in files.items():
        _replace(target / name, lambda path, content=content: path.write_bytes(content))
    # Another tokenizer's files would be read in place of this one's.
    for path in target.iterdir():
        if path.is_file() and path.name not in files:
            path.unlink()


def _replace(target: Path, write: Any) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
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
        ModelError: a file is missing or not readable, or the folder was written in another format.
    """
    try:
        description = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        with (folder / WEIGHTS_FILE).open("rb") as file:  # safetensors says "No such file" of any that it cannot open
            if file.read(len(_POINTER)) == _POINTER:
                raise ValueError(f"{WEIGHTS_FILE} is a Git LFS pointer: run `git lfs pull` where it was cloned")
        weights = load_file(folder / WEIGHTS_FILE)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(
            f"{folder} holds no readable model ({error}); expected {DESCRIPTION_FILE} and {WEIGHTS_FILE}, "
            "which `pipeline train` writes"
        ) from error
    found = description.get("format") if isinstance(description, dict) else None
    if found != FORMAT:
        raise ModelError(f"{folder / DESCRIPTION_FILE} has format {found!r}, this program reads {FORMAT}; train again")
    kinds: dict[str, Any] = {
        "name": str,
        "settings": dict,
        "text_encoder": (dict, type(None)),
        "speech_encoder": (dict, type(None)),
    }
    description.setdefault("speech_encoder", None)  # written only for models that have one
    for key, kind in kinds.items():
        if key not in description or not isinstance(description[key], kind):
            raise ModelError(
                f"{folder / DESCRIPTION_FILE} has {key} = {description.get(key)!r}, which no saved model has; "
                "copy the folder again or train again"
            )
    name, settings, text, speech = (description[key] for key in kinds)
    return Saved(name, settings, text, speech, weights, folder)
