"""`mix`: records in, the mixture of a recipe out: shards, manifest and data card, whole or not there."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mixed_r1_ray import __version__
from mixed_r1_ray.data.card import write_card
from mixed_r1_ray.data.manifest import (
    MANIFEST,
    RECIPE,
    SPLITS,
    Manifest,
    damage,
    read_manifest,
    shard_entry,
    text_hash,
)
from mixed_r1_ray.data.recipe import Recipe, load_recipe, recipe_to_yaml
from mixed_r1_ray.data.record_files import InputFile, in_row_groups, open_files, read_records
from mixed_r1_ray.data.record_index import RecordIndex, build_index
from mixed_r1_ray.data.selection import select
from mixed_r1_ray.data.shards import Shard, ShardWriter, fingerprint, finished_shard, prepare_folder
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.runtime import atomic

EXIT_UNUSABLE = 2
EXIT_INTERRUPTED = 130

Tell = Callable[[str], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 2 where the recipe or a file is no use."""
    parser = argparse.ArgumentParser(
        prog="python -m mixed_r1_ray.data mix",
        description="Builds a mixture of records: Parquet shards, manifest.json and a data card. What a "
        "killed run had finished is not done again.",
    )
    parser.add_argument("--conf", required=True, metavar="RECIPE", help="a YAML file, or a name in conf/data")
    parser.add_argument(
        "--from",
        dest="places",
        required=True,
        nargs="+",
        action="extend",
        metavar="DIR",
        help="folders of record shards, or single files",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the mixture")
    arguments = parser.parse_args(argv)
    try:
        manifest = build_mixture(load_recipe(arguments.conf), arguments.places, arguments.out, _say)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_UNUSABLE
    except OSError as error:
        print(
            f"error: {error.filename or arguments.out}: {error.strerror or error}; what is finished is kept",
            file=sys.stderr,
        )
        return EXIT_UNUSABLE
    except KeyboardInterrupt:
        print("interrupted; run it again and it goes on with the first unfinished shard", file=sys.stderr)
        return EXIT_INTERRUPTED
    _print_table(manifest)
    print(f"written: {arguments.out} (train on data.train={arguments.out / 'train'})")
    return 0


def build_mixture(
    recipe: Recipe, places: Sequence[str | Path], out: Path, tell: Tell = lambda text: None
) -> Manifest:
    """Writes the mixture to `out`, or what is unfinished of it. Raises UserError, and leaves no manifest.

    Records are chosen by the small columns; then their rows are copied batch by batch. Memory holds one or
    two hundred bytes a record, and a row group with its pictures. tell: called with remarks.
    """
    files = open_files(places)
    if inside := [file.path for file in files if out.resolve() in file.path.parents]:
        raise UserError(f"--out {out}: {inside[0]} is read from there; name another folder")
    text = recipe_to_yaml(recipe)
    plan = fingerprint(__version__, text, [file.digest for file in files])
    former = read_manifest(out)
    if former is not None and former.plan != plan:
        raise UserError(f"{out}: holds {former.name}, of another recipe or other inputs; name another folder")
    if former is not None:
        damaged = dict(damage(out, former))
        if not damaged:
            tell(f"{out}: is finished already; every shard agrees with {MANIFEST}")
            return former
        for path, reason in damaged.items():
            tell(f"{path}: {reason}; it is written again")
            path.unlink(missing_ok=True)
    index = build_index(files, recipe)
    selection = select(index, recipe, files)
    for remark in (*_left_out(index), *selection.remarks(recipe)):
        tell(remark)
    shards = {
        split: [
            shard_entry(split, shard) for shard in write_split(index, rows, files, out / split, recipe, plan)
        ]
        for split, rows in selection.rows.items()
    }
    atomic.write_text(out / RECIPE, text)
    manifest = Manifest(
        name=recipe.name,
        plan=plan,
        made_by=f"mixed_r1_ray {__version__}",
        recipe_sha256=text_hash(text),
        inputs=[
            {"name": file.path.name, "rows": file.num_rows, "footer_sha256": file.digest} for file in files
        ],
        taken=selection.taken,
        left_out=dict(sorted(index.left_out.items())),
        shards=shards,
    )
    write_card(out, recipe, manifest)
    manifest.write(out)
    return manifest


def write_split(
    index: RecordIndex, rows: np.ndarray, files: Sequence[InputFile], folder: Path, recipe: Recipe, plan: str
) -> list[Shard]:
    """The shards of one split, in the order of input files and rows; finished ones are left as they are."""
    parts = [
        rows[first : first + recipe.shard_records] for first in range(0, len(rows), recipe.shard_records)
    ]
    names = [f"{folder.name}-{number:05d}-of-{len(parts):05d}.parquet" for number in range(len(parts))]
    prepare_folder(folder, names)  # an empty split too: what an earlier, unfinished plan left must go
    shards = []
    with _progress(f"writing {folder.name}", len(parts)) as advance:
        for name, part in zip(names, parts, strict=True):
            made_of = fingerprint(plan, name)
            shard = finished_shard(folder / name, made_of)
            if shard is None:
                with ShardWriter(folder / name, made_of) as writer:
                    for table in in_row_groups(read_records(files, index.file[part], index.row[part])):
                        writer.add_table(table)
                shard = writer.shard
            shards.append(shard)
            advance()
    return shards


def _left_out(index: RecordIndex) -> Iterator[str]:
    for reason, number in index.left_out.most_common():
        yield f"left out: {number:,} records, {reason}"
    for example in index.examples:
        yield f"  the first: {example}"


def _print_table(manifest: Manifest) -> None:
    from rich.console import Console
    from rich.table import Table

    from mixed_r1_ray.runtime.evaluation_table import as_text

    table = Table(title=f"{manifest.name}: records")
    for name, justify in zip(("type", "source", "asked", "found", *SPLITS), ("left", "left", *["right"] * 4)):
        table.add_column(name, justify=justify)
    numbers = [(row.asked, row.found, row.train, row.held_out) for row in manifest.taken]
    for row, of_row in zip(manifest.taken, numbers, strict=True):
        table.add_row(row.reward_type, row.source, *(f"{number:,}" for number in of_row))
    table.add_section()
    table.add_row("all", "", *(f"{sum(column):,}" for column in zip(*numbers, strict=True)))
    console = Console(highlight=False, markup=False)
    console.print(table if console.is_terminal else as_text(table), markup=False)


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
