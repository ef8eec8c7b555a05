"""A checkpoint whose answers are of very different lengths: untrained, with a calibrated end-of-sequence row."""

from __future__ import annotations

from pathlib import Path

MEAN_LENGTH = 100  # of the geometric distribution, before it is cut at max_new_tokens
NUM_STATES = 4096  # states that the calibration looks at


def make_spread_checkpoint(like: str, folder: Path) -> Path:
    """The architecture and vocabulary of the checkpoint `like` with random weights, ending its answer with a
    probability of about 1 / MEAN_LENGTH at every token.

    The row of the output matrix that scores end-of-sequence is fitted to a constant over states of random text, and
    scaled until mean(p) = 1 / MEAN_LENGTH.
    """
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    torch.manual_seed(0)
    processor = AutoProcessor.from_pretrained(like)
    model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(like), dtype=torch.float32).eval()
    eos, media = processor.tokenizer.eos_token_id, model.config.image_token_id
    with torch.no_grad():
        text = torch.randint(len(processor.tokenizer), (NUM_STATES // 64, 64))
        text[text == media] = eos
        states = model.model(input_ids=text).last_hidden_state.flatten(0, 1)
        constant = torch.linalg.lstsq(states, torch.ones(len(states), 1)).solution.squeeze(1)
        logits = model.lm_head(states)
        logits[:, [eos, media]] = -torch.inf
        others = logits.logsumexp(1)
        low, high = -20.0, 20.0
        while high - low > 1e-4:
            middle = (low + high) / 2
            too_short = torch.sigmoid(middle * (states @ constant) - others).mean() > 1 / MEAN_LENGTH
            low, high = (low, middle) if too_short else (middle, high)
        model.lm_head.weight[eos] = low * constant
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
