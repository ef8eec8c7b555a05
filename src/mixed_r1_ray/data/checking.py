"""`check`: every record of a folder, as the trainer would use it, and a copy without those that cannot be."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

from mixed_r1_ray.config import Config
from mixed_r1_ray.config_load import load_config
from mixed_r1_ray.data.check_plan import find_duplicates, of_part, plan_check
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
NAMED = 5  # rows a kind of fault
SPEAK_EVERY_S = 10.0
DROPPED = "dropped.jsonl"


@dataclass(frozen=True, slots=True)
class PartResult:
    """What a task found: rows by source, and faults."""

    sources: dict[str, int]
    faults: list[Fault]


@dataclass
class Summary:
    """Counts over all parts; of each kind of fault the first few."""

    sources: Counter = field(default_factory=Counter)
    faulty: Counter = field(default_factory=Counter)  # source -> rows
    kinds: Counter = field(default_factory=Counter)  # (source, field) -> rows
    named: dict[tuple[str, str], list[Fault]] = field(default_factory=dict)

    def add(self, result: PartResult) -> None:
        self.sources.update(result.sources)
        for fault in result.faults:
            self.faulty[fault.source] += fault.num_rows
            self.kinds[fault.source, fault.field] += fault.num_rows
            named = self.named.setdefault((fault.source, fault.field), [])
            if len(named) < NAMED:
                named.append(fault)


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
    if drop is not None and drop.resolve() == (folder if folder.is_dir() else folder.parent).resolve():
        raise UserError(f"--drop {drop}: is the folder that is read; name another")
    summary = Summary()
    files, results, rows_done = record_files(str(folder)), {}, 0
    parts, bad_files = plan_check(files)
    duplicates = find_duplicates(parts)
    names = [_shard_name(part) for part in parts]
    if drop is not None:
        prepare_folder(drop, names)
    spoken = time.monotonic()
    with ray_for_data(num_cpus):
        calls = (
            (number, part, of_part(duplicates, part), config, drop and drop / name)
            for number, (part, name) in enumerate(zip(parts, names, strict=True))
        )
        for number, result in run_tasks(check_part, calls, what=f"a task that checks {folder}"):
            results[number] = result
            rows_done += sum(result.sources.values())
            if time.monotonic() - spoken > SPEAK_EVERY_S:
                spoken = time.monotonic()
                say(f"checked: {rows_done:,} records, {len(results)} of {len(parts)} parts")
    ordered = [PartResult({}, bad_files), *(results[number] for number in range(len(parts)))]
    for result in ordered:
        summary.add(result)
    if drop is not None:
        lines = (
            json.dumps(asdict(fault), ensure_ascii=False) for result in ordered for fault in result.faults
        )
        atomic.write_text(drop / DROPPED, "".join(f"{line}\n" for line in lines))
    return summary


def check_part(
    number: int, part: RecordPart, duplicates: dict[int, str], config: Config | None, shard: Path | None
) -> tuple[int, PartResult]:
    """The task: checks one part and, where `shard` is given, writes its good records there."""
    if shard is None:
        return number, _check_part(part, duplicates, config, lambda record: None)
    made_of = fingerprint(
        _code_version(),
        file_fingerprint(part.file),
        part.first,
        part.last,
        sorted(duplicates.items()),
        repr(config),
    )
    finished = finished_shard(shard, made_of)
    if finished is None:
        with ShardWriter(shard, made_of) as writer:
            result = _check_part(part, duplicates, config, writer.add)
            writer.details.update(sources=result.sources, faults=[asdict(fault) for fault in result.faults])
        return number, result
    faults = [Fault(**fault) for fault in finished.details["faults"]]
    return number, PartResult(finished.details["sources"], faults)


def _check_part(
    part: RecordPart, duplicates: dict[int, str], config: Config | None, keep: Callable
) -> PartResult:
    lengths = None if config is None else _prompt_lengths(repr(config), config)
    sources: Counter[str] = Counter()
    faults = []
    for checked in check_rows(part, duplicates, lengths):
        sources[checked.source] += 1 if checked.fault is None else checked.fault.num_rows
        if checked.record is not None:
            keep(checked.record)
        else:
            faults.append(checked.fault)
    return PartResult(dict(sources), faults)


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
    names = ("checking", "check_plan", "record_check", "giveaway", "prompt_length", "reader", "images")
    return fingerprint(*((here / f"{name}.py").read_bytes() for name in names))


def print_summary(summary: Summary, title: str) -> None:
    """Prints records and faults by source, then each kind of fault with the first rows that have it."""
    from rich.table import Table

    from mixed_r1_ray.runtime.evaluation_table import as_text

    table = Table(title=title, title_justify="left")
    table.add_column("source")
    for name in ("records", "good", "faulty"):
        table.add_column(name, justify="right")
    for source, count in sorted(summary.sources.items()):
        faulty = summary.faulty[source]
        table.add_row(source or "(unknown)", f"{count:,}", f"{count - faulty:,}", f"{faulty:,}")
    print(as_text(table))
    if not summary.kinds:
        return
    table = Table(title="faults", title_justify="left")
    for name, justify in (
        ("source", "left"),
        ("field", "left"),
        ("rows", "right"),
        ("the first ones", "left"),
    ):
        table.add_column(name, justify=justify)
    for (source, name), count in sorted(summary.kinds.items()):
        rows = "\n".join(_describe(fault) for fault in summary.named[source, name])
        table.add_row(source or "(unknown)", name, f"{count:,}" if count else "all", rows)
    print(as_text(table))


def _describe(fault: Fault) -> str:
    place = fault.file if fault.row is None else f"{fault.file}, row {fault.row}"
    return f"{place}{f' ({fault.id})' if fault.id else ''}: {fault.reason}"


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
