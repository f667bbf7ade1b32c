"""HuBERT's targets and its answer to them (Hsu et al. 2021, eq. 3): a codeword for each step of sound."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TEMPERATURE = 0.1


class Codewords(nn.Module):
    """Scores of codewords by cosine similarity, and which codeword a step really has.

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

    def of(self, steps: Tensor) -> Tensor:
        """(N, size of a step) -> (N,) int64, the nearest centre of each."""
        return torch.cdist(steps.float(), self.centres, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
