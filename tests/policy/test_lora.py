"""LoRA adapters on a policy: what is trained, what the engine is given, and the model without them."""

from __future__ import annotations

import copy

import pytest
import torch

from mixed_r1_ray.config import ModelConfig
from mixed_r1_ray.policy.loading import load_policy
from mixed_r1_ray.policy.lora import adapters_off, add_lora, merged_parameters

LAYERS, LINEAR = 4, ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.fixture
def model(checkpoint):
    model = load_policy(ModelConfig(path=checkpoint), temperature=1.0, freeze="vision+projector").model.eval()
    add_lora(model, rank=4, alpha=8.0, seed=3)
    return model


def train(model) -> None:
    """Adapters with an effect, as they are after some steps."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.arange(10, 40).unsqueeze(0)).logits


def test_every_linear_layer_of_the_language_model_is_adapted_and_nothing_else_is_trained(model):
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert len(trained) == 2 * LAYERS * len(LINEAR)
    assert {name.split(".")[-4] for name in trained} == set(LINEAR)
    assert all(name.startswith("model.language_model.layers.") for name in trained)


def test_at_the_start_the_policy_is_its_reference(model, checkpoint):
    plain = load_policy(ModelConfig(path=checkpoint), temperature=1.0).model.eval()
    assert torch.equal(logits(model), logits(plain))


def test_the_same_seed_draws_the_same_adapters_whatever_was_drawn_before(model, checkpoint):
    torch.manual_seed(99)
    again = load_policy(ModelConfig(path=checkpoint), temperature=1.0).model
    add_lora(again, rank=4, alpha=8.0, seed=3)
    for (name, one), (_, two) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(one, two), name


def test_merged_parameters_are_a_whole_checkpoint_that_computes_the_same(model, checkpoint):
    train(model)
    plain = load_policy(ModelConfig(path=checkpoint), temperature=1.0).model.eval()
    merged = {parameter.name: parameter.value() for parameter in merged_parameters(model)}
    assert merged.keys() == dict(plain.named_parameters()).keys()
    before = logits(plain)
    plain.load_state_dict(merged, strict=False)
    torch.testing.assert_close(logits(plain), logits(model), atol=1e-4, rtol=1e-5)
    assert (logits(plain) - before).abs().max() > 0.1


def test_a_merged_weight_is_the_papers_formula_and_leaves_the_base_alone(model):
    train(model)
    layer = model.model.language_model.layers[1].mlp.up_proj
    base = layer.base_layer.weight.clone()
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    (merged,) = (one for one in merged_parameters(model) if one.name == "model.language_model.layers.1.mlp.up_proj.weight")
    expected = base.double() + 8.0 / 4 * up.double() @ down.double()
    torch.testing.assert_close(merged.value().double(), expected, atol=1e-6, rtol=0)
    assert torch.equal(layer.base_layer.weight, base)


def test_a_layer_changes_as_a_whole(model):
    """The language model's q, k, v have a bias, which no adapter changes; a norm, embeddings, head and tower have none."""
    changing = {parameter.name for parameter in merged_parameters(model) if parameter.changes}
    weights = {name for name in changing if name.endswith(".weight")}
    biases = changing - weights
    assert len(weights) == LAYERS * len(LINEAR) and {name.split(".")[-2] for name in weights} == set(LINEAR)
    assert {name.split(".")[-2] for name in biases} == {"q_proj", "k_proj", "v_proj"} and len(biases) == 3 * LAYERS
    assert all(name.startswith("model.language_model.layers.") for name in changing)


def test_adapters_off_is_the_base_model_and_they_come_back_trainable(model, checkpoint):
    train(model)
    plain = load_policy(ModelConfig(path=checkpoint), temperature=1.0).model.eval()
    adapted = logits(model)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    with adapters_off(model):
        assert torch.equal(logits(model), logits(plain))
    assert torch.equal(logits(model), adapted)
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == trained


def test_a_model_without_adapters_is_merged_as_it_is(checkpoint):
    model = load_policy(ModelConfig(path=checkpoint), temperature=1.0).model
    parameters = dict(model.named_parameters())
    for merged in merged_parameters(copy.deepcopy(model)):
        assert torch.equal(merged.value(), parameters.pop(merged.name))
    assert not parameters
