"""Exported checkpoints: what transformers loads is what the run trained, and the card says where it is from."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import save_torch_state_dict
from safetensors.torch import save_file
from written_checkpoints import write_checkpoint

from mixed_r1_ray.config import Config
from mixed_r1_ray.export import export, main
from mixed_r1_ray.runtime.evaluation_table import EvalResult, save_results, summarise
from mixed_r1_ray.runtime.metrics import MetricsLog
from mixed_r1_ray.runtime.run_dir import open_run_dir

# step -> held-out task rewards of four prompts
HELD_OUT = {0: (0.0, 0.0, 1.0, 0.0), 1: (1.0, 0.0, 1.0, 1.0), 2: (1.0, 0.0, 1.0, 0.0)}


def load(folder):
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(folder).eval()


def train_one_step(model, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator))


def results(tasks) -> list[EvalResult]:
    return [
        EvalResult(f"p{i}", "matching", "shapes", "greedy", task, task, 1.0, "<answer>a</answer>")
        for i, task in enumerate(tasks)
    ]


def make_run(folder: Path, checkpoint: str, name: str = "one", dtype: str = "float32") -> Path:
    """A run of two steps with a checkpoint each, as the real one writes them, trained by noise."""
    config = Config()
    config = replace(
        config,
        run=replace(config.run, dir=str(folder), name=name),
        model=replace(config.model, path="someone/base-model", dtype=dtype),
        data=replace(config.data, system="Think ```first```\nthen answer."),
    )
    with open_run_dir(config) as run_dir:
        log = MetricsLog(run_dir.metrics_file)
        log.append(0, summarise(results(HELD_OUT[0])))
        save_results(run_dir.evals, 0, results(HELD_OUT[0]))
        model = load(checkpoint)
        for step in (1, 2):
            train_one_step(model, step)
            write_checkpoint(run_dir.checkpoints, step, lambda part: save(model, part, checkpoint, dtype))
            log.append(step, {"reward/mean": 0.5, "reward/matching": 0.5, "reward/source/shapes": 0.5})
            log.append(step, summarise(results(HELD_OUT[step])))
            save_results(run_dir.evals, step, results(HELD_OUT[step]))
        return run_dir.path


def save(model, part: Path, checkpoint: str, dtype: str) -> None:
    (part / "policy").mkdir()
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    save_torch_state_dict({name: weight.to(getattr(torch, dtype)) for name, weight in weights.items()}, part / "policy")
    for file in Path(checkpoint).glob("*"):
        if file.suffix != ".safetensors":
            shutil.copy(file, part / "policy")
    for rank in (0, 1):  # two ranks' pieces, the second one padded
        pieces = {}
        for name, weight in weights.items():
            if "lm_head" in name:
                half = -(-weight.numel() // 2) + 1
                flat = torch.cat([weight.flatten(), torch.full((2 * half - weight.numel(),), 9.0)])
                pieces[f"weight/{name}"] = flat[rank * half : (rank + 1) * half].clone()
        pieces["optimizer_steps"] = torch.tensor(1)
        save_file(pieces, part / f"optimizer-0000{rank}-of-00002.safetensors")


@pytest.fixture(scope="module")
def run(tiny_checkpoints, tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs"), tiny_checkpoints["internvl"])


def logprobs(model, folder) -> torch.Tensor:
    """Of one prompt with a picture, by nothing but transformers."""
    import numpy as np
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    picture = np.random.default_rng(0).integers(0, 255, (112, 112, 3), dtype=np.uint8)
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Where is the red circle?"}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    inputs = processor(text=[text], images=[picture], return_tensors="pt")
    with torch.no_grad():
        return model(**inputs).logits.log_softmax(-1)


def test_transformers_loads_the_trained_policy_and_gives_its_log_probabilities(checkpoint, tmp_path):
    run = make_run(tmp_path, checkpoint)
    out = export(run)
    trained = load(checkpoint)
    for step in (1, 2):
        train_one_step(trained, step)
    assert out == run / "export" / "step_000002"
    torch.testing.assert_close(logprobs(load(out), out), logprobs(trained, checkpoint), atol=1e-5, rtol=0)
    assert (logprobs(load(out), out) - logprobs(load(checkpoint), checkpoint)).abs().max() > 1e-2  # it was trained


def test_tied_embeddings_stay_tied(checkpoint, tmp_path):
    plain = load(checkpoint)
    plain.config.tie_word_embeddings = plain.config.text_config.tie_word_embeddings = True
    base = shutil.copytree(checkpoint, tmp_path / "base")
    type(plain)(plain.config).save_pretrained(base)
    out = export(make_run(tmp_path, str(base)))
    trained, exported = load(base), load(out)
    for step in (1, 2):
        train_one_step(trained, step)
    assert exported.lm_head.weight is exported.get_input_embeddings().weight
    torch.testing.assert_close(logprobs(exported, out), logprobs(trained, base), atol=1e-5, rtol=0)


def test_a_bfloat16_run_exports_what_it_computed_with_or_the_masters_in_float32(tiny_checkpoints, tmp_path):
    run = make_run(tmp_path, tiny_checkpoints["internvl"], dtype="bfloat16")
    trained = load(tiny_checkpoints["internvl"])
    for step in (1, 2):
        train_one_step(trained, step)
    masters = trained.lm_head.weight.detach().flatten()
    for dtype, expected in ((None, masters.bfloat16()), ("float32", masters)):
        weight = load(export(run, out=tmp_path / str(dtype), dtype=dtype)).lm_head.weight
        assert weight.dtype == expected.dtype and torch.equal(weight.flatten(), expected)


def test_best_is_the_step_of_the_largest_held_out_mean_and_a_number_is_that_step(run, tmp_path):
    assert "# one, step 1\n" in (export(run, "best", tmp_path / "best") / "README.md").read_text()
    assert "# one, step 2\n" in (export(run, "2", tmp_path / "two") / "README.md").read_text()


def test_card_tells_origin_recipe_results_and_versions(run, tmp_path):
    text = (export(run, "1", tmp_path / "out") / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    assert yaml.safe_load(head)["base_model"] == "someone/base-model"
    # before .25 ± .25, after .75 ± .25; differences 1, 0, 0, 1: mean .5, standard error sqrt(1/3)/2
    assert "| Matching | greedy | 4 | 0.250 ± 0.250 | 0.750 ± 0.250 | +0.500 ± 0.289 |" in body
    for said in ("algo.loss | grpo", "learner.learning&#95;rate | 1e-06", "sources: shapes", "torch 2.", "Licence"):
        assert said in body, said
    assert '"system": "Think ```first```\\nthen answer."' in body


def test_a_step_without_an_evaluation_says_which_one_is_shown(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy", symlinks=True)
    (copy / "evals" / "step_000002.parquet").unlink()
    text = (export(copy, "2", tmp_path / "out") / "README.md").read_text()
    assert "Step 2 was not evaluated; these are the results after step 1" in text


def test_what_exists_is_not_written_over(run, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    assert main([str(run), "--out", str(tmp_path / "out")]) == 2
    assert "exists and is not written over" in capsys.readouterr().err
    assert not any((tmp_path / "out").iterdir())


def test_an_unknown_run_and_an_unknown_step_are_named_with_the_valid_ones(run, capsys):
    assert main([str(run.with_name("on"))]) == 2
    assert f"{run.with_name('on')} is no folder of a run" in (said := capsys.readouterr().err) and ": one" in said
    assert main([str(run), "--step", "7"]) == 2
    assert "no checkpoint '7'; there are 1, 2, latest and best" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_passed_over_by_latest_and_refused_by_number(run, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "copy", symlinks=True)
    weights = copy / "checkpoints" / "step_000002" / "policy" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert main([str(copy), "--step", "2"]) == 2
    assert "policy/model.safetensors is damaged" in capsys.readouterr().err
    assert main([str(copy)]) == 0
    said = capsys.readouterr()
    assert "passed over" in said.err and said.out.strip().endswith("step_000001")


def test_weights_that_are_not_finite_are_passed_over_by_latest_and_best_and_refused_by_number(run, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "copy", symlinks=True)
    broken = load(copy / "checkpoints" / "step_000001" / "policy")
    with torch.no_grad():
        broken.lm_head.weight[0, 0] = torch.nan
    kept = copy / "checkpoints" / "step_000001"
    for step in (1, 3):  # the best one and the latest one, as an older version would have written them
        write_checkpoint(copy / "checkpoints", step, lambda part: save(broken, part, str(kept / "policy"), "float32"))
    for which in ("best", "latest"):
        assert main([str(copy), "--step", which, "--out", str(tmp_path / which)]) == 0
        said = capsys.readouterr().err
        assert "passed over" in said and "lm_head.weight holds 1 numbers that are not finite" in said
        assert "# one, step 2\n" in (tmp_path / which / "README.md").read_text()
    assert main([str(copy), "--step", "3"]) == 2
    assert "lm_head.weight holds 1 numbers" in capsys.readouterr().err


def test_an_export_that_fails_leaves_nothing_behind(run, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mixed_r1_ray.export.model_card", full)
    assert main([str(run), "--out", str(tmp_path / "out")]) == 2
    assert list(tmp_path.iterdir()) == []
