"""InternVL (transformers-native checkpoints, `...-hf`): tiles, 1-D positions, boxes in thousandths of each axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mixed_r1_ray.types import BoxFrame
from mixed_r1_ray.vlm.base import VLMAdapter

if TYPE_CHECKING:
    import torch
    from torch import nn


class InternVLAdapter(VLMAdapter):
    model_type = "internvl"
    media_tokens = ("<IMG_CONTEXT>", "<img>", "</img>", "<video>", "<image>")
    pixel_inputs = ("pixel_values",)  # (tiles, 3, S, S)
    vision_prefixes = ("model.vision_tower.",)
    projector_prefixes = ("model.multi_modal_projector.",)

    def processor_kwargs(self) -> dict:
        return {} if self.config.max_tiles is None else {"max_patches": self.config.max_tiles}

    def box_frame(self, width: int, height: int) -> BoxFrame:
        return BoxFrame(1000.0, 1000.0)

    def image_features(self, model: nn.Module, pixels: Mapping[str, torch.Tensor]) -> torch.Tensor:
        features = model.model.get_image_features(pixel_values=pixels["pixel_values"], return_dict=True)
        return features.pooler_output.flatten(0, 1)

    def blank_picture(self, model: nn.Module) -> dict[str, torch.Tensor]:
        import torch

        vision = model.config.vision_config
        return {"pixel_values": torch.zeros(1, vision.num_channels, *vision.image_size, device=model.device)}

    def prompt_positions(
        self, model: nn.Module, input_ids: torch.Tensor, pixels: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, int]:
        import torch

        length = len(input_ids)
        return torch.arange(length).unsqueeze(0), length
