"""The model card of a release: README.md with the front matter that model hubs read. Owns its words; free of torch."""

from dataclasses import dataclass

from kinoswarm_model.release_layout import ReleaseInfo

_TEMPLATE = """\
---
library_name: diffusers
pipeline_tag: text-to-video
license: other
tags: [text-to-video, decentralized-diffusion, mixture-of-experts, kinoswarm]
---

# {name}, release {version}

A text-to-video model that volunteers of the swarm “{name}” trained together: {num_experts} experts, each trained on one
part of the data without exchanging gradients with the others, and a router that picks experts at every denoising step
([decentralized diffusion models](https://arxiv.org/abs/2501.05450)).

## Use

```python
import torch
from kinoswarm_model.pipeline import RoutedVideoPipeline

pipe = RoutedVideoPipeline.from_pretrained("path/to/this/folder")
clip = pipe("{prompt}", generator=torch.Generator().manual_seed(0)).frames[0]
```

On a small card: `from_pretrained(folder, torch_dtype=torch.bfloat16, experts_in_memory=1)`, or
`pipe.enable_model_cpu_offload()`.

Or from a terminal: `kinoswarm generate "{prompt}" --model path/to/this/folder --out clip.mp4`.
A single expert is an ordinary diffusers model: `{class_name}.from_pretrained("path/to/this/folder/experts/0")`
(diffusers asks for `accelerate` to be installed there).

## What it makes

{clips}. `samples/` holds these:

{samples}

## Experts

| expert | cluster of the data | version | trained on the error of |
|---|---|---|---|
{experts}

Version 0 is the common seed that all experts start from; each further version merged volunteers' training.

## Recipe

| | |
|---|---|
| expert | `{class_name}`, preset `{preset}` |
| network predicts | {prediction} |
| text encoder | `{encoder}`, {text_dim} numbers a token, at most {max_tokens} tokens |
| router | transformer of width {router_width}, {router_depth} layers; reads noisy clip, time and text |
| sampling | Euler, {steps} steps, guidance {guidance:g}, top {top_k} of {num_experts} experts, shift {shift:g} |

`kinoswarm.json` holds every setting.

## Figures

{figures}

`kinoswarm evaluate path/to/this/folder DATA` measures more: Fréchet distances to held-out clips,
motion, shares per expert.

## Data and licence

{licence}

The clusters above were found in the swarm's captioned video data; its charter names sources and licences of data, base
weights and contributions. The text encoder is a copy of the one named above, under its own licence.

## Limits

Small clips, the scenes of its training data only. Prompts about anything else give nearby scenes or noise. It was not
trained to refuse prompts.
"""


@dataclass(frozen=True, kw_only=True)
class CardFigures:
    """What was counted and measured while the release was made."""

    seed_flops: float
    """Of training the common seed; 0 is not known, as for the next."""
    expert_flops: float
    """Of all accepted training of experts."""
    clip_flops: float
    """Of generating one clip by the recipe."""
    accuracy_by_t: list[tuple[float, float]]
    """Of the router on held-out clips; empty when it was not measured."""
    calibration_error: float
    share_by_expert: list[float]
    """How often each expert was picked over the samples' steps; empty without samples."""


def _clips(info: ReleaseInfo) -> str:
    frames, height, width = info.model.pixels
    if frames == 1:
        return f"Pictures of {width}×{height} pixels"
    fps = info.model.clip.fps
    return f"Clips of {frames} frames at {width}×{height} pixels and {fps} frames a second"


def model_card(
    info: ReleaseInfo,
    prompts: list[str],
    sample_names: list[str],
    figures: CardFigures | None = None,
) -> str:
    """Markdown of the card; `sample_names` are the strips of the prompts, relative to the folder."""
    model, recipe = info.model, info.model.recipe
    return _TEMPLATE.format(
        name=_line(info.swarm_name),
        version=info.version,
        num_experts=len(info.experts),
        prompt=_line(prompts[0] if prompts else "a video").replace('"', "'"),
        class_name=model.expert.class_name,
        clips=_clips(info),
        samples=_samples(prompts, sample_names),
        experts=_experts(info),
        preset=_line(model.preset),
        prediction=_PREDICTIONS[recipe.prediction],
        encoder=_line(model.text.encoder),
        text_dim=model.text.dim,
        max_tokens=model.text.max_tokens,
        router_width=model.router.width,
        router_depth=model.router.depth,
        steps=recipe.sample_steps,
        guidance=recipe.guidance,
        top_k=recipe.top_k,
        shift=recipe.shift,
        licence=info.licence.strip(),
        figures=_figures(figures) if figures is not None else "Not measured for this copy.",
    )


_PREDICTIONS = {
    "clean": "the clean clip ([arXiv 2511.13720](https://arxiv.org/abs/2511.13720))",
    "velocity": "the velocity from data to noise (flow matching)",
}


def _figures(found: CardFigures) -> str:
    rows = {
        "training the experts": _flops(found.expert_flops),
        "training their common seed": _flops(found.seed_flops),
        "generating one clip": _flops(found.clip_flops),
        "router accuracy on held-out clips (t = 1 is noise)": ", ".join(
            f"{share:.1%} at t = {t:g}" for t, share in found.accuracy_by_t
        ),
        "router calibration error": f"{found.calibration_error:.3f}" if found.accuracy_by_t else "",
        "share of each expert in the samples' steps": ", ".join(
            f"{share:.0%}" for share in found.share_by_expert
        ),
    }
    known = [f"| {name} | {value} |" for name, value in rows.items() if value]
    return "\n".join(["| | |", "|---|---|", *known])


def _flops(value: float) -> str:
    return f"{value:.3g} FLOPs" if value else ""


def _samples(prompts: list[str], names: list[str]) -> str:
    rows = [f"![{_line(prompt)}]({name})" for prompt, name in zip(prompts, names, strict=True)]
    return "\n\n".join(rows) or "(none in this release)"


def _experts(info: ReleaseInfo) -> str:
    rows = enumerate(info.experts)
    return "\n".join(
        f"| {index} | {_line(e.label)} | {e.version} | {_OBJECTIVES[e.objective]} |"
        for index, e in rows
    )


_OBJECTIVES = {
    "velocity": "the velocity",
    "epsilon": "the noise ([arXiv 2603.06741](https://arxiv.org/abs/2603.06741))",
}


def _line(text: str) -> str:
    """One line that can't break out of a table, a link or a code block."""
    return "".join(" " if c in "|[]`<>\\\n\r" else c for c in text).strip()
