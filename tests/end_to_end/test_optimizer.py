"""The update that DeepSpeed makes on a ZeRO-3 shard is AdamW's, from the first step on."""

from __future__ import annotations

import pytest
import torch

BETAS = (0.9, 0.95)


def checkpoint(run, step: int) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(run.folder / "checkpoints" / f"step_{step:06d}" / "optimizer-00000-of-00001.safetensors")


def initial_weights(cache) -> dict[str, torch.Tensor]:
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(next(cache.glob("tiny-internvl-*")), dtype=torch.float32)
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def gradients(before: dict, after: dict, names: list[str]) -> dict[str, torch.Tensor]:
    """The (clipped) gradients of a step, out of AdamW's first moment: m' = beta_1 m + (1 - beta_1) g."""
    return {
        name: (after[f"exp_avg/{name}"].double() - BETAS[0] * before[f"exp_avg/{name}"].double()) / (1 - BETAS[0])
        for name in names
    }


@pytest.mark.parametrize("step", [1, 2, 4])
def test_update_is_plain_adamw_with_its_bias_correction(plain_run, cache, step):
    metrics = next(line for line in plain_run.metrics() if line["step"] == step and "grad_norm" in line)
    after = checkpoint(plain_run, step)
    names = [name.removeprefix("weight/") for name in after if name.startswith("weight/")]
    if step == 1:
        before = {f"weight/{name}": weight for name, weight in initial_weights(cache).items() if name in names}
        before |= {f"exp_avg/{name}": torch.zeros_like(after[f"weight/{name}"]) for name in names}
        before |= {f"exp_avg_sq/{name}": torch.zeros_like(after[f"weight/{name}"]) for name in names}
    else:
        before = checkpoint(plain_run, step - 1)
    gradient = gradients(before, after, names)

    parameters = [torch.nn.Parameter(before[f"weight/{name}"].double().clone()) for name in names]
    plain = torch.optim.AdamW(parameters, lr=metrics["learning_rate"], betas=BETAS, weight_decay=0.0)
    for name, parameter in zip(names, parameters, strict=True):
        parameter.grad = gradient[name].view_as(parameter)
        plain.state[parameter] = {
            "step": torch.tensor(float(step - 1)),
            "exp_avg": before[f"exp_avg/{name}"].double().view_as(parameter).clone(),
            "exp_avg_sq": before[f"exp_avg_sq/{name}"].double().view_as(parameter).clone(),
        }
    plain.step()

    moved = 0.0
    for name, parameter in zip(names, parameters, strict=True):
        expected = parameter.detach()
        assert (after[f"weight/{name}"].view_as(expected) - expected).abs().max() <= 1e-7, name
        moved = max(moved, float((expected - before[f"weight/{name}"].view_as(expected)).abs().max()))
    assert moved == pytest.approx(metrics["learning_rate"], rel=0.5)  # AdamW's steps are about this long
    norm = torch.sqrt(sum((part**2).sum() for part in gradient.values()))
    assert float(norm) == pytest.approx(min(metrics["grad_norm"], 1.0), rel=1e-3)
