"""The packed forward against plain transformers forwards of one sample at a time, for both families."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from plain_forward import plain_logprobs

from mixed_r1_ray.config import ModelConfig
from mixed_r1_ray.policy.loading import freeze_parts, load_policy
from mixed_r1_ray.policy.logprobs import PolicyModel
from mixed_r1_ray.policy.packing import pack
from mixed_r1_ray.types import PromptInputs

TEMPERATURE = 0.8
PICTURE_SIZES = [
    [(112, 112)],
    [(60, 100), (112, 40)],
    [],
    [(30, 30), (112, 112), (90, 57)],
]  # a list a prompt


@dataclass
class Case:
    """A policy, and groups that mix no, one and several pictures, of several sizes, with responses of many lengths."""

    policy: PolicyModel
    prompts: list[PromptInputs]
    responses: list[list[np.ndarray]]


def make_case(path: str, picture_sizes=PICTURE_SIZES, **limits) -> Case:
    torch.manual_seed(0)
    policy = load_policy(ModelConfig(path=path, **limits), TEMPERATURE).eval()
    adapter, random = policy.adapter, np.random.default_rng(0)
    prompts, responses = [], []
    for number, sizes in enumerate(picture_sizes):
        pictures = [random.integers(0, 255, (height, width, 3), dtype=np.uint8) for width, height in sizes]
        text = adapter.prompt_text("Where is the red circle?" + " a" * number, len(pictures))
        prompts.append(adapter.encode(text, pictures))
        ordinary = sorted(set(range(len(adapter.tokenizer))) - set(adapter.banned_token_ids))
        lengths = random.integers(1, 9, size=3 if number else 1)
        responses.append([random.choice(ordinary, length).astype(np.int32) for length in lengths])
    return Case(policy, prompts, responses)


@pytest.fixture(scope="module")
def case(checkpoint) -> Case:
    return make_case(checkpoint)


def plain(case: Case) -> torch.Tensor:
    return torch.cat(
        [
            plain_logprobs(case.policy, prompt, response)
            for prompt, row in zip(case.prompts, case.responses, strict=True)
            for response in row
        ]
    )


def packed(case: Case) -> torch.Tensor:
    groups = pack(case.prompts, case.responses, case.policy.adapter, case.policy.model)
    return case.policy(groups)[0]


def gradients(policy: PolicyModel, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    policy.zero_grad()
    loss.backward()
    return {
        name: parameter.grad
        for name, parameter in policy.model.named_parameters()
        if parameter.grad is not None
    }


def test_log_probabilities_equal_plain_forwards(case):
    with torch.no_grad():
        torch.testing.assert_close(packed(case), plain(case), atol=1e-5, rtol=0)


def test_gradients_equal_plain_forwards_vision_tower_included(case):
    weights = torch.linspace(-1, 1, sum(len(response) for row in case.responses for response in row))
    ours = gradients(case.policy, (packed(case) * weights).sum())
    theirs = gradients(case.policy, (plain(case) * weights).sum())
    assert ours.keys() == theirs.keys()
    assert {case.policy.adapter.part_of(name) for name in ours} == {"vision", "projector", "language"}
    for name, gradient in theirs.items():
        scale = max(1.0, gradient.abs().max().item())
        torch.testing.assert_close(
            ours[name], gradient, atol=1e-5 * scale, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert max(g.abs().max() for n, g in theirs.items() if case.policy.adapter.part_of(n) == "vision") > 1e-3


def test_pictures_matter(case):
    """The comparison would also hold for a forward that ignores pictures; this one does not."""
    darker = [
        PromptInputs(
            prompt.input_ids,
            {name: a * 0.5 if a.dtype == np.float32 else a for name, a in prompt.pixels.items()},
        )
        for prompt in case.prompts
    ]
    with torch.no_grad():
        difference = (packed(case) - packed(Case(case.policy, darker, case.responses))).abs()
    lengths = [sum(len(response) for response in row) for row in case.responses]
    for prompt, part in zip(case.prompts, difference.split(lengths), strict=True):
        assert (part.max() > 1e-4) == bool(prompt.pixels)


def test_a_group_scores_the_same_alone_and_among_others(case):
    with torch.no_grad():
        together = packed(case)
        alone = [
            packed(Case(case.policy, [p], [r])) for p, r in zip(case.prompts, case.responses, strict=True)
        ]
    torch.testing.assert_close(torch.cat(alone), together, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def texts(case) -> Case:
    """The groups without a picture."""
    text_only = [(p, r) for p, r in zip(case.prompts, case.responses, strict=True) if not p.pixels]
    prompts, responses = map(list, zip(*text_only, strict=True))
    return Case(case.policy, prompts, responses)


def test_text_alone_needs_no_pictures(texts):
    with torch.no_grad():
        torch.testing.assert_close(packed(texts), plain(texts), atol=1e-5, rtol=0)


def test_text_alone_keeps_the_vision_tower_in_the_graph_at_gradient_zero(texts):
    """Ranks of ZeRO-3 gather weights in step: one that skipped the tower would hang those that see a picture."""
    ours = gradients(texts.policy, packed(texts).sum())
    theirs = gradients(texts.policy, plain(texts).sum())
    assert ours.keys() == dict(texts.policy.model.named_parameters()).keys()
    for name, gradient in ours.items():
        if texts.policy.adapter.part_of(name) == "language":
            torch.testing.assert_close(gradient, theirs[name], atol=1e-5, rtol=1e-4)
        else:
            assert not gradient.any(), name


def test_an_image_token_without_any_picture_is_named(texts):
    groups = pack(texts.prompts, texts.responses, texts.policy.adapter, texts.policy.model)
    groups.input_ids[0, -1] = texts.policy.adapter.image_token_id
    with pytest.raises(ValueError, match="1 image tokens in the prompts but 0 image features"):
        texts.policy(groups)


def test_several_tiles_a_picture_equal_plain_forwards(tiny_checkpoints):
    tiles = make_case(tiny_checkpoints["internvl"], [[(224, 112)], [(112, 336), (112, 112)]], max_tiles=4)
    assert len(tiles.prompts[0].pixels["pixel_values"]) == 3  # two tiles and a thumbnail
    with torch.no_grad():
        torch.testing.assert_close(packed(tiles), plain(tiles), atol=1e-5, rtol=0)


def test_image_tokens_without_features_are_named_not_scattered_wrongly(case):
    groups = pack(case.prompts[:1], case.responses[:1], case.policy.adapter, case.policy.model)
    groups.input_ids[0, -1] = case.policy.adapter.image_token_id  # as if the policy had said one
    with pytest.raises(ValueError, match="17 image tokens in the prompts but 16 image features"):
        case.policy(groups)


@pytest.fixture
def thawed(case):
    """Whatever a test freezes is trained again afterwards."""
    yield case
    freeze_parts(case.policy.model, case.policy.adapter, "none")


@pytest.mark.parametrize(
    ("freeze", "trained"),
    [
        ("none", {"vision", "projector", "language"}),
        ("vision", {"projector", "language"}),
        ("vision+projector", {"language"}),
    ],
)
def test_frozen_parts_get_no_gradient_and_the_others_the_same_as_before(thawed, freeze, trained):
    full = gradients(thawed.policy, packed(thawed).sum())
    policy = frozen(thawed, freeze)
    partial = gradients(policy, packed(Case(policy, thawed.prompts, thawed.responses)).sum())
    expected = {name for name in full if policy.adapter.part_of(name) in trained}
    assert partial.keys() == expected
    assert {policy.adapter.part_of(name) for name in expected} == trained
    for name, gradient in partial.items():
        torch.testing.assert_close(gradient, full[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("freeze", "tower", "projector"),
    [("none", True, True), ("vision", False, True), ("vision+projector", False, False)],
)
def test_a_frozen_tower_leaves_no_graph(thawed, freeze, tower, projector):
    """Activations are kept only of what comes behind the first trained parameter."""
    policy, kept = frozen(thawed, freeze), {}

    def watch(part: str):
        return lambda module, inputs, output: kept.update({part: output.grad_fn is not None})

    vision = policy.model.model.vision_tower if policy.adapter.model_type == "internvl" else policy.model.model.visual
    last = vision.encoder.layer[-1].mlp if policy.adapter.model_type == "internvl" else vision.blocks[-1].mlp
    behind = policy.model.model.multi_modal_projector if policy.adapter.model_type == "internvl" else vision.merger
    hooks = [last.register_forward_hook(watch("tower")), behind.register_forward_hook(watch("projector"))]
    packed(Case(policy, thawed.prompts, thawed.responses))
    for hook in hooks:
        hook.remove()
    assert kept == {"tower": tower, "projector": projector}


def frozen(case: Case, freeze: str) -> PolicyModel:
    train_vision = freeze_parts(case.policy.model, case.policy.adapter, freeze)
    return PolicyModel(case.policy.model, case.policy.adapter, TEMPERATURE, train_vision)
