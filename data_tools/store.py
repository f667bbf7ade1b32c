"""Processed tensors on disk: one safetensors file a dialogue, read by slices of a memory map."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from data_tools.checksums import check_sum, write_checksum
from data_tools.errors import DataError
from data_tools.files import atomic_path
from data_tools.impostor import check_genuine
from data_tools.manifest import STORE_FOLDER
from data_tools.tensor_file import check_tensor, checked, checked_ids, read_header, read_offsets

# Raised when the meaning of the stored tensors changes, so that an old store is made anew instead of misread.
STORE_VERSION = 2


@dataclass(frozen=True)
class SampleTensors:
    """Tensors that preprocessing makes of one utterance.

    faces: (F, S, S, 3) uint8 RGB crops in time order, S = 48 by default.
    face_time_s: (F,) float32 seconds on the clip's clock, that of its sound.
    face_score: (F,) float32 detector probability; 0 where the frame's centre stands in for a face.
    face_landmarks: (F, 5, 2) float32 x, y in crop pixels (left eye, right eye, nose, mouth corners as seen in the
        picture); NaN where no face was found.
    face_box: (F, 4) float32 x0, y0, x1, y1 of the square that was cut, in pixels of the clip's frame; it may reach over
        the frame's edge. The largest square in the middle where no face was found.
    logmel: (M, 128) float16, see `data_tools.mel.log_mel`.
    chosen_by: as of `data_tools.faces.crop.FaceCrops`; no tensor.
    """

    faces: Tensor
    face_time_s: Tensor
    face_score: Tensor
    face_landmarks: Tensor
    face_box: Tensor
    logmel: Tensor
    chosen_by: str = ""


# Of an utterance without face and sound.
EMPTY = SampleTensors(
    torch.zeros(0, 48, 48, 3, dtype=torch.uint8),
    torch.zeros(0),
    torch.zeros(0),
    torch.zeros(0, 5, 2),
    torch.zeros(0, 4),
    torch.zeros(0, 128, dtype=torch.float16),
)
_PER_FACE = ("faces", "face_time_s", "face_score", "face_landmarks", "face_box")
# In the order in which they lie in the file, by their names in the safetensors format.
_DTYPES = {
    "face_time_s": "F32",
    "face_score": "F32",
    "face_landmarks": "F32",
    "face_box": "F32",
    "logmel": "F16",
    "faces": "U8",
}
_TENSORS = tuple(_DTYPES)
_REMEDY = "run `pipeline preprocess` again"


def store_path(data_dir: Path, dialogue_id: str) -> Path:
    """Path of the tensors of one dialogue."""
    return data_dir / STORE_FOLDER / f"{dialogue_id}.safetensors"


def write_dialogue(
    path: Path,
    features: Mapping[str, SampleTensors],
    fingerprint: str,
    rejected: Mapping[str, tuple[str, str]] | None = None,
) -> None:
    """Write all utterances of one dialogue, as `DialogueWriter` does; whole or not at all."""
    with dialogue_writer(path, fingerprint) as writer:
        for utterance_id, found in features.items():
            writer.add(utterance_id, found)
        for utterance_id, why in (rejected or {}).items():
            writer.reject(utterance_id, why)


@contextmanager
def dialogue_writer(path: Path, fingerprint: str) -> Iterator["DialogueWriter"]:
    """A writer whose file appears under `path` when the block ends well, and not at all when it fails.

    fingerprint: of the clips and settings that the samples are made from; `read_fingerprint` gives it back.

    Raises:
        DataError: the file cannot be written.
    """
    with atomic_path(path) as temporary, ExitStack() as opened:
        writer = DialogueWriter(temporary, opened)
        yield writer
        writer.finish(fingerprint)
        write_checksum(temporary, path)


class DialogueWriter:
    """The utterances of one dialogue, packed one after the other, in memory one at a time.

    Each tensor grows in a file of its own beside `target` until `finish` lays them end to end behind a safetensors
    header: a long video takes no more memory than a short one. `opened` closes and deletes those files.
    """

    def __init__(self, target: Path, opened: ExitStack) -> None:
        self._target = target
        self._ids: list[str] = []
        self._rejected: dict[str, tuple[str, str]] = {}
        self._chosen_by: dict[str, str] = {}
        self._counts: dict[str, list[int]] = {"face_offsets": [0], "mel_offsets": [0]}
        self._parts: dict[str, BinaryIO] = {}
        self._shapes = {name: tuple(getattr(EMPTY, name).shape[1:]) for name in _TENSORS}
        for name in _TENSORS:
            part = target.with_name(f"{target.name}.{name}")
            opened.callback(part.unlink, missing_ok=True)
            self._parts[name] = opened.enter_context(part.open("w+b"))

    def add(self, utterance_id: str, features: SampleTensors) -> None:
        """Append one utterance."""
        for name, part in self._parts.items():
            tensor = getattr(features, name)
            self._shapes[name] = tuple(tensor.shape[1:])
            part.write(tensor.contiguous().numpy().tobytes())
        self._counts["face_offsets"].append(len(features.faces))
        self._counts["mel_offsets"].append(len(features.logmel))
        self._ids.append(utterance_id)
        if features.chosen_by:
            self._chosen_by[utterance_id] = features.chosen_by

    def reject(self, utterance_id: str, why: tuple[str, str]) -> None:
        """Remember (reason, detail) of an utterance that could not be processed, so that a later run knows."""
        self._rejected[utterance_id] = why

    def finish(self, fingerprint: str) -> None:
        """Write the whole file."""
        offsets = {name: np.cumsum(counts, dtype="<i8").tobytes() for name, counts in self._counts.items()}
        about = {
            "version": STORE_VERSION,
            "fingerprint": fingerprint,
            "utterance_ids": self._ids,
            "rejected": self._rejected,
            **({"chosen_by": self._chosen_by} if self._chosen_by else {}),
        }
        # The widest first, so that every tensor begins at a multiple of its own width.
        header: dict[str, Any] = {"__metadata__": {"store": json.dumps(about)}}
        start = 0
        for name, content in offsets.items():
            header[name], start = _entry("I64", [len(self._ids) + 1], start, len(content))
        for name, part in self._parts.items():
            rows = sum(self._counts["mel_offsets" if name == "logmel" else "face_offsets"])
            header[name], start = _entry(_DTYPES[name], [rows, *self._shapes[name]], start, part.tell())
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with self._target.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.writelines(offsets.values())
            for part in self._parts.values():
                part.seek(0)
                shutil.copyfileobj(part, file)


def _shape_of(name: str) -> tuple[int | None, ...]:
    """Shape of a tensor of the store but for its first axis; None where any size is right: that of the crops."""
    return (None, None, 3) if name == "faces" else tuple(getattr(EMPTY, name).shape[1:])


def _entry(dtype: str, shape: list[int], start: int, size: int) -> tuple[dict[str, Any], int]:
    """Entry of one tensor in a safetensors header, and the byte at which the next tensor starts."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, start + size]}, start + size


def read_fingerprint(path: Path) -> str | None:
    """The fingerprint in a store file; None where there is no sound store of this version."""
    try:
        return DialogueStore(path).fingerprint
    except DataError:
        return None


class DialogueStore:
    """Samples of one dialogue; `[utterance_id]` reads just that utterance's slices.

    The first time that a process opens a file, it is compared with its checksum, where it has one.

    Raises:
        DataError: the file is missing, damaged or not a store of this version.
    """

    def __init__(self, path: Path) -> None:
        try:
            check_genuine(path)
            check_sum(path, _REMEDY)
            self._file = safe_open(path, framework="pt").__enter__()
            header = read_header(self._file, "store")
        except (OSError, SafetensorError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"{path} cannot be read ({reason}); {_REMEDY}") from error
        if header.get("version") != STORE_VERSION:
            raise DataError(
                f"{path} has store version {header.get('version')!r:.40}, this program reads {STORE_VERSION}; {_REMEDY}"
            )
        try:
            self.fingerprint = checked(header["fingerprint"], str)
            self.utterance_ids = checked_ids(header["utterance_ids"])
            self.rejected: dict[str, tuple[str, str]] = {
                name: (checked(reason, str), checked(detail, str))
                for name, (reason, detail) in checked(header["rejected"], dict).items()
            }
            self.chosen_by: dict[str, str] = {
                name: checked(rule, str) for name, rule in checked(header.get("chosen_by", {}), dict).items()
            }
            self._faces = read_offsets(self._file, "face_offsets", len(self.utterance_ids), _PER_FACE)
            self._mels = read_offsets(self._file, "mel_offsets", len(self.utterance_ids), ("logmel",))
            for name, dtype in _DTYPES.items():
                check_tensor(self._file, name, dtype, _shape_of(name))
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} is damaged ({error!s:.200}); {_REMEDY}") from error
        self._position = {utterance_id: i for i, utterance_id in enumerate(self.utterance_ids)}

    def __contains__(self, utterance_id: str) -> bool:
        return utterance_id in self._position

    def __getitem__(self, utterance_id: str) -> SampleTensors:
        i = self._position[utterance_id]
        faces = slice(self._faces[i], self._faces[i + 1])
        mels = slice(self._mels[i], self._mels[i + 1])
        slices = {name: self._file.get_slice(name)[faces] for name in _PER_FACE}
        logmel = self._file.get_slice("logmel")[mels]
        return SampleTensors(**slices, logmel=logmel, chosen_by=self.chosen_by.get(utterance_id, ""))

    def counts(self, utterance_id: str) -> tuple[int, int]:
        """(faces, rows of the mel) of one utterance, from the offsets alone."""
        i = self._position[utterance_id]
        return self._faces[i + 1] - self._faces[i], self._mels[i + 1] - self._mels[i]

    def face_scores(self, utterance_id: str) -> Tensor:
        """(F,) float32 of one utterance, without reading its faces."""
        i = self._position[utterance_id]
        return self._file.get_slice("face_score")[self._faces[i] : self._faces[i + 1]]
