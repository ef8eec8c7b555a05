"""`show`: one self-contained HTML page of records, with their pictures and their gold drawn on."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from mixed_r1_ray.data.manifest import SPLITS
from mixed_r1_ray.data.record_files import InputFile, open_files
from mixed_r1_ray.data.record_samples import (
    ShownBox,
    ShownPicture,
    ShownRecord,
    choose_places,
    load_samples,
    sources_of,
)
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.runtime import atomic

TEMPLATE = Path(__file__).with_name("show.html.j2")
LONGEST_SIDE = 768  # pixels of a picture as it is stored in the page
FRAME = 360, 440  # pixels on the page that a picture fits into
LABEL_HEIGHT = 18  # pixels of a box's name
LARGEST_SCALE = 2.0  # small pictures are enlarged up to here
EXIT_UNUSABLE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 2 where there is nothing to show."""
    parser = argparse.ArgumentParser(
        prog="python -m mixed_r1_ray.data show",
        description="Writes an HTML page of records, with pictures and golds; it opens without a network.",
    )
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="a folder of record shards, a mixture, or a file"
    )
    parser.add_argument(
        "--n", type=int, default=20, metavar="N", help="records, types and sources in turn [20]"
    )
    parser.add_argument(
        "--source", action="append", default=[], metavar="NAME", help="only this one; repeatable"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("records.html"), metavar="FILE", help="[records.html]"
    )
    arguments = parser.parse_args(argv)
    try:
        number = write_page(arguments.folder, arguments.out, arguments.n, arguments.source)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_UNUSABLE
    print(f"written: {arguments.out} ({number} records)")
    return 0


def write_page(folder: Path, out: Path, number: int = 20, sources: Sequence[str] = ()) -> int:
    """Writes the page and returns how many records it shows. Raises UserError for an unknown source."""
    from jinja2 import Environment, StrictUndefined

    if number < 1:
        raise UserError(f"--n {number}: must be at least 1")
    files = _files(folder)
    known = sources_of(files)
    for source in sources:
        if source not in known:
            near = get_close_matches(source, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise UserError(f"--source {source}: {folder} has no such source; {hint}")
    shown = list(load_samples(files, choose_places(files, number, sources), LONGEST_SIDE))
    if not shown:
        raise UserError(f"{folder}: holds no rows")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"shown_width": _shown_width, "label_place": _label_place}
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=folder.resolve().name,
        shown=[(record, _meta(record)) for record in shown],
        total=sum(file.num_rows for file in files),
        num_files=len(files),
        sources=sources or known,
    )
    atomic.write_text(out, page)
    return len(shown)


def _files(folder: Path) -> list[InputFile]:
    """The shards in a folder; of a mixture, those of its splits."""
    splits = [folder / split for split in SPLITS if (folder / split).is_dir()]
    return open_files(splits or [folder])


def _shown_width(picture: ShownPicture) -> int:
    width, height = picture.size
    return max(1, round(width * min(FRAME[0] / width, FRAME[1] / height, LARGEST_SCALE)))


def _label_place(box: ShownBox, picture: ShownPicture) -> str:
    """CSS that puts a box's name above it, or into it at the picture's upper edge, and lets it grow inwards."""
    above = box.y * _shown_width(picture) * picture.size[1] / picture.size[0]
    down = f"bottom: {100 * (1 - box.y):.2f}%" if above >= LABEL_HEIGHT else f"top: {100 * box.y:.2f}%"
    right = 1 - box.x - box.width
    across = f"left: {100 * box.x:.2f}%" if box.x <= right else f"right: {100 * right:.2f}%"
    return f"{across}; {down}"


def _meta(shown: ShownRecord) -> list[tuple[str, str]]:
    try:
        values = json.loads(shown.record.meta)
    except ValueError:
        return [("meta", shown.record.meta)]
    if not isinstance(values, dict):
        return [("meta", shown.record.meta)]
    return [
        (str(key), value if isinstance(value, str) else json.dumps(value)) for key, value in values.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
