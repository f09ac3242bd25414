"""From router logits to expert weights. Owns the choice of experts; pure functions, no networks.

Which k is best differs between data sets (arXiv 2501.05450 against 2510.03434): it is a setting, never "all".
Shapes: B batch, K clusters.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from kinoswarm_protocol.errors import LocalError


def probabilities(logits_BK: Tensor, available_K: Sequence[bool]) -> Tensor:
    """p(k | x_t, t) over the available experts: the others get 0 and the rest is renormalised.

    Raises LocalError when no expert is available.
    """
    if len(available_K) != logits_BK.shape[1]:
        raise LocalError(
            f"the router knows {logits_BK.shape[1]} experts, but {len(available_K)} were named"
        )
    if not any(available_K):
        raise LocalError("no expert is available: download a release that has at least one")
    absent_K = ~torch.tensor(list(available_K), dtype=torch.bool, device=logits_BK.device)
    return logits_BK.float().masked_fill(absent_K, float("-inf")).softmax(dim=1)


def top_k_weights(p_BK: Tensor, k: int) -> Tensor:
    """Keep the k most probable experts of every clip, renormalised; k = 1 is a one-hot choice.

    Ties go to the lower index. k of K or more keeps all (the full mixture).
    """
    if k >= p_BK.shape[1]:
        return p_BK
    order_BK = p_BK.sort(dim=1, descending=True, stable=True).indices
    kept_BK = torch.zeros_like(p_BK).scatter_(1, order_BK[:, :k], 1.0)
    return _renormalised(p_BK * kept_BK)


def threshold_weights(p_BK: Tensor, threshold: float) -> Tensor:
    """Keep experts whose probability is at least `threshold`, and always the best one; renormalised."""
    best_BK = top_k_weights(p_BK, 1)
    kept_BK = (p_BK >= threshold) | (best_BK > 0)
    return _renormalised(p_BK * kept_BK)


def shares(picked_weights_BK: Tensor) -> Tensor:
    """Mean weight of every expert over a batch, shape (K,)."""
    return picked_weights_BK.mean(dim=0)


def balancing_bias(logits_NK: Tensor, most_share: float) -> Tensor:
    """What to add to the logits, shape (K,), so that no expert is the best one for more than `most_share` of N.

    Logits of overloaded experts are lowered little by little, as in loss-free balancing of mixtures of experts
    (arXiv 2408.15664); an expert that is not overloaded keeps its own. `most_share` is at least 1 / K.
    """
    count, experts = logits_NK.shape
    most = max(most_share * count, -(-count // experts))
    bias_K = torch.zeros(experts)
    for _ in range(_BALANCING_ROUNDS):
        picked_K = torch.bincount((logits_NK + bias_K).argmax(dim=1), minlength=experts)
        over_K = (picked_K - most).clamp_min(0.0) / count
        if not bool(over_K.any()):
            break
        bias_K -= over_K + _BALANCING_STEP * (over_K > 0)
    return bias_K


_BALANCING_ROUNDS = 10_000
_BALANCING_STEP = 0.002


def _renormalised(weights_BK: Tensor) -> Tensor:
    return weights_BK / weights_BK.sum(dim=1, keepdim=True)
