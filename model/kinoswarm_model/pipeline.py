"""A release as a diffusers pipeline. Owns the translation between diffusers' way of calling and the common sampler.

Reading goes through release_reader, never through diffusers' own loader: a model_index that names foreign classes is
refused before anything is imported.
Shapes: N clips, T frames, H height, W width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from numpy.typing import NDArray
from torch import Tensor

from kinoswarm_model.checkpoints import weights_of, write_atomic
from kinoswarm_model.clip_length import model_of_length
from kinoswarm_model.clip_sampling import rows_of, text_on
from kinoswarm_model.data.text import TextEncoder, TextFolders
from kinoswarm_model.devices import accelerator
from kinoswarm_model.expert_set import ExpertSet
from kinoswarm_model.flow import sigmas_of
from kinoswarm_model.generate import GenerateConfig, check_request, recipe_settings
from kinoswarm_model.release_card import model_card
from kinoswarm_model.release_layout import MODEL_CARD, VAE, text_folders
from kinoswarm_model.release_reader import decoder_of, open_release
from kinoswarm_model.release_writer import write_release
from kinoswarm_model.router import Router
from kinoswarm_model.sampler import OnStep, RoutedModel, SampleSettings, sample
from kinoswarm_model.vae import VideoVae
from kinoswarm_protocol.errors import LocalError

_SEEDS = 2**53

StepCallback = Callable[["RoutedVideoPipeline", int, float, dict[str, Any]], object]
"""(pipeline, step, noise level, {"expert": most weighted expert of every clip}); what it returns is not used."""


@dataclass
class VideoOutput(BaseOutput):  # type: ignore[misc]  # diffusers is untyped
    """What a call gives; the form of `frames` is its output_type's."""

    frames: Any


class RoutedVideoPipeline(DiffusionPipeline):  # type: ignore[misc]  # diffusers is untyped
    """Text to video with a router that picks experts at every denoising step."""

    def __init__(
        self,
        experts: ExpertSet,
        router: Router,
        text_encoder: TextEncoder,
        text_folders: TextFolders | None = None,
        vae: VideoVae | None = None,
        vae_folder: Path | None = None,
    ) -> None:
        """`text_folders` is where the text encoder's files lie, for saving; None is the installed encoder. The VAE of
        a model on latents likewise.
        """
        super().__init__()
        self.register_modules(experts=experts, router=router, text_encoder=text_encoder)
        self.text_folders = text_folders
        self.vae, self.vae_folder = vae, vae_folder

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        torch_dtype: torch.dtype = torch.float32,
        experts_in_memory: int | None = None,
        allow_missing_experts: bool = False,
    ) -> "RoutedVideoPipeline":
        """Open a release folder. Raises what release_reader.open_release raises.

        `experts_in_memory` bounds how many experts are held at once, None is all that were used; with
        `allow_missing_experts` the router goes around those whose weights are not in the folder.
        """
        release = open_release(Path(folder), allow_missing_experts=allow_missing_experts)
        release.experts.keep_at_most(experts_in_memory)
        release.experts.place(release.experts.device, torch_dtype)
        return cls(
            release.experts,
            release.router,
            release.text,
            text_folders(release.folder),
            release.vae,
            release.folder / VAE,
        )

    @property
    def device(self) -> torch.device:
        """Where clips are sampled; the text encoder stays on the CPU."""
        found: torch.device = self.experts.device
        return found

    @property
    def dtype(self) -> torch.dtype:
        """Of the experts' weights; router and noise stay float32."""
        found: torch.dtype = self.experts.dtype
        return found

    def to(
        self,
        *places: str | torch.device | torch.dtype,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> "RoutedVideoPipeline":
        """Sample on this device, with weights of this type, experts that are loaded later included."""
        for place in places:
            if isinstance(place, torch.dtype):
                dtype = place
            else:
                device = place
        target = torch.device(device) if device is not None else self.device
        self.experts.place(target, dtype or self.dtype)
        self.router.to(target)
        if self.vae is not None:
            self.vae.to(target)
        return self

    def enable_model_cpu_offload(
        self, gpu_id: int | None = None, device: str | torch.device | None = None
    ) -> None:
        """Hold one expert at a time on the accelerator; the others are mappings of their files in main memory.

        Raises LocalError when neither a device is named nor an accelerator found.
        """
        self.experts.keep_at_most(1)
        self.to(device or accelerator(gpu_id))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a whole release folder; the experts' present weights are saved, loaded or not."""
        write_release(
            Path(folder), self.experts, weights_of(self.router), self.text_folders, self.vae_folder
        )
        write_atomic(Path(folder) / MODEL_CARD, model_card(self.experts.info, [], []).encode())

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        num_frames: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        top_k: int | None = None,
        threshold: float | None = None,
        num_videos_per_prompt: int = 1,
        generator: torch.Generator | None = None,
        output_type: str = "np",
        callback_on_step_end: StepCallback | None = None,
    ) -> VideoOutput:
        """Generate clips; None takes the recipe's own value.

        With `threshold`, every expert of at least that probability is mixed instead of the top k.

        `frames` is for `np` an array (N, T, H, W, 3) in 0..1, for `pt` a tensor (N, T, 3, H, W) in 0..1, for `pil` a
        list of lists of pictures. Raises LocalError for prompts or settings that can't be used.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        config = GenerateConfig(
            num_frames=num_frames,
            steps=num_inference_steps,
            guidance=guidance_scale,
            top_k=top_k,
            threshold=threshold,
            clips_per_prompt=num_videos_per_prompt,
        )
        check_request(prompts, config)
        form = _form_of(output_type)
        settings = recipe_settings(self.experts.info.model.recipe, config)
        pixels = self._sampled(prompts, config, settings, generator, callback_on_step_end)
        return VideoOutput(frames=form(pixels[:, :num_frames]))

    def _sampled(
        self,
        prompts: list[str],
        config: GenerateConfig,
        settings: SampleSettings,
        generator: torch.Generator | None,
        callback: StepCallback | None,
    ) -> NDArray[np.uint8]:
        rows = [i for i in range(len(prompts)) for _ in range(config.clips_per_prompt)]
        text = rows_of(text_on(self.text_encoder.encode(prompts), self.device), rows)
        seeds = torch.randint(_SEEDS, (len(rows),), generator=generator).tolist()
        routed = RoutedModel(
            model=model_of_length(self.experts.info.model, config.num_frames),
            expert=self.experts,
            available_K=self.experts.available_K,
            router=self.router,
            decode=decoder_of(self.experts.info.model, self.vae),
        )
        with self.progress_bar(total=settings.steps) as bar:
            on_step = self._on_step(bar, settings, callback)
            return routed.decode(sample(routed, text, seeds, settings, on_step))

    def _on_step(self, bar: Any, settings: SampleSettings, callback: StepCallback | None) -> OnStep:
        sigmas = sigmas_of(settings.steps, settings.shift)

        def on_step(step: int, _steps: int, expert_B: Tensor) -> None:
            bar.update()
            if callback is not None:
                callback(self, step, sigmas[step], {"expert": expert_B})

        return on_step


def _form_of(output_type: str) -> Callable[[NDArray[np.uint8]], Any]:
    forms = {"np": _as_array, "pt": _as_tensor, "pil": _as_pictures}
    if output_type not in forms:
        raise LocalError(f"output_type {output_type!r}; there are: {', '.join(forms)}")
    return forms[output_type]


def _as_array(pixels_NTHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    return pixels_NTHWC.astype(np.float32) / 255.0


def _as_tensor(pixels_NTHWC: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(_as_array(pixels_NTHWC)).permute(0, 1, 4, 2, 3).contiguous()


def _as_pictures(pixels_NTHWC: NDArray[np.uint8]) -> list[list[Any]]:
    from PIL import Image

    return [[Image.fromarray(frame) for frame in clip] for clip in pixels_NTHWC]
