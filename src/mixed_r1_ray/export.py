"""`python -m mixed_r1_ray.export RUN`: a checkpoint as an ordinary Hugging Face folder, with a model card."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from mixed_r1_ray.errors import UserError
from mixed_r1_ray.runtime import atomic
from mixed_r1_ray.runtime.checkpoint_choice import DEFAULT_METRIC, choose_checkpoint
from mixed_r1_ray.runtime.checkpoints import Checkpoint
from mixed_r1_ray.runtime.model_card import model_card
from mixed_r1_ray.runtime.run_config import read_config
from mixed_r1_ray.runtime.run_dir import RunFiles

if TYPE_CHECKING:
    from transformers import PreTrainedModel

EXIT_UNUSABLE = 2
EXIT_INTERRUPTED = 130
DTYPES = ("bfloat16", "float32")
SHARD_SIZE = "5GB"
FILE_MODE = 0o644  # safetensors writes files that only their owner may read


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 2 where the run, the step or the output is no use."""
    arguments = _parser().parse_args(argv)
    try:
        print(export(arguments.run, arguments.step, arguments.out, arguments.dtype))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_UNUSABLE
    except KeyboardInterrupt:
        print("interrupted; nothing was exported", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def export(run: Path, which: str = "latest", out: Path | None = None, dtype: str | None = None) -> Path:
    """Writes weights, configs, processor and card of a run's checkpoint, all or nothing; returns the folder.

    which: a step, `latest` (the newest usable one) or `best` (by `run.keep_best`, else eval/greedy/mean).
    dtype: of the weights; None keeps that of the checkpoint. Trained weights in float32 are those that AdamW holds.
    Raises UserError where there is no such run or checkpoint, a file of it is damaged, or `out` exists.
    """
    files = _open(run)
    config, _ = read_config(files.config_file)
    metric = config["run"].get("keep_best") or DEFAULT_METRIC
    checkpoint, faults = choose_checkpoint(files, which, metric, _check_weights)
    for fault in faults:
        print(f"passed over: {fault}", file=sys.stderr)
    out = out or run / "export" / checkpoint.path.name
    if out.exists() or out.is_symlink():
        raise UserError(f"{out} exists and is not written over; remove it or give another --out")
    dtype = dtype or config["model"]["dtype"]
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of an export that was killed
    try:
        partial.mkdir(parents=True)
        _write(checkpoint.path, partial, dtype)
        (partial / "README.md").write_text(model_card(files, checkpoint.step, dtype), encoding="utf-8")
        for path in sorted(partial.rglob("*")):
            path.chmod(FILE_MODE)
            atomic.flush_to_disk(path)
        partial.rename(out)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error}); give another --out") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def _check_weights(checkpoint: Checkpoint) -> None:
    from mixed_r1_ray.policy.state import check_policy_files

    check_policy_files(checkpoint.path)


def _write(checkpoint: Path, out: Path, dtype: str) -> None:
    from transformers import AutoProcessor
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = _load(checkpoint, dtype)
    model.save_pretrained(out, max_shard_size=SHARD_SIZE)  # generation config included, names as the hub has them
    AutoProcessor.from_pretrained(checkpoint / "policy").save_pretrained(out)


def _load(checkpoint: Path, dtype: str) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForImageTextToText

    model, report = AutoModelForImageTextToText.from_pretrained(
        checkpoint / "policy", dtype=getattr(torch, dtype), output_loading_info=True
    )
    if missing := sorted(report["missing_keys"]):
        raise UserError(f"checkpoint {checkpoint} lacks {', '.join(missing[:5])}: nothing was exported")
    if dtype == "float32":
        _take_masters(model, checkpoint)
    return model


def _take_masters(model: PreTrainedModel, checkpoint: Path) -> None:
    """Puts AdamW's float32 weights in the place of what a bfloat16 run computes with."""
    import torch

    from mixed_r1_ray.policy.state import read_pieces

    masters = read_pieces(checkpoint, "weight/")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if (master := masters.get(f"weight/{name}")) is not None:
                parameter.copy_(master[: parameter.numel()].view_as(parameter))


def _open(run: Path) -> RunFiles:
    files = RunFiles(run)
    if files.config_file.is_file():
        return files
    siblings = sorted(path.parent.name for path in run.parent.glob("*/config.yaml"))
    named = get_close_matches(run.name, siblings, n=3, cutoff=0.0) if siblings else []
    hint = f"runs in {run.parent}: {', '.join(named)}" if named else f"no run lies in {run.parent}"
    raise UserError(f"{run} is no folder of a run (it has no config.yaml); {hint}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mixed_r1_ray.export",
        description="Writes a run's checkpoint as a folder that transformers and vLLM load, with a model card.",
        epilog="example: python -m mixed_r1_ray.export runs/quickstart --step best --out quickstart-best",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder: runs/NAME")
    parser.add_argument("--step", default="latest", metavar="N|latest|best", help="which checkpoint [latest]")
    parser.add_argument("--out", type=Path, metavar="DIR", help="a new folder [RUN/export/step_NNNNNN]")
    parser.add_argument("--dtype", choices=DTYPES, help="of the weights [as the run trained them]")
    return parser


if __name__ == "__main__":
    sys.exit(main())
