"""The codewords of sound: k-means over what the speech encoder makes of a data set (Hsu et al. 2021, section III)."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from data_tools.batch import Batch
from models.layers.padded import Padded
from pipeline.settings import ConfigError


def cluster(states_of: Callable[[Batch], Padded], batches: Iterable[Batch], count: int, most: int, seed: int) -> Tensor:
    """(count, D) float32: centres of the states of `batches`, of which at most `most` are used, drawn by `seed`.

    Raises:
        ConfigError: fewer states than codewords.
    """
    draw = np.random.default_rng(seed)
    states, keys = torch.zeros(0), torch.zeros(0)
    with torch.no_grad():
        for batch in batches:
            sequence = states_of(batch)
            new = sequence.values[sequence.present].float().cpu()
            # Those with the smallest of random keys stay: each state has the same chance, and memory stays small.
            keys = torch.cat([keys, torch.from_numpy(draw.random(len(new)))])
            states = torch.cat([states, new]) if len(states) else new
            kept = keys.argsort(stable=True)[:most].sort().values
            states, keys = states[kept], keys[kept]
    if len(states) < count:
        raise ConfigError(
            f"codewords is {count}, but the sound of train has {len(states)} states of 20 ms (cluster_states at "
            "most); use --set codewords with a smaller number, or more data"
        )
    found = KMeans(count, n_init=1, random_state=seed).fit(states.numpy())
    return torch.from_numpy(found.cluster_centers_.astype(np.float32))
