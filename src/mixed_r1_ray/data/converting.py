"""`convert`: one public dataset in its own layout becomes shards of records."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from mixed_r1_ray.data.converters import CONVERTERS, find_converter
from mixed_r1_ray.data.converters.parts import plan_parts
from mixed_r1_ray.data.converters.writing import EXAMPLES, Conversion, shard_name, write_part
from mixed_r1_ray.data.shards import Shard, fingerprint, finished_shard, prepare_folder
from mixed_r1_ray.data.tasks import ray_for_data, run_tasks
from mixed_r1_ray.errors import UserError

SPEAK_EVERY_S = 10.0


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 where records were written, however many rows were left out. Raises UserError."""
    arguments = _parser().parse_args(argv)
    if not 0 < arguments.fraction <= 1:
        raise UserError(f"--fraction {arguments.fraction:g}: must be above 0 and at most 1")
    if not re.fullmatch(r"\w[\w.-]*", arguments.split):  # it becomes part of file names
        raise UserError(f"--split {arguments.split}: is no name of a split, such as train or val")
    converter = find_converter(
        arguments.source, _pairs("--map", arguments.map), _pairs("--set", arguments.set)
    )
    conversion = Conversion(
        converter,
        arguments.folder.resolve(),  # tasks may run elsewhere
        (arguments.images or arguments.folder).resolve(),
        arguments.out.resolve(),
        arguments.split,
        arguments.fraction,
    )
    print_summary(conversion, convert(conversion, num_cpus=arguments.num_cpus, say=_say))
    return 0


def convert(
    conversion: Conversion, num_cpus: int | None = None, say: Callable[[str], None] = lambda text: None
) -> list[Shard]:
    """Writes the shards that are not finished yet, one Ray task each; all of them, in order.

    Raises UserError where nothing can be read, where no row makes a record, and where the disk is full; what
    is finished stays, and the next call goes on from there.
    """
    shards: dict[int, Shard] = {}
    names = [path.name for path in conversion.out.glob(f"{conversion.prefix}*.parquet")]
    prepare_folder(conversion.out, names, prefix=conversion.prefix)
    began = spoken = time.monotonic()
    with ray_for_data(num_cpus):
        calls = _unfinished(conversion, shards)
        for number, shard in run_tasks(
            write_part, calls, what=f"a task that converts {conversion.converter.name}"
        ):
            shards[number] = shard
            if time.monotonic() - spoken > SPEAK_EVERY_S:
                spoken = time.monotonic()
                done = sum(shard.num_rows for shard in shards.values())
                say(
                    f"{conversion.prefix[:-1]}: {len(shards)} shards, {done:,} records "
                    f"in {spoken - began:.0f} s"
                )
    made = [shards[number] for number in sorted(shards)]
    if not any(shard.num_rows for shard in made):
        raise UserError(
            f"{conversion.folder}: no row of {conversion.converter.name} makes a record. {_reasons(made)}"
        )
    prepare_folder(conversion.out, [shard.name for shard in made], prefix=conversion.prefix)
    return made


def _unfinished(conversion: Conversion, finished: dict[int, Shard]) -> Iterator[tuple]:
    """Arguments of `write_part` for each part without a shard; shards that are there go into `finished`."""
    settings = (
        conversion.converter.name,
        vars(conversion.converter),
        str(conversion.images),
        conversion.fraction,
    )
    for number, part in enumerate(plan_parts(conversion.converter, conversion.folder, conversion.split)):
        made_of = fingerprint(_code_version(), settings, part.identity())
        shard = finished_shard(conversion.out / shard_name(conversion, number), made_of)
        if shard is None:
            yield conversion, part, number, made_of
        else:
            finished[number] = shard


@lru_cache(maxsize=1)
def _code_version() -> str:
    """Changes with the converters: shards of older ones are made anew."""
    files = [Path(__file__), *sorted((Path(__file__).parent / "converters").glob("*.py"))]
    return fingerprint(*(file.read_bytes() for file in files))


def print_summary(conversion: Conversion, shards: Sequence[Shard]) -> None:
    """Prints records by source, then what was left out and why, with the first rows of each reason."""
    from rich.markup import escape
    from rich.table import Table

    from mixed_r1_ray.runtime.evaluation_table import as_text

    table = Table("source")
    table.add_column("records", justify="right")
    for source, count in sorted(_total(shards, "sources").items()):
        table.add_row(escape(source), f"{count:,}")
    print(f"{conversion.out}, shards: {len(shards)}\n{as_text(table)}")
    skipped = _total(shards, "skipped")
    if skipped:
        print(f"rows of {conversion.converter.name} left out: {sum(skipped.values()):,}")
    for reason, count in skipped.most_common():
        named = [row for shard in shards for row in shard.details["examples"].get(reason, ())][:EXAMPLES]
        print(f"{count:>9,}  {reason}: {'; '.join(named)}{'; …' if count > len(named) else ''}")


def _total(shards: Sequence[Shard], name: str) -> Counter[str]:
    return sum((Counter(shard.details[name]) for shard in shards), Counter())


def _reasons(shards: Sequence[Shard]) -> str:
    reasons = _total(shards, "skipped").most_common(5)
    return (
        "Reasons: " + "; ".join(f"{reason} ({count:,} rows)" for reason, count in reasons)
        if reasons
        else "It is empty."
    )


def _pairs(option: str, words: Sequence[str]) -> dict[str, str]:
    pairs = dict(word.partition("=")[::2] for word in words)
    if bad := [word for word in words if not all(word.partition("="))]:
        raise UserError(f"{option} {bad[0]}: is not FIELD=VALUE")
    return pairs


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mixed_r1_ray.data convert",
        description="Turns one public dataset, or your own rows, into shards of records.",
        epilog="example: python -m mixed_r1_ray.data convert aokvqa --from aokvqa --images coco --out out",
    )
    parser.add_argument("source", metavar="SOURCE", help=", ".join(CONVERTERS))
    parser.add_argument(
        "--from", dest="folder", type=Path, required=True, metavar="DIR", help="where its files are"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="several sources may share one"
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="where its pictures are, if elsewhere [--from]"
    )
    parser.add_argument("--split", default="train", help="[train]")
    parser.add_argument(
        "--fraction", type=float, default=1.0, metavar="F", help="share of the rows to take [1]"
    )
    parser.add_argument(
        "--map",
        nargs="+",
        default=[],
        metavar="FIELD=COLUMN",
        help="jsonl, parquet: which column a field is in",
    )
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="FIELD=VALUE", help="jsonl, parquet: one value for all rows"
    )
    parser.add_argument("--num-cpus", type=int, metavar="N", help="of a Ray that is started here [all]")
    return parser
