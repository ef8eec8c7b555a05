"""Log-probabilities and entropy made a chunk at a time, against all scores at once and torch's own gradients."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mixed_r1_ray.policy import head
from mixed_r1_ray.policy.head import TokenLogprobs, token_logprobs

WIDTH, VOCABULARY, BANNED = 6, 11, (2, 7)
ROWS_A_CHUNK = 4
COUNTS = [0, 1, ROWS_A_CHUNK - 1, ROWS_A_CHUNK, ROWS_A_CHUNK + 1, 3 * ROWS_A_CHUNK, 3 * ROWS_A_CHUNK + 2]
TEMPERATURES = [1.0, 0.6]


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(head, "CHUNK_BYTES", ROWS_A_CHUNK * VOCABULARY * 8 + 7)  # float64


@dataclass
class Case:
    hidden: torch.Tensor
    weight: torch.Tensor
    targets: torch.Tensor

    @classmethod
    def of(cls, count: int, dtype=torch.float64, width=WIDTH, vocabulary=VOCABULARY) -> Case:
        random = torch.Generator().manual_seed(count)
        hidden = torch.randn(count, width, generator=random, dtype=torch.float64).to(dtype)
        weight = torch.randn(vocabulary, width, generator=random, dtype=torch.float64).to(dtype)
        targets = torch.randint(vocabulary, (count,), generator=random)
        return cls(hidden.requires_grad_(), weight.requires_grad_(), targets)


def whole(case: Case, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The formula on all scores at once."""
    scores = case.hidden @ case.weight.T
    bias = torch.tensor([-100.0 if token in BANNED else 0.0 for token in range(len(case.weight))], dtype=scores.dtype)
    logprobs = ((scores + bias) / temperature).log_softmax(1)
    return logprobs[torch.arange(len(case.targets)), case.targets], -(logprobs.exp() * logprobs).sum(1)


def gradients(case: Case, chosen: torch.Tensor, entropy: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
    """Of a weighted sum in which every row counts differently."""
    weights = torch.linspace(-1.0, 2.0, len(case.targets), dtype=chosen.dtype)
    loss = (chosen * weights).sum()
    if entropy is not None:
        loss = loss + (entropy * weights.flip(0).square()).sum()
    return torch.autograd.grad(loss, (case.hidden, case.weight))


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("count", COUNTS)
def test_values_and_gradients_are_those_of_the_whole_matrix(small_chunks, count, temperature):
    case = Case.of(count)
    ours = token_logprobs(case.hidden, case.weight, case.targets, BANNED, temperature)
    theirs = whole(case, temperature)
    assert ours[0].shape == ours[1].shape == (count,)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)
    assert ours[0].requires_grad and not ours[1].requires_grad
    torch.testing.assert_close(gradients(case, ours[0], None), gradients(case, theirs[0], None), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("count", COUNTS)
def test_entropy_has_its_own_gradient_where_it_is_asked_for(small_chunks, count, temperature):
    case = Case.of(count)
    ours = token_logprobs(case.hidden, case.weight, case.targets, BANNED, temperature, entropy_gradient=True)
    theirs = whole(case, temperature)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(gradients(case, *ours), gradients(case, *theirs), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("entropy_gradient", [False, True])
def test_gradients_match_finite_differences(small_chunks, entropy_gradient):
    case = Case.of(ROWS_A_CHUNK + 1)
    case.targets[:] = torch.tensor([0, 1, 3, 4, 5])  # log-probabilities of banned ones are too far from the rest

    def both(hidden, weight):
        chosen, entropy = token_logprobs(hidden, weight, case.targets, BANNED, 0.7, entropy_gradient)
        return (chosen, entropy) if entropy_gradient else chosen

    assert torch.autograd.gradcheck(both, (case.hidden, case.weight))


def test_values_written_out_for_two_rows():
    """The head is the identity: hidden states are the scores."""
    scores = torch.tensor([[1.0, 2.0, 3.0, 9.0], [0.0, -1.0, 0.5, 50.0]])
    logprobs, entropy = token_logprobs(scores, torch.eye(4), torch.tensor([2, 0]), (3,), temperature=0.5)
    for row, (chosen, total) in enumerate(zip(logprobs.tolist(), entropy.tolist(), strict=True)):
        scaled = scores[row, :3].double().numpy() / 0.5
        expected = scaled - np.log(np.exp(scaled).sum())
        assert chosen == pytest.approx(expected[[2, 0][row]], abs=1e-6)
        assert total == pytest.approx(-(np.exp(expected) * expected).sum(), abs=1e-6)


def test_only_what_is_trained_gets_a_gradient(small_chunks):
    expected = gradients(case := Case.of(9), *whole(case, 1.0))
    for trained in (0, 1):
        case = Case.of(9)
        (case.weight, case.hidden)[trained].requires_grad_(False)
        chosen, entropy = token_logprobs(case.hidden, case.weight, case.targets, BANNED, 1.0, entropy_gradient=True)
        weights = torch.linspace(-1.0, 2.0, 9, dtype=torch.float64)
        (chosen * weights).sum().add((entropy * weights.flip(0).square()).sum()).backward()
        parts = (case.hidden, case.weight)
        torch.testing.assert_close(parts[trained].grad, expected[trained])
        assert parts[1 - trained].grad is None


def test_without_a_gradient_nothing_asks_for_one(small_chunks):
    case = Case.of(9)
    with torch.no_grad():
        results = token_logprobs(case.hidden, case.weight, case.targets, BANNED, 1.0, entropy_gradient=True)
    assert not any(result.requires_grad for result in results)


@pytest.fixture
def narrow():
    return Case.of(300, torch.bfloat16, width=16, vocabulary=50)


def test_bfloat16_scores_become_float32_before_anything_is_exponentiated(narrow):
    ours = token_logprobs(narrow.hidden, narrow.weight, narrow.targets, BANNED, 0.6)
    scores = (narrow.hidden @ narrow.weight.T).float().double()
    scores[:, list(BANNED)] -= 100.0
    expected = (scores / 0.6).log_softmax(1)[torch.arange(300), narrow.targets]
    assert ours[0].dtype == ours[1].dtype == torch.float32
    torch.testing.assert_close(ours[0].double(), expected, atol=2e-5, rtol=1e-5)


def test_many_chunks_add_up_as_well_as_one_in_bfloat16(narrow, monkeypatch):
    """A sum kept in bfloat16 would lose the small ones."""
    exact = Case(*(part.detach().double().requires_grad_() for part in (narrow.hidden, narrow.weight)), narrow.targets)
    (_, expected), errors = gradients(exact, whole(exact, 1.0)[0], None), []
    for rows in (300, 1):
        monkeypatch.setattr(head, "CHUNK_BYTES", rows * 50 * 4)
        chosen, _ = token_logprobs(narrow.hidden, narrow.weight, narrow.targets, BANNED, 1.0)
        _, gradient = gradients(narrow, chosen, None)
        assert gradient.dtype == torch.bfloat16
        errors.append(float((gradient.double() - expected).norm() / expected.norm()))
    assert errors[1] <= 1.5 * errors[0] < 0.02


@dataclass
class Sizes:
    """Of the tensors of a forward and its backward."""

    kept: int = 0  # numbers of the largest one that is kept for the backward pass
    made: int = 0  # numbers of the largest one
    alive: int = 0  # most bytes of all that were alive at once, without those that were there before

    @classmethod
    def of(cls, run) -> Sizes:
        sizes, living = cls(), {}

        class Watch(TorchDispatchMode):
            def __torch_dispatch__(self, function, types, args=(), kwargs=None):
                result = function(*args, **(kwargs or {}))
                for tensor in (each for each in tree_leaves(result) if torch.is_tensor(each)):
                    living[id(tensor)] = weakref.ref(tensor)
                    sizes.made = max(sizes.made, tensor.numel())
                there = [tensor for tensor in (ref() for ref in living.values()) if tensor is not None]
                storages = [tensor.untyped_storage() for tensor in there]
                distinct = {storage.data_ptr(): storage.nbytes() for storage in storages}
                sizes.alive = max(sizes.alive, sum(distinct.values()))
                return result

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            sizes.kept = max(sizes.kept, tensor.numel())
            return tensor

        with Watch():
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                loss = run()
            loss.backward()
        return sizes


COUNT, NARROW, MANY, ROWS = 1000, 4, 2000, 50


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("entropy_gradient", [False, True])
def test_no_tensor_of_all_scores_is_kept_or_made(monkeypatch, entropy_gradient, dtype):
    monkeypatch.setattr(head, "CHUNK_BYTES", ROWS * MANY * 4)
    case = Case.of(COUNT, dtype, NARROW, MANY)

    def ours():
        parts = token_logprobs(case.hidden, case.weight, case.targets, BANNED, 0.7, entropy_gradient)
        return sum(part.sum() for part in parts)

    sizes = Sizes.of(ours)
    assert sizes.kept == MANY * NARROW  # the head itself
    assert sizes.made == ROWS * MANY
    assert sizes.alive < 2.4 * ROWS * MANY * 4  # two chunks; the rest is small here


def test_the_plain_way_makes_and_keeps_all_scores():
    """What is being saved; the counts above count."""
    case = Case.of(COUNT, torch.float32, NARROW, MANY)
    sizes = Sizes.of(lambda: whole(case, 0.7)[0].sum())
    assert sizes.kept == sizes.made == COUNT * MANY and sizes.alive >= 3 * COUNT * MANY * 4


def test_the_default_chunk_holds_what_it_says_at_a_real_vocabulary():
    weight = torch.empty(151_936, 1, device="meta")
    (rows,) = next(iter(head._chunks(weight, torch.empty(8192, 1, device="meta"))))
    assert len(rows) == 441 and 4 * len(rows) * len(weight) <= head.CHUNK_BYTES < 4 * (len(rows) + 1) * len(weight)


def test_a_row_larger_than_a_chunk_goes_alone(monkeypatch):
    monkeypatch.setattr(head, "CHUNK_BYTES", 1)
    case = Case.of(3)
    torch.testing.assert_close(
        token_logprobs(case.hidden, case.weight, case.targets, BANNED, 1.0), whole(case, 1.0), atol=1e-12, rtol=1e-12
    )


def test_the_module_reads_the_heads_own_weight():
    """As an update or a load leaves it."""
    linear, case = torch.nn.Linear(WIDTH, VOCABULARY, bias=False, dtype=torch.float64), Case.of(5)
    module = TokenLogprobs(linear)
    with torch.no_grad():
        linear.weight.copy_(case.weight)
    torch.testing.assert_close(module(case.hidden, case.targets, BANNED, 0.6), whole(case, 0.6), atol=1e-12, rtol=1e-12)
    assert module.weight is linear.weight
