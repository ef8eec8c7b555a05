"""`python -m mixed_r1_ray.rewards FILE …`: scores a file of responses, without Ray and torch."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mixed_r1_ray.config import Config
from mixed_r1_ray.config_load import load_config
from mixed_r1_ray.errors import ConfigError, UserError
from mixed_r1_ray.rewards.embeddings import EmbeddingTable
from mixed_r1_ray.rewards.offline import Task, score_file
from mixed_r1_ray.rewards.score_summary import Low, ScoreSummary, summary_table
from mixed_r1_ray.rewards.scorer import RewardScorer
from mixed_r1_ray.types import BoxFrame

EXIT_UNUSABLE = 2
EXIT_INTERRUPTED = 130
# Keys of `reward` that are about the workers of a run.
FOR_RUNS_ONLY = ("num_workers", "cpus_per_worker", "batch_groups", "timeout_s", "max_unscored_fraction")
SHOWN_CHARACTERS = 400  # of a question, a response or a gold


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 also where single rows could not be scored, 2 where the file or an argument is no use."""
    arguments = _parser().parse_intermixed_args(argv)
    try:
        _run(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_UNUSABLE
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mixed_r1_ray.rewards",
        description="Scores the responses in a file of records, or in a run's rollouts/step_*.parquet.",
        epilog="example: python -m mixed_r1_ray.rewards answers.jsonl --responses output chart_mode=exact",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a .parquet or .jsonl file")
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="KEY=VALUE",
        help="keys of `reward` in the configuration: iou_mode=threshold",
    )
    parser.add_argument(
        "--responses",
        default="response",
        metavar="COLUMN",
        help="a text, or a list of texts: a group [response]",
    )
    parser.add_argument(
        "--model", metavar="FOLDER", help="checkpoint whose embeddings compare open_ended answers"
    )
    parser.add_argument("--conf", metavar="NAME", help="takes `reward` from it, e.g. runs/NAME/config.yaml")
    parser.add_argument(
        "--box-frame",
        type=_box_frame,
        default="own",
        metavar="FRAME",
        help="what boxes are said in: original (pixels), internvl (0 to 1000), WxH [box_frame of each row, "
        "else original]",
    )
    parser.add_argument(
        "--custom", metavar="PATH.py:FUNCTION", help="your reward function; the same as custom=…"
    )
    parser.add_argument(
        "--progress",
        type=float,
        default=0.0,
        metavar="FRACTION",
        help="of training done, for iou_mode=dynamic [0]",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="[FILE.scored.parquet or .jsonl, beside FILE]"
    )
    parser.add_argument("--force", action="store_true", help="overwrite the output")
    parser.add_argument(
        "--show", type=int, nargs="?", const=12, default=0, metavar="N", help="the lowest N samples [12]"
    )
    return parser


def _box_frame(text: str) -> BoxFrame | str | None:
    size = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if size:
        return BoxFrame(float(size[1]), float(size[2]))
    if text == "internvl":
        return BoxFrame(1000.0, 1000.0)
    if text in ("original", "own"):
        return None if text == "original" else text
    raise argparse.ArgumentTypeError(f"{text!r} is none of original, internvl, WxH (such as 1024x768)")


def _run(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from mixed_r1_ray.runtime.evaluation_table import as_text

    config = _config(arguments)
    reward = config.reward
    task = Task(
        file=arguments.file,
        output=_output(arguments),
        responses=arguments.responses,
        box_frame=arguments.box_frame,
        progress=arguments.progress,
        has_embeddings=arguments.model is not None,
        custom_types=tuple(reward.custom_types) if reward.custom else (),
    )
    embeddings = EmbeddingTable.from_checkpoint(arguments.model) if arguments.model else None
    summary = ScoreSummary(num_lowest=arguments.show)
    console = Console(highlight=False, soft_wrap=True)
    start = time.monotonic()
    with RewardScorer.from_config(reward, embeddings) as scorer, _progress_bar() as advance:
        score_file(task, scorer, summary, _warn, advance)
    seconds = time.monotonic() - start
    num_samples = sum(tally.samples for tally in summary.tallies.values())
    table = summary_table(summary, f"{task.file}: {num_samples:,} samples in {seconds:.1f} s")
    if console.is_terminal:
        console.print(table)
    else:
        console.print(as_text(table), markup=False)
    for text in (*_remarks(task, summary), *map(_shown, summary.lowest())):
        console.print(text, markup=False)


def _config(arguments: argparse.Namespace) -> Config:
    """`--conf` or the defaults, with the key=value words; only keys of `reward` that scoring a file heeds."""
    words = [] if arguments.custom is None else [f"reward.custom={arguments.custom}"]
    for word in arguments.settings:
        key = word.partition("=")[0]
        section, dot, name = key.rpartition(".")
        if dot and section not in ("reward", "rewards") or name in FOR_RUNS_ONLY:
            raise ConfigError(f"command line: {key} does not bear on the rewards of a file")
        words.append(word if dot else f"reward.{word}")
    conf = [] if arguments.conf is None else [f"conf={arguments.conf}"]
    return load_config([*conf, *words], conf_needed=False)


def _output(arguments: argparse.Namespace) -> Path:
    file: Path = arguments.file
    output: Path = arguments.output or file.with_name(f"{file.stem}.scored{file.suffix}")
    if output.suffix != file.suffix:
        raise UserError(f"--output {output}: must end in {file.suffix}, as {file} does")
    if output.exists() and (output.is_dir() or output.samefile(file)):
        raise UserError(f"--output {output}: is the file that is read, or a folder; name another")
    if output.exists() and not arguments.force:
        raise UserError(f"{output}: is there already; --force overwrites it, --output names another")
    return output


def _remarks(task: Task, summary: ScoreSummary) -> Iterator[str]:
    if summary.bad_rows:
        yield f"rows that could not be read: {summary.bad_rows:,} (score_detail says why)"
    if summary.agreement.samples:
        compared, different = summary.agreement.samples, summary.agreement.different
        first = f"; the first that is not: {summary.agreement.first}" if different else ""
        yield f"same as the file's reward_total: {compared - different:,} of {compared:,}{first}"
    yield f"written: {task.output}"


def _shown(low: Low) -> str:
    sample, scored = low.sample, low.breakdown
    return "\n".join(
        (
            "",
            f"{low.where}, {sample.source or '–'} ({sample.reward_type}), prompt {sample.prompt_id}, "
            f"sample {sample.sample_index}",
            f"  total     {scored.total:.3f} (task {scored.task:.3f}, format {scored.format:g})",
            f"  question  {_short(sample.question or '–')}",
            f"  response  {_short(sample.response)}",
            f"  gold      {_short(sample.gold)}",
            f"  detail    {_short(scored.detail)}",
        )
    )


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}… ({len(text):,} characters)"


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


@contextmanager
def _progress_bar() -> Iterator:
    """A bar on a terminal, nothing elsewhere; gone when it is done."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("scoring", total=None)
        yield lambda done, size: bar.update(task, completed=done, total=size)


if __name__ == "__main__":
    sys.exit(main())
