"""Masked-language-model pretraining of CMT (its paper's section 3.2.2): each side guesses what is hidden from it.

Text: 15 % of the tokens are chosen before the text encoder reads them; 80 % of these become the mask token, 10 % a
random one, 10 % stay. Audio: spans of the speech encoder's states are replaced by a learnt vector, and the codeword of
each hidden state is guessed (`Codewords`). What a side asks of the other one is not masked.

Where the paper is silent: both encoders stand still, in evaluation mode, for the codewords are clusters of their
states. `randomly sample two audio frames with probability p` is read as in wav2vec 2.0 and HuBERT: each frame begins a
span with probability p, and at least two do. The codewords are clusters of the last states of the speech encoder, as
the ones that HuBERT itself was trained with are not published with it.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_tools.batch import Batch
from models.cmt import CMT
from models.errors import ModelError
from models.fusion import never_empty
from models.layers.frontends import token_states
from models.layers.masking import Vocabulary, mask_tokens, span_masks
from models.layers.padded import Padded
from models.output import Output

# Divides the cosine similarities that become logits.
TEMPERATURE = 0.1


@dataclass(frozen=True)
class Masks:
    """Shares to hide: tokens of the text, and spans of the audio by the chance that a step begins one."""

    tokens: float = 0.15
    spans: float = 0.075
    span: int = 10


class CMTPretraining(nn.Module):
    """`network(batch) -> Output` without scores; its losses are `text` and `audio`, each a mean over what is hidden.

    model: with frontend `encoders` and modalities `ta`; only its projections and its fusion learn. centres: (K, states
    of the speech encoder) of the codewords. code_size: features in which codewords are compared. seed: of the masks.

    Attributes:
        epoch: in training masks are drawn from (utterance id, seed, epoch), so set it before each pass; in evaluation
            they are the same in each.
    """

    def __init__(self, model: CMT, centres: Tensor, code_size: int, masks: Masks, seed: int) -> None:
        super().__init__()
        if model.text is None or model.speech is None:
            raise ModelError(
                f"pretraining needs frontend 'encoders' and modalities 'ta', but they are {model.config.frontend!r} "
                f"and {model.config.modalities!r}"
            )
        self.model, self.masks, self.seed, self.epoch = model, masks, seed, 1
        self.encode = model.text.states
        for parameter in [*model.text_parameters(), *model.head.parameters()]:
            parameter.requires_grad_(False)
        tokenizer, words = model.text.tokenizer, model.text.config.vocab_size
        self.vocabulary = Vocabulary(words, tokenizer.hidden, tokenizer.special)
        self.words = nn.Linear(model.config.width, words)
        self.codewords = Codewords(centres, model.config.width, code_size)
        self.hidden_state = nn.Parameter(torch.rand(model.sizes["a"]))

    def train(self, mode: bool = True) -> "CMTPretraining":
        """As ever, but the encoders stay in evaluation mode."""
        super().train(mode)
        for encoder in (self.model.text, self.model.speech):
            assert encoder is not None, "checked at the start"
            encoder.eval()
        return self

    def forward(self, batch: Batch, keep_maps: bool = False) -> Output:  # noqa: ARG002
        """keep_maps: nothing is kept."""
        draws = [self._draws(utterance_id) for utterance_id in batch.ids]
        tokens, chosen = mask_tokens(batch.tokens, batch.token_mask, self.masks.tokens, self.vocabulary, draws)
        with torch.no_grad():
            whole = self.model.frontend(batch)
            text = token_states(self.encode, replace(batch, tokens=tokens))
        hidden = span_masks(whole["a"].present, self.masks.spans, self.masks.span, draws)
        states = torch.where(hidden.unsqueeze(2), self.hidden_state.to(whole["a"].values.dtype), whole["a"].values)
        masked = {"t": text, "a": Padded(states, whole["a"].present)}
        found = self.model.fusion(self._embedded(masked), self._embedded(whole))
        words = _mean_loss(self.words(found["t"].values[chosen]), batch.tokens[chosen])
        codes = self.codewords.nearest(whole["a"].values[hidden])
        sounds = _mean_loss(self.codewords(found["a"].values[hidden]), codes)
        return Output(words.new_zeros(len(batch), 0), losses={"text": words, "audio": sounds})

    def _draws(self, utterance_id: str) -> np.random.Generator:
        """In evaluation as in epoch 0, which no training has."""
        return np.random.default_rng([self.seed, self.epoch if self.training else 0, zlib.crc32(utterance_id.encode())])

    def _embedded(self, sequences: Mapping[str, Padded]) -> dict[str, Padded]:
        return {letter: self.model.embedded(letter, never_empty(found)) for letter, found in sequences.items()}

    def heads(self) -> dict[str, Tensor]:
        """All weights that are not the model's, by name: what the next stage goes on with."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("model.")}

    def load_heads(self, weights: Mapping[str, Tensor]) -> None:
        """Take `heads` up again.

        Raises:
            ModelError: they are of another network.
        """
        own = self.heads()
        if {name: value.shape for name, value in own.items()} != {name: value.shape for name, value in weights.items()}:
            raise ModelError(
                "the weights of the earlier pretraining don't fit this network; give the same model, codewords and "
                "code_size as there"
            )
        self.load_state_dict(weights, strict=False)


def _mean_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy, (N, K) against (N,); 0 where nothing was hidden."""
    return F.cross_entropy(logits.float(), truth, reduction="sum") / max(len(truth), 1)


class Codewords(nn.Module):
    """Scores of codewords by cosine similarity, and the true codeword of a step (HuBERT: Hsu et al. 2021, eq. 3).

    The centres of the clusters say which codeword a step has, the nearest one; they don't learn. What a prediction is
    compared with are embeddings of the codewords, which do.

    centres: (K, size of a step). width: of the states that predict. size: of an embedding.
    """

    def __init__(self, centres: Tensor, width: int, size: int) -> None:
        super().__init__()
        self.centres: Tensor
        self.register_buffer("centres", centres)
        self.project = nn.Linear(width, size)
        self.embeddings = nn.Parameter(torch.randn(len(centres), size))

    def forward(self, states: Tensor) -> Tensor:
        """(N, width) -> (N, K) logits."""
        predicted = F.normalize(self.project(states), dim=1)
        return predicted @ F.normalize(self.embeddings, dim=1).T / TEMPERATURE

    def nearest(self, steps: Tensor) -> Tensor:
        """Index of the nearest centre: (N, size of a step) -> (N,) int64."""
        return torch.cdist(steps.float(), self.centres, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
