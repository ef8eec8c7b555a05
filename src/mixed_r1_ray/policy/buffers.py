"""Buffers, such as the frequencies of rotary positions, as a plain load of the checkpoint has them."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def restore_buffers(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Undoes what `deepspeed.zero.Init` did to the buffers of `model`, loaded in `dtype`: it rounds them to that.

    Those that a checkpoint does not hold are made anew outside of it; those that it holds were read in float32
    (DeepSpeed's `keep_in_fp32_modules`), and get the type that the class gives them.
    """
    from accelerate import init_empty_weights
    from transformers import AutoModelForImageTextToText

    with init_empty_weights(include_buffers=False):  # parameters take no memory
        plain = AutoModelForImageTextToText.from_config(
            deepcopy(model.config), dtype=dtype, attn_implementation="eager"
        )
    read = plain.state_dict().keys()
    for name, buffer in plain.named_buffers():
        own = model.get_buffer(name)
        own.data = own.data.to(buffer.dtype) if name in read else buffer.data
