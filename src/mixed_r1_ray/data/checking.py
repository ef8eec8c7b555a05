"""`check`: every record of a folder, as the trainer would use it, and a copy without those that cannot be."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path

from mixed_r1_ray.config import Config
from mixed_r1_ray.config_load import load_config
from mixed_r1_ray.data.check_plan import find_duplicates, of_part, plan_check
from mixed_r1_ray.data.check_summary import Summary, print_summary
from mixed_r1_ray.data.prompt_length import PromptLengths
from mixed_r1_ray.data.reader import record_files
from mixed_r1_ray.data.record_check import Fault, RecordPart, check_rows
from mixed_r1_ray.data.shards import (
    ShardWriter,
    file_fingerprint,
    fingerprint,
    finished_shard,
    prepare_folder,
)
from mixed_r1_ray.data.tasks import ray_for_data, run_tasks
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.runtime import atomic

EXIT_FAULTS = 1
SPEAK_EVERY_S = 10.0
DROPPED = "dropped.jsonl"


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 where no record has a fault or --drop wrote those without, 1 where some have."""
    arguments = _parser().parse_intermixed_args(argv)
    start = time.monotonic()
    summary = check(arguments.folder, _config(arguments), arguments.drop, arguments.num_cpus, say=_say)
    print_summary(summary, f"{arguments.folder}: {sum(summary.sources.values()):,} records, "
                  f"{time.monotonic() - start:.1f} s")  # fmt: skip
    if arguments.drop:
        print(f"written: {arguments.drop}, and what was dropped: {arguments.drop / DROPPED}")
    return EXIT_FAULTS if summary.kinds and not arguments.drop else 0


def check(
    folder: Path,
    config: Config | None = None,
    drop: Path | None = None,
    num_cpus: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Summary:
    """Checks all record files of `folder`, one Ray task about a thousand rows.

    config: of the run whose prompts must fit; None leaves lengths out. drop: a folder for the records without
    fault and `dropped.jsonl`; a call that was cut off goes on there. Raises UserError where no file can be
    read at all, and where the disk is full.
    """
    folder, drop = folder.resolve(), drop and drop.resolve()  # tasks may run elsewhere
    if drop is not None and drop == (folder if folder.is_dir() else folder.parent):
        raise UserError(f"--drop {drop}: is the folder that is read; name another")
    parts, bad_files = plan_check(record_files(str(folder)))
    duplicates = find_duplicates(parts)
    shards = [drop and drop / _shard_name(part) for part in parts]
    if drop is not None:
        prepare_folder(drop, [shard.name for shard in shards])
    summary, found = Summary(), {}
    for fault in bad_files:
        summary.add_fault(fault)
    rows_done, spoken = 0, time.monotonic()
    with ray_for_data(num_cpus):
        config = config and _with_built_model(config, say)
        calls = (
            (number, part, of_part(duplicates, part), config, shard)
            for number, (part, shard) in enumerate(zip(parts, shards, strict=True))
        )
        for number, result in run_tasks(check_part, calls, what=f"a task that checks {folder}"):
            found[number] = result
            rows_done += sum(result.sources.values())
            if time.monotonic() - spoken > SPEAK_EVERY_S:
                spoken = time.monotonic()
                say(f"checked: {rows_done:,} records, {len(found)} of {len(parts)} parts")
    for number in range(len(parts)):
        summary.merge(found[number])
    if drop is not None:
        _write_dropped(drop, bad_files, shards)
    return summary


def check_part(
    number: int, part: RecordPart, duplicates: dict[int, str], config: Config | None, shard: Path | None
) -> tuple[int, Summary]:
    """The task: checks one part and, where `shard` is given, writes its good records there.

    All faults of a part are kept with its shard; the summary has the first of each kind.
    """
    if shard is None:
        return number, _check_part(part, duplicates, config, lambda record: None, lambda fault: None)
    inputs = file_fingerprint(part.file), part.first, part.last, sorted(duplicates.items()), repr(config)
    made_of = fingerprint(_code_version(), inputs)
    finished = finished_shard(shard, made_of)
    if finished is None:
        faults: list[dict] = []
        with ShardWriter(shard, made_of) as writer:
            summary = _check_part(
                part, duplicates, config, writer.add, lambda fault: faults.append(asdict(fault))
            )
            writer.details.update(sources=dict(summary.sources), faults=faults)
        return number, summary
    summary = Summary(sources=Counter(finished.details["sources"]))
    for fault in finished.details["faults"]:
        summary.add_fault(Fault(**fault))
    return number, summary


def _check_part(
    part: RecordPart, duplicates: dict[int, str], config: Config | None, keep: Callable, drop: Callable
) -> Summary:
    lengths = None if config is None else _prompt_lengths(repr(config), config)
    summary = Summary()
    for checked in check_rows(part, duplicates, lengths):
        summary.sources[checked.source] += 1 if checked.fault is None else checked.fault.num_rows
        if checked.fault is None:
            keep(checked.record)
        else:
            drop(checked.fault)
            summary.add_fault(checked.fault)
    return summary


def _write_dropped(drop: Path, bad_files: Sequence[Fault], shards: Sequence[Path]) -> None:
    """`dropped.jsonl`: a line for each fault, in the order of files and rows."""
    with atomic.replacing(drop / DROPPED) as temporary, open(temporary, "w", encoding="utf-8") as file:
        kept = (fault for shard in shards for fault in finished_shard(shard).details["faults"])
        for fault in itertools.chain(map(asdict, bad_files), kept):
            file.write(json.dumps(fault, ensure_ascii=False) + "\n")


def _with_built_model(config: Config, say: Callable[[str], None]) -> Config:
    """The same with a checkpoint's folder in place of `tiny:…`."""
    from mixed_r1_ray.quickstart import build_model

    return replace(config, model=replace(config.model, path=build_model(config, say)))


def _prompt_lengths(key: str, config: Config) -> PromptLengths:
    """Made once a process: the adapter, and what it has measured, serve all parts that it checks."""
    if key not in _PROMPT_LENGTHS:
        import torch

        from mixed_r1_ray.vlm.families import load_adapter

        torch.set_num_threads(1)
        _PROMPT_LENGTHS.clear()
        _PROMPT_LENGTHS[key] = PromptLengths(load_adapter(config.model), config)
    return _PROMPT_LENGTHS[key]


_PROMPT_LENGTHS: dict[str, PromptLengths] = {}


def _shard_name(part: RecordPart) -> str:
    return f"{part.file.stem}-{part.row:08d}.parquet"


@lru_cache(maxsize=1)
def _code_version() -> str:
    """Changes with the rules: what older ones have found is found anew."""
    here = Path(__file__).parent
    names = (
        "checking",
        "check_plan",
        "check_summary",
        "record_check",
        "giveaway",
        "prompt_length",
        "reader",
        "images",
    )
    return fingerprint(*((here / f"{name}.py").read_bytes() for name in names))


def _config(arguments: argparse.Namespace) -> Config | None:
    """The configuration whose prompts must fit; None where neither --model nor --conf is given."""
    if arguments.model is None and arguments.conf is None:
        if arguments.settings:
            raise UserError(
                f"{arguments.settings[0]}: bears on lengths, which are checked with --model or --conf"
            )
        return None
    conf = [f"conf={arguments.conf}"] if arguments.conf else []
    model = [f"model.path={arguments.model}"] if arguments.model else []
    return load_config([*conf, *model, *arguments.settings], conf_needed=False)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mixed_r1_ray.data check",
        description="Checks every record: pictures, golds, choices, boxes, lengths, ids, answers given away.",
        epilog="example: python -m mixed_r1_ray.data check records --conf internvl_2b --drop clean",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="a folder of Parquet files, or one file")
    parser.add_argument(
        "--model", metavar="FOLDER", help="checkpoint whose prompts must fit; the same as model.path=…"
    )
    parser.add_argument("--conf", metavar="NAME", help="configuration of the run whose prompts must fit")
    parser.add_argument(
        "settings", nargs="*", metavar="KEY=VALUE", help="of that configuration: model.max_length=4096"
    )
    parser.add_argument(
        "--drop", type=Path, metavar="OUT", help="writes records without fault, and dropped.jsonl"
    )
    parser.add_argument("--num-cpus", type=int, metavar="N", help="of a Ray that is started here [all]")
    return parser
