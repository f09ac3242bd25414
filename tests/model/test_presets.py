"""Presets: their figures come from a formula that is held to what models really have and what autograd really keeps."""

import json
from contextlib import nullcontext

import pytest
import torch
from msgspec import structs
from typer.testing import CliRunner

from kinoswarm_cli.main import app
from kinoswarm_model.experts import Expert, build_expert, count_parameters, null_text
from kinoswarm_model.flops import expert_flops, router_flops
from kinoswarm_model.lora import add_adapters
from kinoswarm_model.presets import Geometry, preset, preset_for, preset_names, stated
from kinoswarm_model.router import meta_router
from kinoswarm_model.training import checkpoint_activations
from kinoswarm_model.training_memory import (
    Precision,
    activation_bytes,
    adapter_parameters,
    parameters,
    training_bytes,
)
from kinoswarm_protocol.errors import LocalError
from kinoswarm_protocol.specs import ModelSpec, VaeSpec

CARD_BYTES = {"home-8gb": 8 * 2**30, "home-12gb": 12 * 2**30, "home-24gb": 24 * 2**30}
DRIVER_BYTES = 1e9


@pytest.mark.parametrize("name", preset_names())
def test_parameters_are_those_of_the_model_on_the_meta_device(name: str) -> None:
    assert parameters(stated(name).model) == count_parameters(stated(name).model)


@pytest.mark.parametrize("name", ["tiny", "demo"])
def test_adapter_parameters_are_those_that_lora_trains(name: str) -> None:
    model = stated(name).model
    network = build_expert(model, seed=0).network
    add_adapters(network, 4, seed=0)
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert adapter_parameters(model, 4) == trained


def kept_bytes(model: ModelSpec, precision: Precision, checkpointing: bool) -> int:
    """What autograd keeps of one forward pass beside the weights themselves."""
    expert = build_expert(model, seed=0)
    if checkpointing:
        checkpoint_activations(expert.network)
    weights = {p.untyped_storage()._cdata for p in expert.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage()._cdata not in weights:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    half = torch.autocast("cpu", torch.bfloat16) if precision == "bfloat16" else nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), half:
        loss = forward(expert, model)
    assert loss.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def forward(expert: Expert, model: ModelSpec) -> torch.Tensor:
    clip = model.clip
    x_t = torch.randn(1, clip.channels, clip.frames, clip.height, clip.width)
    tokens, mask = null_text(1, model, torch.device("cpu"))
    return expert(x_t, torch.full((1,), 0.5), tokens, mask).sum()


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("heads", "ffn", "layers"), [(4, 384, 3), (8, 1024, 2)])
def test_activations_are_what_autograd_keeps(
    heads: int, ffn: int, layers: int, precision: Precision
) -> None:
    model = preset("demo", frames=8, height=64, width=64, num_clusters=2).model
    config = {
        **model.expert.config,
        "num_attention_heads": heads,
        "ffn_dim": ffn,
        "num_layers": layers,
    }
    model = structs.replace(model, expert=structs.replace(model.expert, config=config))
    kept = kept_bytes(model, precision, checkpointing=False)
    assert activation_bytes(model, precision) == pytest.approx(kept, rel=0.03)


def test_checkpointing_keeps_the_inputs_of_blocks_only() -> None:
    """While a block is computed again, its own activations come on top: the formula has both."""
    model = stated("demo").model
    kept = kept_bytes(model, "float32", checkpointing=True)
    one_block = activation_bytes(with_layers(model, 2), "float32") - activation_bytes(
        with_layers(model, 1), "float32"
    )
    assert activation_bytes(model, "float32", checkpointing=True) == pytest.approx(
        kept + one_block, rel=0.15
    )


def with_layers(model: ModelSpec, layers: int) -> ModelSpec:
    config = {**model.expert.config, "num_layers": layers}
    return structs.replace(model, expert=structs.replace(model.expert, config=config))


@pytest.mark.parametrize("name", list(CARD_BYTES))
def test_a_home_preset_fits_its_card(name: str) -> None:
    model = stated(name).model
    needs = [training_bytes(model, mode, "bfloat16", checkpointing=True) for mode in model.modes]
    assert needs == sorted(needs, reverse=True)
    fitting = [need for need in needs if need + DRIVER_BYTES < CARD_BYTES[name]]
    assert len(fitting) >= 2
    assert max(fitting) > 0.35 * CARD_BYTES[name]


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_has_a_router_for_its_clips(name: str) -> None:
    found = sum(p.numel() for p in meta_router(stated(name).model, 8).parameters())
    assert 0 < found < parameters(stated(name).model)


def test_the_command_states_every_preset_and_mode() -> None:
    found = json.loads(CliRunner().invoke(app, ["presets", "--json"]).stdout)
    assert [facts["name"] for facts in found] == preset_names()
    for facts in found:
        least = [mode["least_bytes"] for mode in facts["modes"]]
        whole = [mode["without_checkpointing_bytes"] for mode in facts["modes"]]
        assert all(a <= b for a, b in zip(least, whole, strict=True))
    text = CliRunner().invoke(app, ["presets"]).stdout
    assert "1,413.3M parameters, 33 frames of 320x512 as latents of a VAE, 5,760 tokens" in text
    assert max(map(len, text.splitlines())) <= 110


@pytest.mark.parametrize(
    ("name", "most"), [("demo", 0.05), ("home-8gb", 0.05), ("home-12gb", 0.05), ("home-24gb", 0.02)]
)
def test_a_call_of_the_router_costs_little_beside_a_guided_step(name: str, most: float) -> None:
    """Guidance calls the expert twice; this share is what routing to one expert adds to the time of a step."""
    model = stated(name).model
    assert router_flops(model, 8) < most * 2 * expert_flops(model)


def test_a_preset_of_latents_says_how_to_get_them() -> None:
    with pytest.raises(LocalError, match="data prepare --vae"):
        preset("home-8gb", frames=17, height=256, width=256, num_clusters=2)


@pytest.mark.parametrize("name", ["tiny", "demo"])
def test_small_presets_train_on_latents_too(name: str) -> None:
    vae = VaeSpec(
        class_name="AutoencoderKLWan", frame_step=4, pixel_step=8, mean=[0.0] * 4, std=[1.0] * 4
    )
    geometry = Geometry(frames=3, height=4, width=4, fps=8, num_clusters=2, vae=vae)
    model = preset_for(name, geometry).model
    assert model.pixels == (9, 32, 32)
    assert forward(build_expert(model, seed=0), model).isfinite()


@pytest.mark.parametrize("name", ["tiny", "demo"])
def test_pictures_are_clips_of_one_frame(name: str) -> None:
    model = preset(name, frames=1, height=32, width=32, num_clusters=2).model
    assert forward(build_expert(model, seed=0), model).isfinite()
