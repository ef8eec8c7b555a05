"""The shape of a vision-language model, read from its config.json, and exact counts of its parameters."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ..config import TINY
from ..errors import UserError
from .published import PUBLISHED, QWEN2_5_VIT

INTERNVL_IMAGE_TOKENS = 256  # of a tile: `image_seq_length` where config.json gives none


@dataclass(frozen=True)
class Language:
    """A Qwen2-style decoder: grouped-query attention with biases on q, k, v; gated MLP; RMSNorm."""

    width: int
    mlp_width: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool  # the output matrix is the embedding

    @property
    def kv_width(self) -> int:
        """Width of a token's keys (and of its values) in one layer."""
        return self.width // self.heads * self.kv_heads

    @property
    def layer_parameters(self) -> int:
        attention = 2 * self.width**2 + self.width + 2 * (self.width + 1) * self.kv_width
        return attention + 3 * self.width * self.mlp_width + 2 * self.width

    @property
    def embedding_parameters(self) -> int:
        return self.vocabulary * self.width

    @property
    def parameters(self) -> int:
        matrices = 1 if self.tied else 2
        return self.layers * self.layer_parameters + matrices * self.embedding_parameters + self.width

    def lora_parameters(self, rank: int) -> int:
        """Of adapters on every linear layer: rank numbers for each input and each output of q, k, v, o and the MLP."""
        return self.layers * rank * (9 * self.width + 2 * self.kv_width + 3 * self.mlp_width)

    def kv_bytes(self, bytes_per_number: int) -> int:
        """Bytes that one token's keys and values take in all layers."""
        return 2 * self.layers * self.kv_width * bytes_per_number


@dataclass(frozen=True)
class Vision:
    """A vision tower and its projector, counted; what one picture costs it depends on the family."""

    width: int
    layers: int
    parameters: int
    projector_parameters: int
    patches_per_token: int  # patches that become one token of the language model
    values_per_patch: int  # numbers of pixel_values behind one patch
    tile_tokens: int | None  # InternVL: tokens of one tile; None where pictures keep their resolution
    token_pixels: int  # pixels of a picture behind one token


@dataclass(frozen=True)
class Architecture:
    """A model family's member, as far as bytes and operations depend on it."""

    family: str
    language: Language
    vision: Vision

    @property
    def parameters(self) -> int:
        return self.language.parameters + self.vision.parameters + self.vision.projector_parameters

    @property
    def largest_parameter(self) -> int:
        """Numbers in the largest single tensor, which ZeRO-3 gathers whole."""
        return self.language.embedding_parameters

    def trained(self, freeze: str, lora_rank: int = 0) -> int:
        """Parameters that are trained under `learner.freeze`, or the adapters of `learner.lora_rank` alone."""
        return self.language.lora_parameters(lora_rank) if lora_rank else self.changing(freeze)

    def changing(self, freeze: str) -> int:
        """Parameters that a sync sends each time: those that are trained, or that adapters are merged into."""
        frozen = {"none": 0, "vision": self.vision.parameters}
        both = self.vision.parameters + self.vision.projector_parameters
        return self.parameters - frozen.get(freeze, both)

    def picture_tokens(self, max_tiles: int | None, max_pixels: int | None) -> int | None:
        """Most tokens of one picture under the configured caps; None where there is no cap to count from."""
        if self.vision.tile_tokens is not None:
            tiles = max_tiles or 1
            return self.vision.tile_tokens * (tiles + 1 if tiles > 1 else 1)  # a thumbnail beside several tiles
        return max_pixels // self.vision.token_pixels if max_pixels else None


class UnknownShape(UserError):
    """The plan does without a model's numbers; the message says why. Whether a run can load it is another question."""


def read_architecture(path: str) -> Architecture:
    """Of a checkpoint folder, or of a hub name in the published table. Raises UnknownShape for any other."""
    if path.startswith(TINY):
        raise UnknownShape(f"{path} is made when a run starts")
    file = Path(path) / "config.json"
    if not file.is_file() and path not in PUBLISHED:
        raise UnknownShape(f"{path} is no folder with a config.json, and no published shape that is known here")
    try:
        architecture = parse_architecture(json.loads(file.read_text()) if file.is_file() else PUBLISHED[path])
        if architecture.parameters <= 0:
            raise ArithmeticError(f"{architecture.parameters} parameters")
        return architecture
    except KeyError as error:
        raise UnknownShape(f"the config.json of {path} has no {error.args[0]}") from error
    except UnknownShape as error:
        raise UnknownShape(f"the config.json of {path} {error}") from error
    except (OSError, ValueError) as error:
        raise UnknownShape(f"the config.json of {path} cannot be read: {error}") from error
    except (TypeError, AttributeError, ArithmeticError) as error:
        raise UnknownShape(f"the config.json of {path} has something else where a number or a section belongs") from error


def parse_architecture(config: dict) -> Architecture:
    """The numbers of a config.json.

    Raises UnknownShape, of what it is that is not counted here, KeyError for a number that is missing, and other errors
    for one that is none.
    """
    family = config["model_type"]
    if family not in VISION:
        raise UnknownShape(f"names the model type '{family}'; shapes are known of {', '.join(VISION)}")
    text, vision = config.get("text_config", config), config["vision_config"]
    if (decoder := text.get("model_type", DECODERS[0])) not in DECODERS:
        raise UnknownShape(f"names the language model '{decoder}'; shapes are known of {', '.join(DECODERS)}")
    tied = bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False)))
    language = Language(
        width=text["hidden_size"],
        mlp_width=text["intermediate_size"],
        layers=text["num_hidden_layers"],
        heads=text["num_attention_heads"],
        kv_heads=text["num_key_value_heads"],
        vocabulary=text["vocab_size"],
        tied=tied,
    )
    return Architecture(family, language, VISION[family](config, vision, language.width))


def _internvl_vision(config: dict, vision: dict, text_width: int) -> Vision:
    """A ViT with class token, learned positions, layer scale; 2 x 2 patches are one token of four times the width."""
    width, mlp, layers = vision["hidden_size"], vision["intermediate_size"], vision["num_hidden_layers"]
    (side, _), (patch, _) = _pair(vision["image_size"]), _pair(vision["patch_size"])
    patches, values = (side // patch) ** 2, vision.get("num_channels", 3) * patch**2
    biases = 3 * width if vision.get("attention_bias", False) else 0
    layer = 4 * width**2 + width + biases + 2 * width * mlp + mlp + width + 2 * width + 4 * width
    embeddings = (values + 1) * width + width + (patches + 1) * width
    merged = width * round(1 / config.get("downsample_ratio", 0.5)) ** 2
    projector = 2 * merged + (merged + 1) * text_width + (text_width + 1) * text_width
    tokens = config.get("image_seq_length", INTERNVL_IMAGE_TOKENS)
    return Vision(
        width=width,
        layers=layers,
        parameters=embeddings + layers * layer,
        projector_parameters=projector,
        patches_per_token=patches // tokens,
        values_per_patch=values,
        tile_tokens=tokens,
        token_pixels=side * side // tokens,
    )


def _qwen_vision(config: dict, vision: dict, text_width: int) -> Vision:
    """A ViT with RMSNorm and gated MLP; a merger joins `spatial_merge_size` squared patches to a token."""
    vision = QWEN2_5_VIT | vision
    width, mlp, layers = vision["hidden_size"], vision["intermediate_size"], vision["depth"]
    merge, patch = vision["spatial_merge_size"], vision["patch_size"]
    values = vision.get("in_channels", 3) * vision["temporal_patch_size"] * patch**2
    layer = 2 * width + (width + 1) * 3 * width + (width + 1) * width + 2 * (width + 1) * mlp + (mlp + 1) * width
    merged = width * merge**2
    merger = width + (merged + 1) * merged + (merged + 1) * vision["out_hidden_size"]
    return Vision(
        width=width,
        layers=layers,
        parameters=values * width + layers * layer,
        projector_parameters=merger,
        patches_per_token=merge**2,
        values_per_patch=values,
        tile_tokens=None,
        token_pixels=(patch * merge) ** 2,
    )


VISION = {"internvl": _internvl_vision, "qwen2_5_vl": _qwen_vision}
DECODERS = ("qwen2", "qwen2_5_vl_text", "qwen2_5_vl")  # `Language` in the words of config.json


def _pair(size: int | list[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
