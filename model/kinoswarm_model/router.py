"""The router: a small video transformer that guesses the cluster of a noisy clip. Owns the network; routing.py uses it.

It reads x_t, t and the pooled text, and learns p(k | x_t, t, text), the weights of the experts' velocities
(arXiv 2501.05450, section 3.2). Text is dropped in training so that it also works without.
Shapes: B batch, C channels, T frames, H height, W width, N patches, P numbers per patch, M width, D text, K clusters.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from kinoswarm_model.checkpoints import check_shapes
from kinoswarm_protocol.errors import LimitExceeded, LocalError, MalformedBytes
from kinoswarm_protocol.limits import MAX_ROUTER_PARAMETERS
from kinoswarm_protocol.specs import ClipSpec, ModelSpec, RouterSpec

_TIME_FREQUENCIES = 32
_MLP_RATIO = 4


class Router(nn.Module):
    """Cluster logits from noisy clips. Zero pooled text means "no text"."""

    def __init__(self, spec: RouterSpec, clip: ClipSpec, text_dim: int, num_clusters: int) -> None:
        super().__init__()
        grid = _grid(spec, clip)
        self.patch = tuple(spec.patch)
        self.grid = grid
        width = spec.width
        self.embed = nn.Linear(clip.channels * math.prod(self.patch), width)
        self.position = nn.Parameter(torch.randn(1, math.prod(grid), width) * 0.02)
        self.time = nn.Linear(2 * _TIME_FREQUENCIES, width)
        self.text = nn.Linear(text_dim, width)
        self.blocks = nn.ModuleList(RouterBlock(width, spec.heads) for _ in range(spec.depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_clusters)

    def forward(self, x_t_BCTHW: Tensor, t_B: Tensor, text_BD: Tensor) -> Tensor:
        """Logits of shape (B, K)."""
        logits_BK: Tensor = self.head(self.features(x_t_BCTHW, t_B, text_BD))
        return logits_BK

    def features(self, x_t_BCTHW: Tensor, t_B: Tensor, text_BD: Tensor) -> Tensor:
        """What the head sees, shape (B, M)."""
        condition_BM = self.time(time_features(t_B)) + self.text(text_BD)
        h_BNM = self.embed(patches_of(x_t_BCTHW, self.patch)) + self._positions(x_t_BCTHW)
        h_BNM = torch.cat([condition_BM.unsqueeze(1), h_BNM + condition_BM.unsqueeze(1)], dim=1)
        for block in self.blocks:
            h_BNM = block(h_BNM)
        features_BM: Tensor = self.norm(h_BNM[:, 0] + h_BNM[:, 1:].mean(1))
        return features_BM

    def _positions(self, x_BCTHW: Tensor) -> Tensor:
        """Learned for the trained grid, interpolated for clips of another size: (1, N, M)."""
        t, h, w = (size // step for size, step in zip(x_BCTHW.shape[2:], self.patch, strict=True))
        if (t, h, w) == self.grid:
            return self.position
        planes = self.position.transpose(1, 2).reshape(1, -1, *self.grid)
        return (
            functional.interpolate(planes, (t, h, w), mode="trilinear").flatten(2).transpose(1, 2)
        )


class RouterBlock(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, _MLP_RATIO * width)
        self.down = nn.Linear(_MLP_RATIO * width, width)

    def forward(self, h_BNM: Tensor) -> Tensor:
        """One block; the shape stays (B, N, M)."""
        batch, length, width = h_BNM.shape
        qkv = self.qkv(self.norm_1(h_BNM)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        h_BNM = h_BNM + self.out(mixed.reshape(batch, length, width))
        inner = functional.gelu(self.up(self.norm_2(h_BNM)), approximate="tanh")
        result_BNM: Tensor = h_BNM + self.down(inner)
        return result_BNM


def build_router(model: ModelSpec, num_clusters: int, *, seed: int) -> Router:
    """A freshly initialised router; the same seed gives the same weights.

    Raises MalformedBytes when patch, width and heads don't fit, LimitExceeded when it is too large.
    """
    meta_router(model, num_clusters)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Router(model.router, model.clip, model.text.dim, num_clusters)


@torch.no_grad()
def grown_router(
    weights: Mapping[str, Tensor], model: ModelSpec, old_clusters: int, num_clusters: int
) -> Router:
    """A router of `old_clusters` with a head for more of them, which come last.

    Their logits start as the mean of the old ones: no clip goes elsewhere before a training on all clusters teaches
    it. Raises LocalError when there is nothing to add.
    """
    if not 0 < old_clusters < num_clusters:
        raise LocalError(f"a router of {old_clusters} clusters can't grow to {num_clusters}")
    check_shapes(weights, router_shapes(model, old_clusters), "the router to grow")
    router = build_router(model, num_clusters, seed=0)
    grown = dict(weights)
    for name in ("head.weight", "head.bias"):
        mean = weights[name].mean(dim=0, keepdim=True)
        more = mean.expand(num_clusters - old_clusters, *mean.shape[1:])
        grown[name] = torch.cat([weights[name], more])
    router.load_state_dict(grown)
    return router


def router_shapes(model: ModelSpec, num_clusters: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of the router's checkpoint, without allocating it."""
    state = meta_router(model, num_clusters).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def meta_router(model: ModelSpec, num_clusters: int) -> Router:
    """The router without memory, on the meta device; raises as build_router."""
    spec = model.router
    if 12 * spec.width**2 * spec.depth > MAX_ROUTER_PARAMETERS:
        raise LimitExceeded(f"a router of {spec.depth} layers of width {spec.width} is too large")
    with torch.device("meta"):
        router = Router(spec, model.clip, model.text.dim, num_clusters)
    parameters = sum(parameter.numel() for parameter in router.parameters())
    if parameters > MAX_ROUTER_PARAMETERS:
        raise LimitExceeded(f"a router of {parameters} parameters; at most {MAX_ROUTER_PARAMETERS}")
    return router


def time_features(t_B: Tensor) -> Tensor:
    """Sines and cosines of t at geometrically spaced frequencies, shape (B, 64)."""
    exponents = torch.arange(_TIME_FREQUENCIES, device=t_B.device) / _TIME_FREQUENCIES
    angles = t_B.float().unsqueeze(1) * (1000.0**exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def patches_of(x_BCTHW: Tensor, patch: tuple[int, ...]) -> Tensor:
    """Cut clips into patches, shape (B, N, P) with P = C * product(patch)."""
    batch, channels, frames, height, width = x_BCTHW.shape
    p_t, p_h, p_w = patch
    cut = x_BCTHW.reshape(
        batch, channels, frames // p_t, p_t, height // p_h, p_h, width // p_w, p_w
    )
    patches = cut.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)
    return patches


def _grid(spec: RouterSpec, clip: ClipSpec) -> tuple[int, int, int]:
    frames, height, width = clip.frames, clip.height, clip.width
    p_t, p_h, p_w = spec.patch
    if frames % p_t or height % p_h or width % p_w:
        raise MalformedBytes(
            f"router patch {spec.patch} does not divide clips of {frames}x{height}x{width}"
        )
    if spec.width % spec.heads:
        raise MalformedBytes(f"router width {spec.width} is not a multiple of {spec.heads} heads")
    return frames // p_t, height // p_h, width // p_w
