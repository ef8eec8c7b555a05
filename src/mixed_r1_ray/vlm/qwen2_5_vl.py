"""Qwen2.5-VL: native resolution, three-axis positions (M-RoPE), boxes in pixels of the processed picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mixed_r1_ray.types import BoxFrame
from mixed_r1_ray.vlm.base import VLMAdapter

if TYPE_CHECKING:
    import torch
    from torch import nn


class Qwen2_5_VLAdapter(VLMAdapter):
    model_type = "qwen2_5_vl"
    media_tokens = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>")
    pixel_inputs = ("pixel_values", "image_grid_thw")  # (patches, C·t·p·p), (pictures, 3)
    vision_prefixes = ("model.visual.",)
    projector_prefixes = ("model.visual.merger.",)

    def processor_kwargs(self) -> dict:
        limits = {"min_pixels": self.config.min_pixels, "max_pixels": self.config.max_pixels}
        return {name: value for name, value in limits.items() if value is not None}

    def box_frame(self, width: int, height: int) -> BoxFrame:
        """The size after the processor's own resizing (smart_resize to multiples of patch times merge)."""
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

        images = self.processor.image_processor
        factor = images.patch_size * images.merge_size
        least, most = _pixel_limits(images)
        processed_height, processed_width = smart_resize(
            height,
            width,
            factor=factor,
            min_pixels=self.config.min_pixels or least,
            max_pixels=self.config.max_pixels or most,
        )
        return BoxFrame(float(processed_width), float(processed_height))

    def image_features(self, model: nn.Module, pixels: Mapping[str, torch.Tensor]) -> torch.Tensor:
        import torch

        features = model.model.get_image_features(
            pixels["pixel_values"], image_grid_thw=pixels["image_grid_thw"], return_dict=True
        )
        return torch.cat(tuple(features.pooler_output))

    def blank_picture(self, model: nn.Module) -> dict[str, torch.Tensor]:
        import torch

        vision = model.config.vision_config
        side, values = vision.spatial_merge_size, vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        return {
            "pixel_values": torch.zeros(side * side, values, device=model.device),
            "image_grid_thw": torch.tensor([[1, side, side]], device=model.device),
        }

    def prompt_positions(
        self, model: nn.Module, input_ids: torch.Tensor, pixels: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, int]:
        positions, _ = model.model.get_rope_index(
            input_ids.unsqueeze(0),
            mm_token_type_ids=(input_ids == self.image_token_id).int().unsqueeze(0),
            image_grid_thw=pixels.get("image_grid_thw"),
        )
        return positions[:, 0], int(positions.max()) + 1


def _pixel_limits(image_processor) -> tuple[int, int]:
    size = image_processor.size
    return size["shortest_edge"], size["longest_edge"]
