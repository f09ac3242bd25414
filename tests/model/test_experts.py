"""Experts: what is built from a foreign config, and that the lean forward pass is Wan's own."""

import msgspec
import pytest
import torch
from model.samples import tiny_model

from kinoswarm_model.experts import (
    build_expert,
    count_parameters,
    null_text,
    tensor_shapes,
)
from kinoswarm_model.seed_weights import OUTPUT_GAIN, lowest_cosines
from kinoswarm_model.wan_forward import (
    compile_blocks,
    position_channels,
    stock_wan_forward,
    wan_forward,
)
from kinoswarm_protocol.errors import LimitExceeded, MalformedBytes, RemoteError
from kinoswarm_protocol.specs import ExpertSpec, ModelSpec


def with_config(model: ModelSpec, **changes: object) -> ModelSpec:
    config = {**model.expert.config, **changes}
    expert = ExpertSpec(class_name=model.expert.class_name, config=config)  # type: ignore[arg-type]
    return msgspec.structs.replace(model, expert=expert)


def wake_up(network: torch.nn.Module) -> None:
    """Give the output layer seeded weights of a size that shows differences."""
    weight = network.get_submodule("proj_out").weight
    with torch.no_grad():
        weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(9)) * 0.1)


def clip_and_text(model: ModelSpec) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    clip, text = model.clip, model.text
    x_t = torch.randn(2, clip.channels, clip.frames, clip.height, clip.width, generator=generator)
    tokens = torch.randn(2, text.max_tokens, text.dim, generator=generator)
    return x_t, torch.tensor([0.2, 0.9]), tokens


@pytest.mark.parametrize("position", [0, 6])
def test_lean_forward_pass_equals_the_stock_one(position: int) -> None:
    model = with_config(tiny_model(), in_channels=3 + position)
    network = build_expert(model, seed=3).network
    wake_up(network)
    x_t, t, tokens = clip_and_text(model)
    lean = wan_forward(network, x_t, t, tokens)
    stock = stock_wan_forward(network, x_t, t, tokens)
    torch.testing.assert_close(lean, stock, rtol=1e-4, atol=1e-5)
    assert float(lean.detach().abs().max()) > 0.01


def test_activation_checkpointing_changes_no_gradient() -> None:
    model = tiny_model()
    gradients = []
    for checkpointing in (False, True):
        expert = build_expert(model, seed=3)
        wake_up(expert.network)
        expert.network.gradient_checkpointing = checkpointing
        x_t, t, tokens = clip_and_text(model)
        expert(x_t, t, tokens, torch.ones(2, model.text.max_tokens)).square().sum().backward()
        gradients.append(expert.network.get_submodule("patch_embedding").weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_masked_text_counts_as_no_text() -> None:
    model = tiny_model()
    expert = build_expert(model, seed=1)
    wake_up(expert.network)
    x_t, t, tokens = clip_and_text(model)
    nothing, empty = null_text(2, model, torch.device("cpu"))
    assert torch.equal(expert(x_t, t, tokens, empty), expert(x_t, t, nothing, empty))
    full = torch.ones_like(empty)
    assert not torch.equal(expert(x_t, t, tokens, full), expert(x_t, t, nothing, full))


def test_equal_seeds_build_equal_weights_and_leave_global_chance_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = build_expert(tiny_model(), seed=1).network.state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    again = build_expert(tiny_model(), seed=1).network.state_dict()
    other = build_expert(tiny_model(), seed=2).network.state_dict()
    name = "blocks.0.ffn.net.0.proj.weight"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])


def test_parameters_and_shapes_are_counted_without_building() -> None:
    model = tiny_model()
    network = build_expert(model, seed=0).network
    assert count_parameters(model) == sum(p.numel() for p in network.parameters())
    assert tensor_shapes(model) == {n: tuple(t.shape) for n, t in network.state_dict().items()}


def test_class_outside_the_allow_list_is_not_even_decoded() -> None:
    raw = msgspec.msgpack.encode(tiny_model())
    hostile = raw.replace(b"WanTransformer3DModel", b"WanTransformer3DModal")
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(hostile, type=ModelSpec)


@pytest.mark.parametrize(
    "name",
    ["LTXVideoTransformer3DModel", "CogVideoXTransformer3DModel", "os.system", "__import__"],
)
def test_class_that_this_version_cannot_run_says_so(name: str) -> None:
    model = tiny_model()
    expert = ExpertSpec(class_name=name, config=model.expert.config)  # type: ignore[arg-type]
    with pytest.raises(RemoteError, match="this version can run"):
        count_parameters(msgspec.structs.replace(model, expert=expert))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trust_remote_code": True}, "no setting 'trust_remote_code'"),
        ({"self": 1}, "no setting 'self'"),
        ({"patch_size": [3, 8, 8]}, "frames 4"),
        ({"patch_size": [0, 8, 8]}, "at least 1"),
        ({"patch_size": 2}, "three whole numbers"),
        ({"num_layers": -1}, "num_layers"),
        ({"num_layers": True}, "num_layers"),
        ({"ffn_dim": 2.5}, "ffn_dim"),
        ({"in_channels": 2}, "in_channels"),
        ({"in_channels": 500}, "in_channels"),
        ({"text_dim": 7}, "text_dim"),
        ({"image_dim": 64}, "image_dim"),
        ({"attention_head_dim": 7}, "can't be built"),
        ({"rope_max_seq_len": 0}, "rope_max_seq_len"),
    ],
)
def test_hostile_config_is_refused_with_its_reason(changes: dict[str, object], said: str) -> None:
    with pytest.raises(MalformedBytes, match=said):
        build_expert(with_config(tiny_model(), **changes), seed=0)


@pytest.mark.parametrize(
    "changes",
    [{"num_layers": 60_000}, {"ffn_dim": 60_000, "num_attention_heads": 4_000, "num_layers": 90}],
)
def test_expert_beyond_the_limit_is_refused_before_memory_is_taken(
    changes: dict[str, object],
) -> None:
    with pytest.raises(LimitExceeded, match="at most"):
        count_parameters(with_config(tiny_model(), attention_head_dim=128, **changes))


def test_position_channels_tell_every_row_apart() -> None:
    planes = position_channels(6, (4, 16, 16))
    assert planes.shape == (1, 6, 4, 16, 16)
    rows = planes[0, 1, 0, :, 0]
    assert len(set(rows.tolist())) == 16


def test_fresh_pixel_expert_starts_as_an_orthonormal_codec() -> None:
    basis = lowest_cosines(3, (2, 4, 4), 1000).flatten(1)
    assert basis.shape == (96, 96)
    torch.testing.assert_close(basis @ basis.T, torch.eye(96), atol=1e-5, rtol=0)
    network = build_expert(tiny_model(), seed=0).network
    there = network.get_submodule("patch_embedding").weight.detach().flatten(1)
    patches = there.view(32, 3, -1).transpose(1, 2).flatten(1)
    back = network.get_submodule("proj_out").weight.detach()
    torch.testing.assert_close(patches @ back, OUTPUT_GAIN * torch.eye(32), atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method", "ignore:The .grad attribute")
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_blocks_compute_the_same_and_keep_their_names(backend: str) -> None:
    model = tiny_model()
    expert, compiled = build_expert(model, seed=3), build_expert(model, seed=3)
    compile_blocks(compiled.network, backend)
    clip = model.clip
    x_t = torch.randn(2, clip.channels, clip.frames, clip.height, clip.width)
    tokens, mask = null_text(2, model, torch.device("cpu"))
    t_B = torch.tensor([0.2, 0.9])
    torch._dynamo.utils.counters.clear()
    found = compiled(x_t, t_B, tokens, mask)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1
    assert not torch._dynamo.utils.counters["graph_break"]
    torch.testing.assert_close(found, expert(x_t, t_B, tokens, mask), rtol=1e-4, atol=1e-5)
    found.sum().backward()
    assert set(compiled.network.state_dict()) == set(expert.network.state_dict())
    torch._dynamo.reset()
