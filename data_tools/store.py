"""Processed tensors on disk: one safetensors file a dialogue, read by slices of a memory map."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from data_tools.errors import DataError
from data_tools.files import atomic_path
from data_tools.manifest import STORE_FOLDER

# Raised when the meaning of the stored tensors changes, so that an old store is made anew instead of misread.
STORE_VERSION = 2


@dataclass(frozen=True)
class Features:
    """What preprocessing makes of one utterance.

    faces: (F, S, S, 3) uint8 RGB crops in time order, S = 48 by default.
    face_time_s: (F,) float32 seconds from the clip's first frame.
    face_score: (F,) float32 detector probability; 0 where the frame's centre stands in for a face.
    face_landmarks: (F, 5, 2) float32 x, y in crop pixels (left eye, right eye, nose, mouth corners as seen in the
        picture); NaN where no face was found.
    face_box: (F, 4) float32 x0, y0, x1, y1 of the square that was cut, in pixels of the clip's frame; it may reach over
        the frame's edge. The largest square in the middle where no face was found.
    logmel: (M, 128) float16, see `data_tools.mel.log_mel`.
    """

    faces: Tensor
    face_time_s: Tensor
    face_score: Tensor
    face_landmarks: Tensor
    face_box: Tensor
    logmel: Tensor


# Of an utterance that has nothing.
EMPTY = Features(
    torch.zeros(0, 48, 48, 3, dtype=torch.uint8),
    torch.zeros(0),
    torch.zeros(0),
    torch.zeros(0, 5, 2),
    torch.zeros(0, 4),
    torch.zeros(0, 128, dtype=torch.float16),
)
_PER_FACE = ("faces", "face_time_s", "face_score", "face_landmarks", "face_box")


def store_path(data_dir: Path, dialogue_id: str) -> Path:
    """Where the tensors of one dialogue are."""
    return data_dir / STORE_FOLDER / f"{dialogue_id}.safetensors"


def write_dialogue(
    path: Path,
    features: Mapping[str, Features],
    fingerprint: str,
    rejected: Mapping[str, tuple[str, str]] | None = None,
) -> None:
    """Write all utterances of one dialogue, packed one after the other; whole or not at all.

    fingerprint: of the clips and settings that the features were made from; `read_fingerprint` gives it back.
    rejected: utterance id -> (reason, detail) of those that could not be processed, so that a later run knows.
    """
    items = list(features.values()) or [EMPTY]
    tensors = {name: torch.cat([getattr(item, name) for item in items]).contiguous() for name in _PER_FACE}
    tensors["logmel"] = torch.cat([item.logmel for item in items]).contiguous()
    tensors["face_offsets"] = _offsets([len(item.faces) for item in items])
    tensors["mel_offsets"] = _offsets([len(item.logmel) for item in items])
    header = {
        "version": STORE_VERSION,
        "fingerprint": fingerprint,
        "utterance_ids": list(features),
        "rejected": dict(rejected or {}),
    }
    with atomic_path(path) as temporary:
        # One entry: safetensors writes several in an order that changes from run to run, and so do the bytes.
        save_file(tensors, temporary, metadata={"store": json.dumps(header)})


def _offsets(counts: Sequence[int]) -> Tensor:
    return torch.tensor([0, *counts], dtype=torch.int64).cumsum(0)


def read_fingerprint(path: Path) -> str | None:
    """The fingerprint in a store file's header; None where there is no readable store of this version."""
    try:
        with safe_open(path, framework="pt") as file:
            header = _header(file)
    except (OSError, SafetensorError):
        return None
    return header.get("fingerprint") if header.get("version") == STORE_VERSION else None


def _header(file: Any) -> dict[str, Any]:
    return json.loads((file.metadata() or {}).get("store", "{}"))


class DialogueStore:
    """The features of one dialogue; `[utterance_id]` reads just that utterance's slices.

    Raises:
        DataError: the file is missing or not a store of this version.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = safe_open(path, framework="pt").__enter__()
        except (OSError, SafetensorError) as error:
            raise DataError(f"{path} cannot be read ({error}); run `pipeline preprocess` again") from error
        header = _header(self._file)
        if header.get("version") != STORE_VERSION:
            raise DataError(
                f"{path} has store version {header.get('version')}, this program reads {STORE_VERSION}; "
                "run `pipeline preprocess` again"
            )
        self.fingerprint: str = header["fingerprint"]
        self.utterance_ids: list[str] = header["utterance_ids"]
        self.rejected: dict[str, tuple[str, str]] = {
            name: (reason, detail) for name, (reason, detail) in header["rejected"].items()
        }
        self._position = {utterance_id: i for i, utterance_id in enumerate(self.utterance_ids)}
        self._faces = self._file.get_tensor("face_offsets").tolist()
        self._mels = self._file.get_tensor("mel_offsets").tolist()

    def __contains__(self, utterance_id: str) -> bool:
        return utterance_id in self._position

    def __getitem__(self, utterance_id: str) -> Features:
        i = self._position[utterance_id]
        faces = slice(self._faces[i], self._faces[i + 1])
        mels = slice(self._mels[i], self._mels[i + 1])
        slices = {name: self._file.get_slice(name)[faces] for name in _PER_FACE}
        return Features(**slices, logmel=self._file.get_slice("logmel")[mels])

    def face_scores(self, utterance_id: str) -> Tensor:
        """(F,) float32 of one utterance, without reading its faces."""
        i = self._position[utterance_id]
        return self._file.get_slice("face_score")[self._faces[i] : self._faces[i + 1]]
