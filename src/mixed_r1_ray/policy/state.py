"""What a learner must keep to go on exactly: fp32 weights and AdamW's moments, apart from how many ranks held them.

Every rank keeps what ZeRO-3 gave it: one piece of each parameter, flat. Nothing is sent for it, and since the pieces of
all ranks one after the other are the parameter and some padding, any number of ranks can read them back.

    folder/optimizer-00000-of-00002.safetensors   weight/NAME, exp_avg/NAME, exp_avg_sq/NAME (float32), optimizer_steps
           policy/                                an ordinary checkpoint: config, weights, processor
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mixed_r1_ray.errors import UserError
from mixed_r1_ray.policy.adamw import MOMENTS
from mixed_r1_ray.runtime.checkpoints import Files, Unusable, seal

if TYPE_CHECKING:
    from mixed_r1_ray.policy.learner import PolicyLearner

MOST_WEIGHT = 1e18  # their squares are near float32's end, and norms over them make zeros of infinities (choice)
MOST_MOMENT = torch.finfo(torch.float32).max
MOST_RANKS = 4096  # a parameter's padding is shorter than the number of ranks that wrote it


@dataclass(frozen=True)
class TrainingSnapshot:
    """One rank's share of a step's state in host memory: nothing of it changes while the learner goes on."""

    rank: int
    num_ranks: int
    share: dict[str, torch.Tensor]
    weights: dict[str, torch.Tensor]  # of the policy; empty but on rank 0
    describe_policy: Callable[[Path], None]  # writes configs and processor

    def write(self, folder: Path) -> Files:
        """Writes and seals this rank's files. Raises UserError naming the rank and what it could not write.

        Nor is anything written that is broken.
        """
        from huggingface_hub import save_torch_state_dict
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        if broken := first_broken((self.share | self.weights).items()):
            raise UserError(f"learner[{self.rank}]: {broken}: no checkpoint was made of it")
        writing = shard = folder / f"optimizer-{self.rank:05d}-of-{self.num_ranks:05d}.safetensors"
        try:
            save_file(self.share, shard)
            files = seal(folder, shard)
            if self.rank == 0:
                writing = folder / "policy"
                writing.mkdir()
                save_torch_state_dict(self.weights, writing)
                self.describe_policy(writing)
                for path in sorted(path for path in (folder / "policy").rglob("*") if path.is_file()):
                    writing = path
                    files |= seal(folder, path)
        except (OSError, SafetensorError) as error:
            raise UserError(f"learner[{self.rank}] could not write {writing}: {error}") from error
        return files


def is_within(tensor: torch.Tensor, most: float) -> bool:
    """Whether all its numbers are from -most to most; what is not a number is not."""
    if not tensor.numel():
        return True
    low, high = tensor.aminmax()
    return bool(-most <= low) and bool(high <= most)


def first_broken(named: Iterable[tuple[str, torch.Tensor]]) -> str | None:
    """The first that holds numbers that are not finite or, as weights, no use, and how many; None where none does."""
    for name, tensor in named:
        most = MOST_MOMENT if name.startswith(MOMENTS) else MOST_WEIGHT
        if not is_within(tensor, most):
            number, kind = int((~tensor.isfinite()).sum()), "that are not finite"
            if not number:
                number, kind = int((tensor.abs() > most).sum()), f"of more than {most:g}"
            return f"{name} holds {number} numbers {kind}"
    return None


def take_snapshot(learner: PolicyLearner) -> TrainingSnapshot:
    """Copies this rank's share of the state to host memory; all ranks must call."""
    share = {}
    for name, piece in own_pieces(learner, padded=True):
        share[name] = piece.detach().to("cpu", copy=True)
    for name, piece in own_pieces(learner):
        share[name][piece.numel() :] = 0.0  # padding, of which ZeRO-3 says nothing
    share["optimizer_steps"] = torch.tensor(learner.optimizer_steps())
    return TrainingSnapshot(
        rank=learner.rank,
        num_ranks=learner.num_ranks,
        share=share,
        weights=learner.outgoing.gathered(),
        describe_policy=lambda folder: _describe_policy(learner, folder),
    )


def own_pieces(learner: PolicyLearner, padded: bool = False) -> Iterator[tuple[str, torch.Tensor]]:
    """This rank's part of each trained parameter's float32 weight and moments, by their names in a checkpoint; flat.

    padded: with what ZeRO-3 fills up the last rank's part with.
    """
    from deepspeed.utils import safe_get_local_fp32_param, safe_get_local_optimizer_state

    for name, parameter in _trained(learner):
        pieces = {"weight": safe_get_local_fp32_param(parameter)}
        pieces |= {moment: safe_get_local_optimizer_state(parameter, moment) for moment in MOMENTS}
        for kind, piece in pieces.items():
            own = piece.numel() if padded else max(0, parameter.ds_numel - learner.rank * piece.numel())
            yield f"{kind}/{name}", piece[:own]


def load_training_state(learner: PolicyLearner, folder: Path) -> None:
    """Takes over what any number of snapshots wrote. Raises UserError where the shards do not hold this model.

    Raises Unusable, before anything is changed, where they hold numbers that are broken.
    """
    import deepspeed
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

    pieces = read_pieces(folder)
    for name, parameter in _trained(learner):
        size = parameter.ds_numel
        weight = pieces.get(f"weight/{name}", torch.empty(0))
        if not size <= weight.numel() < size + MOST_RANKS:
            raise UserError(f"checkpoint {folder}: holds no {name} of {size} numbers; another model's?")
        of_parameter = [f"{kind}/{name}" for kind in ("weight", *MOMENTS)]
        pieces |= {piece: pieces[piece][:size].view(parameter.ds_shape) for piece in of_parameter}
    if broken := first_broken(pieces.items()):
        raise Unusable(f"checkpoint {folder}: {broken}")
    for name, parameter in _trained(learner):
        weight = pieces[f"weight/{name}"]
        safe_set_full_fp32_param(parameter, weight)  # AdamW's copy; the model's own follows
        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            parameter.data.copy_(weight)
        for moment in MOMENTS:
            safe_set_full_optimizer_state(parameter, pieces[f"{moment}/{name}"], moment)
    learner.set_optimizer_steps(int(pieces["optimizer_steps"][0]))


def read_pieces(folder: Path, kind: str = "") -> dict[str, torch.Tensor]:
    """What all ranks wrote, of one `kind` or all: each parameter flat, with its padding at the end."""
    from safetensors import safe_open

    pieces: dict[str, list[torch.Tensor]] = {}
    for shard in sorted(folder.glob("optimizer-*-of-*.safetensors")):
        with safe_open(shard, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118 (no mapping)
                if key.startswith(kind):
                    pieces.setdefault(key, []).append(tensors.get_tensor(key).flatten())
    return {key: torch.cat(of_ranks) for key, of_ranks in pieces.items()}


def check_policy_files(folder: Path) -> None:
    """Raises Unusable where a weight in the checkpoint's `policy/` is broken."""
    from safetensors import safe_open

    for file in sorted((folder / "policy").glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            named = ((name, tensors.get_tensor(name)) for name in tensors.keys())  # noqa: SIM118 (no mapping)
            if broken := first_broken(named):
                raise Unusable(f"checkpoint {folder}: {broken}")


def _trained(learner: PolicyLearner) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, parameter) for name, parameter in learner.policy.model.named_parameters() if parameter.requires_grad]


def _describe_policy(learner: PolicyLearner, folder: Path) -> None:
    learner.policy.model.config.save_pretrained(folder)
    learner.policy.model.generation_config.save_pretrained(folder)
    learner.adapter.processor.save_pretrained(folder)
