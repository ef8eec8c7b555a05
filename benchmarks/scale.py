"""The step-time model of docs/scale.md: its prediction to a thousand GPUs, this machine's rates, its error on a run.

    python benchmarks/scale.py predict [conf=internvl_8b key=value …]   what each part takes as a run grows
    python benchmarks/scale.py machine                                  rates of this machine; starts Ray here
    python benchmarks/scale.py error runs/NAME [key=value …]            a run on this CPU: predicted and measured

`predict` repeats the configuration's GPUs and prompts k times. `error` wants a run without GPUs, not resumed; it
measures this machine's rates first, and leaves the run's first steps out.
"""

from __future__ import annotations

import json
import sys
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from mixed_r1_ray.cluster_plan import make_plan
from mixed_r1_ray.config import Config
from mixed_r1_ray.config_load import load_config
from mixed_r1_ray.environment import prepare_environment
from mixed_r1_ray.estimate import step_model
from mixed_r1_ray.placement import place, stated_nodes
from mixed_r1_ray.scale.architecture import read_architecture
from mixed_r1_ray.scale.hardware import Device, Efficiency, HostRates
from mixed_r1_ray.scale.step_time import Phase, StepModel

TIMES = (1, 8, 32, 125)  # of 8 GPUs: 8, 64, 256 and 1,000
MOST_TIMES = 400  # 3,200 GPUs
WARM_UP_STEPS = 5


def predict(words: list[str]) -> None:
    """Tables for prompts that grow with the GPUs and for prompts that do not, and where parts come to weigh."""
    base = load_config(words or ["conf=internvl_8b"])
    _show([_scaled(base, times) for times in TIMES], "prompts grow with the GPUs: seconds a step")
    ranks = [times for times in TIMES if base.learner.num_workers * times <= base.rollout.prompts_per_step]
    _show([_scaled(base, times, same_prompts=True) for times in ranks], "the same prompts on more GPUs: seconds a step")
    marks: dict[str, Callable[[dict[str, Phase]], bool]] = {
        "sync takes a tenth of the step": lambda part: part["sync"].seconds > 0.1 * _sum(part),
        "the driver is busy as long as engines generate": lambda part: _work(part["driver"]) > part["generate"].seconds,
        "collectives outlast the learner's arithmetic": lambda part: part["learn"].bound == "collectives",
        "pictures take as long as the step": lambda part: part["data"].seconds > 0,
    }
    for what, reached in marks.items():
        times = 1 + bisect_right(range(1, MOST_TIMES + 1), False, key=lambda times: reached(_phases(base, times)))
        gpus = f"{min(times, MOST_TIMES) * _gpus(base):,} GPUs"
        print(f"{what}: from {gpus} on" if times <= MOST_TIMES else f"{what}: not up to {gpus}")


def _phases(base: Config, times: int) -> dict[str, Phase]:
    return {phase.name: phase for phase in _scaled(base, times).phases()}


def _sum(phases: dict[str, Phase]) -> float:
    return sum(phase.seconds for phase in phases.values())


def _work(phase: Phase) -> float:
    return sum(phase.busy.values())


def _show(models: list[StepModel], title: str) -> None:
    columns = [f"{_gpus(model.config):,} GPUs" for model in models]
    table = Table("", *columns, title=title, title_justify="left")
    for name, *values in _lines(models):
        if any(value >= 0.005 for value in values):
            table.add_row(name, *(f"{value:,.2f}" for value in values))
    table.add_row("samples/s", *(f"{model.work.samples / model.seconds():,.1f}" for model in models))
    Console(width=120).print(table)


def _gpus(config: Config) -> int:
    return round(make_plan(config).needed()["GPU"])


def _scaled(base: Config, times: int, same_prompts: bool = False) -> StepModel:
    """Engines, learners, references, workers and prompts `times` as many, on nodes of `cluster.gpus_per_node`."""
    grown = {
        name: replace(section, num_workers=section.num_workers * times)
        for name in ("data", "rollout", "reward", "learner", "reference")
        for section in [getattr(base, name)]
    }
    prompts = base.rollout.prompts_per_step * (1 if same_prompts else times)
    grown["rollout"] = replace(grown["rollout"], prompts_per_step=prompts)
    nodes = -(-_gpus(base) * times // base.cluster.gpus_per_node)
    config = replace(base, **grown, cluster=replace(base.cluster, nodes=nodes))
    return step_model(config, read_architecture(config.model.path), place(make_plan(config), stated_nodes(config)))


def _lines(models: list[StepModel]):
    """Name of a part, and its value at each size: what the step waits for, then the work behind it."""
    phases = [model.phases() for model in models]
    for column in zip(*phases, strict=True):
        yield (column[0].name, *(phase.seconds for phase in column))
    yield ("step", *(model.seconds() for model in models))
    for column in zip(*phases, strict=True):
        for part in column[0].busy:
            yield (f"  work: {column[0].name}, {part}", *(phase.busy[part] for phase in column))
    yield ("  work: sync, from one node to all others", *(_from_one_node(model) for model in models))


def _from_one_node(model: StepModel) -> float:
    """Seconds of the transfer if no node passed the weights on."""
    rate = model.host.node_network_rate * model.efficiency.object_transfer
    return model.layout.engine_nodes_elsewhere * model.number * model.architecture.parameters / rate


def machine() -> tuple[Device, HostRates]:
    """Rates of this machine, one thread, as the model takes them."""
    import numpy as np
    import torch

    torch.set_num_threads(1)
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    flops = 2 * 1024**3 / _seconds(lambda: a @ b)
    source = np.ones(2**27, np.uint8)
    target = np.empty_like(source)
    copied = 2 * source.nbytes / _seconds(lambda: np.copyto(target, source))  # read and written
    group, put = _ray_rates()
    nothing = {"decode_step_s": 0.0, "microbatch_s": 0.0}
    host = HostRates(group_driver_s=group, object_put_rate=put, patch_s=_patch_seconds(), **nothing)
    return Device("this CPU", 0.0, copied, flops, copied, copied, copied), host


def _seconds(call: Callable[[], object], repeats: int = 20) -> float:
    """The best of some: a rate is a peak, and the machine may be busy."""
    call()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return min(times)


def _patch_seconds() -> float:
    """InternVL's own picture processor on a 1024 x 768 picture, at most 12 tiles, from its PNG bytes."""
    import io

    import numpy as np
    from PIL import Image
    from transformers import GotOcr2ImageProcessor

    pixels = np.random.default_rng(0).integers(0, 256, (768, 1024, 3), dtype=np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    size = {"height": 448, "width": 448}
    processor = GotOcr2ImageProcessor(size=size, crop_to_patches=True, min_patches=1, max_patches=12)

    def prepare():
        picture = np.asarray(Image.open(io.BytesIO(encoded.getvalue())).convert("RGB"))
        return processor(images=[picture], return_tensors="np", input_data_format="channels_last")

    tiles = len(prepare()["pixel_values"])
    return _seconds(prepare, repeats=5) / (tiles * (448 // 14) ** 2)


def _ray_rates() -> tuple[float, float]:
    """(driver's seconds for a group, bytes/s of ray.put): through the pools that a run uses, on small groups."""
    prepare_environment(load_config(["conf=quickstart"]))
    import numpy as np
    import ray

    from mixed_r1_ray.rollout.pool import RolloutPool
    from mixed_r1_ray.types import Group, GroupInfo, Prompt, Rollout, SamplingConfig

    @ray.remote
    class Echo:
        def generate(self, prompts, sampling, step, update):
            tokens = np.zeros(1024, np.int32)
            rollout = Rollout(0, tokens, tokens.astype(np.float32), tokens, "", True)
            for prompt in prompts:
                yield Group(prompt.prompt_id, tokens, (rollout,) * 8)
                yield GroupInfo(prompt.prompt_id, (1024,) * 8, (True,) * 8, 0)

        def take(self, group):
            return None

    local = {"address": "local", "_node_ip_address": "127.0.0.1", "include_dashboard": False, "log_to_driver": False}
    ray.init(num_cpus=4, object_store_memory=2**29, **local)
    try:
        engine, scorer = Echo.options(num_cpus=1).remote(), Echo.options(num_cpus=1).remote()
        prompts = [Prompt(f"p{n}", "", "matching", "", "", None, (), None, "", 1) for n in range(400)]
        pool, sampling = RolloutPool([engine], 120.0), SamplingConfig(8, 1024)
        for _ in range(2):  # the first round starts processes
            used = time.process_time()
            ray.wait([scorer.take.remote(done.group) for done in pool.generate(prompts, sampling, 0)], num_returns=400)
            cpu = time.process_time() - used
        block = np.ones(2**26, np.uint8)
        return cpu / 400, block.nbytes / _seconds(lambda: ray.put(block), repeats=10)
    finally:
        ray.shutdown()


def error(folder: Path, words: list[str]) -> None:
    """The run's medians beside the model with this machine's rates and nothing lost, nothing fitted."""
    device, host = machine()
    _show_rates(device, host)
    config = load_config([f"conf={folder / 'config.yaml'}", *words])
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [step for step in steps if "time/learn_s" in step][WARM_UP_STEPS:]

    def found(key: str) -> float:
        return median(step[key] for step in steps)

    mean = replace(config.cluster, mean_response_tokens=max(1, round(found("length/response_tokens"))))
    config = replace(config, cluster=mean)
    policy = next(folder.glob("checkpoints/*/policy"), None)  # a tiny model's path does not tell its shape
    architecture = read_architecture(str(policy or config.model.path))
    ideal = Efficiency(1, 1, 1, 1, 1, 1, 1)
    model = StepModel(config, architecture, device=device, efficiency=ideal, host=host)
    table = Table("phase", "measured s", "predicted s", "measured / predicted", title_justify="left")
    for phase in (model.generate(), model.reference(), model.learn(), model.sync()):
        measured = found(f"time/{phase.name}_s")
        table.add_row(phase.name, f"{measured:.3f}", f"{phase.seconds:.4f}", f"{measured / phase.seconds:.1f}")
    Console(width=100).print(table)


def _show_rates(device: Device, host: HostRates) -> None:
    print(f"matmul, one thread: {device.flops / 1e9:.0f} GFLOPS float32; copy: {device.memory_rate / 1e9:.1f} GB/s")
    print(f"ray.put: {host.object_put_rate / 1e9:.2f} GB/s; a picture: {host.patch_s * 1e6:.1f} us a patch")
    print(f"driver: {host.group_driver_s * 1e3:.2f} ms of its CPU a group")


def main() -> None:
    command, *words = sys.argv[1:] or ["predict"]
    if command == "machine":
        _show_rates(*machine())
    elif command == "error":
        error(Path(words[0]), words[1:])
    else:
        predict(words)


if __name__ == "__main__":
    main()
