"""LSTMs over padded sequences: every utterance is read from its first to its last real step, and back."""

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from models.layers.padded import Padded


def bidirectional(size_in: int, size: int, layers: int, dropout: float) -> nn.LSTM:
    """A bidirectional LSTM; `dropout` is between layers, where there are several."""
    return nn.LSTM(size_in, size, layers, batch_first=True, bidirectional=True, dropout=dropout if layers > 1 else 0.0)


def final_states(lstm: nn.Module, sequence: Padded) -> Tensor:
    """(2, B, size): the last layer's state after the last real step, and that after reading back to the first one.

    lstm: of `bidirectional`. sequence: every utterance has a real step.
    """
    # Read as one padded block, the way back would begin in the padding.
    packed = pack_padded_sequence(
        sequence.values, sequence.present.sum(1).cpu(), batch_first=True, enforce_sorted=False
    )
    _, (states, _) = lstm(packed)
    return states[-2:]


def all_states(network: nn.LSTM | nn.GRU, sequence: Padded) -> Tensor:
    """(B, L, 2 size): the last layer's states at every step, both ways; zero beyond an utterance's last step.

    network: bidirectional. sequence: every utterance has a real step.
    """
    lengths = sequence.present.sum(1).cpu()
    packed = pack_padded_sequence(sequence.values, lengths, batch_first=True, enforce_sorted=False)
    states, _ = pad_packed_sequence(network(packed)[0], batch_first=True, total_length=sequence.values.shape[1])
    return states
