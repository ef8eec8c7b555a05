"""A word-level tokenizer made from the texts it must cover.

It is lossless: a token keeps the space before its word, and decoding joins tokens without any. Numbers,
reasoning tags and placeholders are one token each.
"""

from __future__ import annotations

import string
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

WORDS = r" ?[A-Za-z]+| ?[0-9]+| ?[^A-Za-z0-9\s]|\s"
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
PAD, UNKNOWN, USER, ASSISTANT, END = "<|pad|>", "<|unknown|>", "<|user|>", "<|assistant|>", "<|end|>"


def build_tokenizer(texts: Iterable[str], media_tokens: dict[str, str]) -> PreTrainedTokenizerFast:
    """A tokenizer of every word in `texts`, every letter, mark of ASCII punctuation and number from 0 to 112.

    media_tokens: placeholders by the attribute under which the family's processor looks for them.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    split = pre_tokenizers.Split(Regex(WORDS), "isolated")
    words = {word.strip(" ") for text in texts for word, _ in split.pre_tokenize_str(text)}
    words |= {*string.ascii_letters, *string.punctuation, *(str(number) for number in range(113))}
    words -= {"", "\n"}
    vocabulary = [
        PAD,
        UNKNOWN,
        USER,
        ASSISTANT,
        END,
        "\n",
        " ",
        *sorted(words),
        *(f" {word}" for word in sorted(words)),
    ]

    ids = {word: index for index, word in enumerate(vocabulary)}
    backend = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    backend.pre_tokenizer = split
    backend.decoder = decoders.Fuse()
    backend.add_tokens(
        [AddedToken(tag, normalized=False) for tag in TAGS]
    )  # not special: decoding keeps them
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        extra_special_tokens={"user_token": USER, "assistant_token": ASSISTANT, **media_tokens},
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def chat_template(picture: str) -> str:
    """A chat template in Jinja. `picture`: what stands for one picture before the processor expands it."""
    return (
        "{% for message in messages %}"
        "{% if message['role'] == 'assistant' %}" + ASSISTANT + "{% endif %}"
        "{% if message['role'] == 'user' %}" + USER + "{% endif %}"
        "{% if message['content'] is string %}{{ message['content'] }}"
        "{% else %}{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}" + picture + "{% else %}{{ part['text'] }}{% endif %}"
        "{% endfor %}{% endif %}"
        "{% if message['role'] == 'assistant' %}" + END + "{% endif %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}" + ASSISTANT + "{% endif %}"
    )
