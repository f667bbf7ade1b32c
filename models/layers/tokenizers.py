"""Texts to token ids: the tokenizer of a pretrained encoder, or a hashed vocabulary that needs no file."""

import json
import re
import zlib
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from models.errors import ModelError
from models.reading import read_object

HASH_FILE = "hash_tokenizer.json"
_PAD, _START, _END, _FIRST_WORD = 0, 1, 2, 3


class Tokenizer(Protocol):
    """Texts in, `(tokens (B, L) int64, mask (B, L) bool)` out; L is the longest text of these, at most the limit."""

    @property
    def unknown(self) -> int:
        """The id of a token that is not known. Raises ModelError where the tokenizer has none."""

    @property
    def hidden(self) -> int:
        """The id of the token that hides another one in pretraining. Raises ModelError where the tokenizer has none."""

    @property
    def special(self) -> frozenset[int]:
        """Ids that stand for no word: start, end, padding and the like."""

    @property
    def size(self) -> int:
        """One more than the largest id."""

    def __call__(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """See the class."""

    def save(self, folder: Path) -> None:
        """Writes what `read_tokenizer` needs into `folder`."""


class PretrainedTokenizer:
    """A Hugging Face tokenizer, truncating at `max_tokens` with the special tokens kept."""

    def __init__(self, tokenizer: Any, max_tokens: int) -> None:
        self.tokenizer = tokenizer
        # The state of the first token stands for the text, so the first token may not be padding.
        self.tokenizer.padding_side = "right"
        self.max_tokens = max_tokens

    @property
    def unknown(self) -> int:
        """See Tokenizer."""
        if self.tokenizer.unk_token_id is None:
            raise ModelError(
                f"the tokenizer {self.tokenizer.name_or_path!r} has no unknown token to put in the place of a missing "
                "one; take another text_encoder, or modalities without t"
            )
        return int(self.tokenizer.unk_token_id)

    @property
    def hidden(self) -> int:
        """See Tokenizer."""
        if self.tokenizer.mask_token_id is None:
            raise ModelError(
                f"the tokenizer {self.tokenizer.name_or_path!r} has no mask token, which pretraining needs; take a "
                "text_encoder that was pretrained as a masked language model, such as roberta-large"
            )
        return int(self.tokenizer.mask_token_id)

    @property
    def special(self) -> frozenset[int]:
        """See Tokenizer."""
        return frozenset(self.tokenizer.all_special_ids)

    @property
    def size(self) -> int:
        """See Tokenizer."""
        return 1 + max(self.tokenizer.get_vocab().values(), default=-1)

    def __call__(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """See Tokenizer."""
        encoded = self.tokenizer(texts, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt")
        return encoded["input_ids"], encoded["attention_mask"].bool()

    def save(self, folder: Path) -> None:
        """The tokenizer's own files, the same bytes before and after use."""
        # Each call leaves its limits in the tokenizer, and they would be written too; the next call sets them again.
        if (backend := getattr(self.tokenizer, "backend_tokenizer", None)) is not None:
            backend.no_truncation()
            backend.no_padding()
        self.tokenizer.save_pretrained(folder)


class HashTokenizer:
    """Lower-case words and marks, each numbered by its hash: the same on every machine, no vocabulary to learn."""

    # Every word has a number; that of the padding stands at no place that is read.
    unknown = hidden = _PAD
    special = frozenset({_PAD, _START, _END})

    def __init__(self, vocabulary: int, max_tokens: int) -> None:
        if vocabulary <= _FIRST_WORD:
            raise ModelError(f"a vocabulary of {vocabulary} has no room for a word")
        self.vocabulary = self.size = vocabulary
        self.max_tokens = max_tokens

    def __call__(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """See Tokenizer."""
        rows = [self._ids(text) for text in texts]
        longest = max(map(len, rows), default=0)
        tokens = torch.tensor([row + [_PAD] * (longest - len(row)) for row in rows], dtype=torch.int64)
        mask = torch.tensor([[i < len(row) for i in range(longest)] for row in rows], dtype=torch.bool)
        return tokens.view(len(rows), longest), mask.view(len(rows), longest)

    def _ids(self, text: str) -> list[int]:
        words = re.findall(r"\w+|[^\w\s]", text.lower())[: self.max_tokens - 2]
        numbers = [_FIRST_WORD + zlib.crc32(word.encode()) % (self.vocabulary - _FIRST_WORD) for word in words]
        return [_START, *numbers, _END]

    def save(self, folder: Path) -> None:
        """The size of the vocabulary."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / HASH_FILE).write_text(json.dumps({"vocabulary": self.vocabulary}) + "\n", encoding="utf-8")


def read_tokenizer(folder: Path, max_tokens: int) -> Tokenizer:
    """The tokenizer that `save` wrote.

    Raises:
        ModelError: none there that can be read.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder} is not there: the saved model needs its tokenizer; copy the whole folder again")
    hashed = folder / HASH_FILE
    try:
        if hashed.is_file():
            return HashTokenizer(int(read_object(hashed)["vocabulary"]), max_tokens)
        from transformers import AutoTokenizer, PreTrainedConfig

        # With a configuration given none is looked for in the folder, whose own could name any other model.
        found = AutoTokenizer.from_pretrained(
            folder, config=PreTrainedConfig(), local_files_only=True, trust_remote_code=False
        )
        return PretrainedTokenizer(found, max_tokens)
    except Exception as error:  # the tokenizers library raises bare ones
        reason = str(error).strip().split("\n")[0]
        raise ModelError(f"{folder} holds no readable tokenizer ({reason:.200}); copy the folder again") from error
