"""Where AdamW's state lies, and that it was elsewhere meanwhile, changes nothing in what it does."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest

from mixed_r1_ray.config import Config
from mixed_r1_ray.config_load import load_config
from mixed_r1_ray.vlm.tiny import save_tiny

CASES = {"none": "none", "optimizer": "optimizer", "asleep in between": "none", "asleep with offload": "optimizer"}


def _two_updates(config: Config, address: str, name: str, answers) -> None:
    from mixed_r1_ray.environment import prepare_environment
    from mixed_r1_ray.policy.learner import PolicyLearner, Rendezvous
    from mixed_r1_ray.policy.packing import pack

    prepare_environment(config)
    learner = PolicyLearner(config, Rendezvous(address, 0, 1))
    inputs = learner.adapter.encode(learner.adapter.prompt_text("what is it?", 1), [np.zeros((56, 56, 3), np.uint8)])
    for _ in range(2):
        logprobs, _ = learner.engine(pack([inputs], [[np.arange(3, 30, dtype=np.int32)]], learner.adapter, learner.policy.model))
        learner.engine.set_gradient_accumulation_boundary(True)
        learner.engine.backward(logprobs.mean())
        learner.engine.step()
        if name.startswith("asleep"):
            learner.sleep()
            learner.wake()
    answers.put((name, {key: tensor.numpy() for key, tensor in learner.outgoing.gathered().items()}))


@pytest.mark.slow
@pytest.mark.parametrize("freeze", ["none", "vision"])
def test_an_update_of_offloaded_state_or_after_sleep_is_the_update(tmp_path, freeze):
    save_tiny(tmp_path / "model", "internvl", ["what is it?"])
    spawn, weights = multiprocessing.get_context("spawn"), {}
    for name, offload in CASES.items():
        words = [f"model.path={tmp_path / 'model'}", f"learner.offload={offload}", f"learner.freeze={freeze}"]
        words.append("learner.learning_rate=0.01")
        answers = spawn.Queue()
        arguments = (load_config(["conf=quickstart", *words]), f"file://{tmp_path}/{len(weights)}", name, answers)
        process = spawn.Process(target=_two_updates, args=arguments)
        process.start()
        try:
            weights.update([answers.get(timeout=180)])
        finally:
            process.join(10)
            process.kill()
    for name, tensor in weights["none"].items():
        for other in CASES:
            assert np.abs(weights[other][name] - tensor).max() <= 1e-6 + 1e-5 * np.abs(tensor).max(), (other, name)
    from transformers import AutoModelForImageTextToText

    before = AutoModelForImageTextToText.from_pretrained(tmp_path / "model").state_dict()
    moved = max(float(np.abs(weights["none"][name] - before[name].numpy()).max()) for name in weights["none"])
    assert moved > 0.01
