"""The transformer that reads one vector a frame and gives one vector an utterance."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from models.layers.padded import pad

# Steps of six minutes of chunks; an utterance has some ten.
LONG = 1000


class SequenceEncoder(nn.Module):
    """CLS transformer with sinusoidal positions (Vaswani et al. 2017, section 3.5) over packed sequences.

    The CLS vector takes position 0, the frames follow. An utterance without frames is its CLS vector alone.

    feed_forward: width of each layer's network; None for 4 times `size`.
    """

    def __init__(self, size: int, layers: int, heads: int, dropout: float, feed_forward: int | None = None) -> None:
        super().__init__()
        self.cls = nn.Parameter(torch.randn(size) * 0.02)
        wide = feed_forward or 4 * size
        made = [nn.TransformerEncoderLayer(size, heads, wide, dropout, batch_first=True) for _ in range(layers)]
        self.encoder = nn.TransformerEncoder(made[0], layers, enable_nested_tensor=False)
        # It fills itself with copies of one layer, which would all start from the same weights.
        self.encoder.layers = nn.ModuleList(made)

    def forward(self, frames: Tensor, counts: Tensor, longest: int | None = None) -> tuple[Tensor, float]:
        """frames: (F, D), utterance after utterance. counts: (B,) int64, sums to F. longest: as for `pad`.

        Returns (B, D), the state of CLS, and the multiply-adds done.
        """
        size = frames.shape[1]
        steps, present = pad(frames, counts, longest)
        with_cls = torch.cat([self.cls.to(steps.dtype).expand(len(counts), 1, size), steps], dim=1)
        absent = torch.cat([torch.zeros_like(present[:, :1]), ~present], dim=1)
        length = with_cls.shape[1]
        steps = with_cls + sinusoids(length, size, with_cls)
        if self.training or torch.is_grad_enabled() or length <= LONG:
            states = self.encoder(steps, src_key_padding_mask=absent)
        else:
            with _little_memory():
                states = self.encoder(steps, src_key_padding_mask=absent)
        return states[:, 0], self._macs(len(counts), length)

    def _macs(self, batch: int, length: int) -> float:
        linear = sum(weight.numel() for weight in self.encoder.parameters() if weight.ndim == 2)
        between = len(self.encoder.layers) * 2 * length * self.cls.numel()
        return batch * length * (linear + between)


@contextmanager
def _little_memory() -> Iterator[None]:
    """Inside, torch leaves out its fast path for inference, which holds all (B, heads, L, L) weights at once."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def sinusoids(length: int, size: int, like: Tensor) -> Tensor:
    """(length, size): sine at even, cosine at odd features, wavelengths from 2 pi to 10,000 times that."""
    position = torch.arange(length, device=like.device).unsqueeze(1)
    rate = torch.exp(torch.arange(0, size, 2, device=like.device) * (-math.log(10_000) / size))
    angle = position * rate
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[:, :size].to(like.dtype)
