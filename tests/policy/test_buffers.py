"""Buffers of a learner, and what they are there for: far from a prompt's start a position must still be what it is."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from plain_forward import plain_logprobs
from real_learners import found_in_learners, make_group, packed_group

from mixed_r1_ray.config import Config, LearnerConfig, ModelConfig
from mixed_r1_ray.policy.loading import load_policy
from mixed_r1_ray.policy.logprobs import PolicyModel
from mixed_r1_ray.vlm.tiny import save_tiny

FAR = dict(responses=2, length=64, words=4200)  # responses stand at positions beyond 4,096
MOST_POSITIONS = 8192
CASES = {  # model.dtype, learner.lora_rank
    "float32": ("float32", 0),
    "bfloat16": ("bfloat16", 0),
    "adapters": ("bfloat16", 4),
}


def buffers(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def find(folder: Path, learner) -> dict:
    """Buffers at the start, after a resume, and where what is written for others lies; log-probabilities far out."""
    from mixed_r1_ray.policy.state import load_training_state, take_snapshot

    with torch.no_grad():
        far = learner.engine(packed_group(learner.policy, **FAR))[0]
    start, settings = buffers(learner.policy.model), learner.config
    folder = folder / f"{settings.model.dtype} {settings.learner.lora_rank}"
    folder.mkdir()
    take_snapshot(learner).write(folder)
    load_training_state(learner, folder)
    return {"start": start, "resumed": buffers(learner.policy.model), "written": str(folder / "policy"), "far": far}


def configured(path: str) -> dict[str, Config]:
    return {
        name: Config(model=ModelConfig(path=path, dtype=dtype), learner=LearnerConfig(lora_rank=rank, freeze="vision"))
        for name, (dtype, rank) in CASES.items()
    }


@pytest.fixture(scope="module")
def long_checkpoint(checkpoint, tmp_path_factory) -> str:
    """The family's, for prompts of thousands of tokens."""
    folder = tmp_path_factory.mktemp("long") / "model"
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = MOST_POSITIONS
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.fixture(scope="module")
def found(long_checkpoint, tmp_path_factory) -> dict[str, dict]:
    folder = tmp_path_factory.mktemp("learners")
    return found_in_learners(configured(long_checkpoint), partial(find, folder), folder)


def plain_policy(path: str, dtype: str) -> PolicyModel:
    return load_policy(ModelConfig(path=path, dtype=dtype), 1.0).eval()


@pytest.mark.parametrize("case", CASES)
def test_buffers_are_those_of_a_plain_load_at_the_start_after_a_resume_and_in_what_is_written(
    found, long_checkpoint, family, case
):
    dtype, _ = CASES[case]
    plain = buffers(plain_policy(long_checkpoint, dtype).model)
    rotary = {"model.language_model.rotary_emb.inv_freq"}
    rotary |= {"model.visual.rotary_pos_emb.inv_freq"} if family == "qwen2_5_vl" else set()
    assert rotary <= plain.keys() and plain[min(rotary)].dtype == torch.float32
    written = buffers(plain_policy(found[case]["written"], dtype).model)
    for theirs in (found[case]["start"], found[case]["resumed"], written):
        assert theirs.keys() == plain.keys()
        for name, buffer in plain.items():
            assert theirs[name].dtype == buffer.dtype and torch.equal(theirs[name], buffer), name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_beyond_4096_positions_a_learner_says_what_the_reference_says(found, long_checkpoint, dtype):
    """The same operations on the same numbers, so not even rounding differs."""
    reference = plain_policy(long_checkpoint, dtype)
    packed = packed_group(reference, **FAR)
    assert packed.position_ids.max() > 4096
    with torch.no_grad():
        assert torch.equal(reference(packed)[0], found[dtype]["far"])


def test_beyond_4096_positions_a_learner_says_what_a_plain_forward_says(found, long_checkpoint):
    policy = plain_policy(long_checkpoint, "float32")
    inputs, responses = make_group(policy.adapter, **FAR)
    with torch.no_grad():
        plain = torch.cat([plain_logprobs(policy, inputs, response) for response in responses])
    torch.testing.assert_close(found["float32"]["far"], plain, atol=1e-4, rtol=0)


def give_tables() -> None:
    """Gives InternVL's language model buffers of which a checkpoint holds the values."""
    from transformers import Qwen2Model

    init = Qwen2Model.__init__

    def with_tables(self, config) -> None:
        init(self, config)
        self.register_buffer("table", torch.full((3,), 1 / 3, dtype=torch.float32))
        self.register_buffer("scale", torch.ones(3))
        self.register_buffer("steps", torch.arange(3))

    Qwen2Model.__init__ = with_tables


@pytest.mark.slow
def test_buffers_that_a_checkpoint_holds_are_read_as_a_plain_load_reads_them(tmp_path, monkeypatch):
    from transformers import Qwen2Model

    monkeypatch.setattr(Qwen2Model, "__init__", Qwen2Model.__init__)  # undone at the end
    give_tables()
    save_tiny(tmp_path / "model", "internvl", ["what is it?"])
    config = Config(model=ModelConfig(path=str(tmp_path / "model"), dtype="bfloat16"))
    found = found_in_learners({"tables": config}, find_buffers, tmp_path, give_tables)["tables"]
    plain = buffers(plain_policy(config.model.path, "bfloat16").model)
    dtypes = {name.rpartition(".")[2]: buffer.dtype for name, buffer in plain.items()}
    assert (dtypes["table"], dtypes["scale"], dtypes["steps"]) == (torch.float32, torch.bfloat16, torch.int64)
    assert found.keys() == plain.keys()
    for name, buffer in plain.items():
        assert found[name].dtype == buffer.dtype and torch.equal(found[name], buffer), name


def find_buffers(learner) -> dict[str, torch.Tensor]:
    return buffers(learner.policy.model)
