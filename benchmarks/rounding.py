"""How far engine and trainer are apart by rounding, by the size of a token's log-probability.

    python benchmarks/rounding.py FOLDER [--dtype float32] [--prompts 512]

FOLDER is a checkpoint of the quickstart's model: runs/.cache/tiny-internvl-…, or the policy/ of a run's checkpoint. A
vLLM engine samples eight answers to prompts of the quickstart's training split, the trainer reads them, and a row is
printed for tokens of each size: their number, the median and the largest difference, and the largest as the guard holds
it against guard.max_logprob_mismatch.
"""

from __future__ import annotations

import argparse

import numpy as np

from mixed_r1_ray.config import Config
from mixed_r1_ray.config_load import load_config
from mixed_r1_ray.environment import prepare_environment
from mixed_r1_ray.guard import LOGPROB_MISMATCH, Guard, TokenDifferences

BANDS = (0, 0.01, 0.1, 0.5, 1, 2, 4, 8, np.inf)  # nats
TOGETHER = 16  # prompts that the trainer reads at once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="checkpoint of a tiny model")
    parser.add_argument("--dtype", default="float32", choices=LOGPROB_MISMATCH)
    parser.add_argument("--prompts", type=int, default=512)
    options = parser.parse_args()
    config = load_config(["conf=quickstart", f"model.path={options.folder}", f"model.dtype={options.dtype}"])
    prepare_environment(config)
    engine, trainer = read_both(config, options.prompts)
    print_table(TokenDifferences.of(engine, trainer, Guard.from_config(config).likely), -trainer)


def read_both(config: Config, num_prompts: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of all sampled tokens, the engine's and the trainer's."""
    from mixed_r1_ray.policy.loading import load_policy
    from mixed_r1_ray.policy.reading import read_logprobs
    from mixed_r1_ray.rollout.engine import Engine, EngineRequest
    from mixed_r1_ray.types import Reading, SamplingConfig
    from torch import inference_mode

    engine = Engine(config)
    prompts = {each.prompt.prompt_id: each for each in make_prompts(config, engine.adapter, num_prompts)}
    requests = [EngineRequest(key, each.prompt.text, each.images) for key, each in prompts.items()]
    rollout = config.rollout
    sampling = SamplingConfig(rollout.group_size, rollout.max_new_tokens, rollout.temperature)
    groups = list(engine.generate(requests, sampling, step=1))
    policy = load_policy(config.model, rollout.temperature).eval()
    theirs, ours = [], []
    for start in range(0, len(groups), TOGETHER):
        part = groups[start : start + TOGETHER]
        theirs += [one.logprobs for group in part for one in group.rollouts]
        inputs = [prompts[group.prompt_id].inputs for group in part]
        responses = [[one.token_ids for one in group.rollouts] for group in part]
        with inference_mode():
            ours += read_logprobs(policy, policy, inputs, responses, Reading())
    return np.concatenate(theirs), np.concatenate(ours)


def make_prompts(config: Config, adapter, number: int) -> list:
    """Evenly over the quickstart's training records."""
    from mixed_r1_ray.data.reader import RecordTable
    from mixed_r1_ray.data.synthetic import build_quickstart_data
    from mixed_r1_ray.data.worker import prepare_record

    tiny = config.tiny
    train, _ = build_quickstart_data(tiny.cache_dir, tiny.seed, tiny.train_per_type, tiny.eval_per_type)
    table = RecordTable(str(train), config.data.max_bad_fraction, config.data.cache_dir)
    places = np.linspace(0, len(table.rows) - 1, number).astype(int).tolist()
    return [prepare_record(table.record(place), table.where(place), adapter, config) for place in places]


def print_table(found: TokenDifferences, nats: np.ndarray) -> None:
    sizes, held = found.sizes, found.scaled
    print(f"\n{len(nats)} tokens: mean {sizes.mean():.1e}, largest {sizes.max():.1e}, held {held.max():.1e}\n")
    print("| -log-probability | tokens | median | largest | held against the bound |\n|---|---|---|---|---|")
    for least, most in zip(BANDS, BANDS[1:]):
        of = (nats >= least) & (nats < most)
        if of.any():
            row = f"{of.sum()} | {np.median(sizes[of]):.1e} | {sizes[of].max():.1e} | {held[of].max():.1e}"
            print(f"| {least:g} to {most:g} | {row} |")


if __name__ == "__main__":
    main()
