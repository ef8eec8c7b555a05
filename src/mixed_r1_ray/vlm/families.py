"""Which model families there are, and the adapter of a checkpoint. A new family is one file and one entry here."""

from __future__ import annotations

from mixed_r1_ray.config import ModelConfig
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.vlm.base import VLMAdapter
from mixed_r1_ray.vlm.internvl import InternVLAdapter
from mixed_r1_ray.vlm.qwen2_5_vl import Qwen2_5_VLAdapter

FAMILIES: dict[str, type[VLMAdapter]] = {family.model_type: family for family in (InternVLAdapter, Qwen2_5_VLAdapter)}


def check_family(path: str, model_type: object) -> None:
    """Raises UserError where a checkpoint's model_type is of no family that loads here. path: for the message."""
    if model_type in tuple(FAMILIES):
        return
    said = f"the model type '{model_type}'" if model_type and isinstance(model_type, str) else "no model type"
    hint = "; of an InternVL take the checkpoint whose name ends in -hf" if "internvl" in said else ""
    raise UserError(
        f"model.path={path}: its config.json names {said}; families that load are {', '.join(FAMILIES)}{hint}"
    )


def load_adapter(config: ModelConfig) -> VLMAdapter:
    """The adapter of the checkpoint at `config.path`. Raises UserError for no checkpoint and for an unknown family."""
    from transformers import AutoConfig, AutoProcessor, PretrainedConfig

    try:
        model_type = PretrainedConfig.get_config_dict(config.path)[0].get("model_type")
        check_family(config.path, model_type)
        processor = AutoProcessor.from_pretrained(config.path)
        return FAMILIES[model_type](processor, AutoConfig.from_pretrained(config.path).image_token_id, config)
    except OSError as error:
        raise UserError(f"model.path={config.path}: no usable checkpoint there ({error})") from error
