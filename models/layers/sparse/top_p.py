"""Top-p (nucleus) selection of sites, eq. 3 of the MESM paper (Dai et al. 2021; Holtzman et al. 2019)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from models.native.build import library
from models.native.call import c_longs, empty_output, kernels_available, pointer_to


def top_p_mask(weights: Tensor, active: Tensor, p: float) -> Tensor:
    """The smallest set of sites, by falling weight, whose weights reach p of the image's mass.

    weights: (images, S) float, softmax over the active sites of each image, 0 elsewhere. active: (images, S) bool.
    p: in (0, 1]; 1 keeps every active site.
    Returns (images, S) bool. Never empty for an image with an active site; of equal weights the first site goes
    first; a larger p keeps a superset.
    """
    if p >= 1:
        return active.clone()
    return (mass_before(weights, active) < p) & active


def mass_before(weights: Tensor, active: Tensor) -> Tensor:
    """(images, S): the weights of all sites that come before each one in the order of `top_p_mask`, summed.

    A site is kept where this hasn't reached p yet; so the first one always is.
    """
    if kernels_available(weights):
        return _by_kernel(weights, active)
    # Inactive sites sort behind active ones of weight 0 (a softmax can underflow).
    ordered, order = torch.where(active, weights, -1.0).sort(dim=1, descending=True, stable=True)
    mass = ordered.clamp_min(0).cumsum(1)
    before = F.pad(mass[:, :-1], (1, 0))
    return torch.zeros_like(before).scatter(1, order, before)


def _by_kernel(weights: Tensor, active: Tensor) -> Tensor:
    weights, active = weights.float().contiguous(), active.contiguous()
    before = empty_output(*weights.shape)
    library().mass_before(
        *c_longs(*weights.shape), pointer_to(weights), pointer_to(active), pointer_to(before), torch.get_num_threads()
    )
    return before
