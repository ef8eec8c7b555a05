"""`select`: of many records those worth training on: no copies, no evaluation data, neither too easy nor too hard."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mixed_r1_ray.config import Config
from mixed_r1_ray.config_fields import sections
from mixed_r1_ray.config_load import load_config
from mixed_r1_ray.data.counting_line import counting
from mixed_r1_ray.data.engine import books
from mixed_r1_ray.data.engine.bands import Answers, drop_by_answers
from mixed_r1_ray.data.engine.chunks import gather, plan_chunks
from mixed_r1_ray.data.engine.contamination import drop_contaminated
from mixed_r1_ray.data.engine.duplicates import drop_duplicates
from mixed_r1_ray.data.engine.settings import DifficultySettings, SelectSettings, load_settings, settings_to_yaml
from mixed_r1_ray.data.engine.signatures import SignaturePart, make_signatures
from mixed_r1_ray.data.engine.table import SignatureTable, load_table
from mixed_r1_ray.data.engine.verdicts import Verdicts
from mixed_r1_ray.data.engine.writing import write_kept
from mixed_r1_ray.data.record_files import InputFile, open_files
from mixed_r1_ray.data.tasks import ray_for_data
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.rewards.custom import check_loads
from mixed_r1_ray.runtime import atomic

WORK = "work"  # folder in the output: signatures and answers, to go on from
SETTINGS = "select.yaml"


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 where records were kept. Raises UserError."""
    arguments = _parser().parse_intermixed_args(argv)
    keys = [word for word in (*arguments.words, *arguments.against) if _is_key(word)]
    run_words = [word for word in keys if word.partition(".")[0] in sections()]
    words = [word for word in keys if word not in run_words]
    places = [word for word in arguments.words if not _is_key(word)]
    if not places:
        raise UserError("name at least one folder of records: select DIR --conf NAME --out DIR")
    against = _against([word for word in arguments.against if not _is_key(word)])
    settings = load_settings(arguments.conf, words)
    counts = select(places, settings, arguments.out, against, run_words, arguments.num_cpus)
    books.print_summary(counts, f"{arguments.out}: records")
    print(f"written: {arguments.out}, and what was dropped and why: {arguments.out / books.LEDGER}")
    return 0


def select(
    places: Sequence[str | Path],
    settings: SelectSettings,
    out: Path,
    against: Mapping[str, str | Path] | None = None,
    run_words: Sequence[str] = (),
    num_cpus: int | None = None,
) -> books.Counts:
    """Writes the selection to `out`; returns the counts of its summary. What a killed call finished is kept.

    against: name -> folder of an evaluation set. run_words: key=value for the run configuration of the third stage.
    Raises UserError, also where no record is kept.
    """
    out = out.resolve()  # tasks may run elsewhere
    config = _run_config(settings.difficulty, run_words)
    files = _open(places, out)
    sets = {name: open_files([place]) for name, place in sorted((against or {}).items())}
    table, held_out = _look(files, sets, out / WORK, num_cpus)
    verdicts = Verdicts.none_yet(len(table))
    drop_duplicates(table, verdicts, settings.duplicates, settings.pictures)
    if settings.contamination.enabled:
        for number, other in enumerate(held_out.values()):
            drop_contaminated(table, verdicts, number, other, settings.contamination, settings.pictures)
    answers, model = None, ""
    if settings.difficulty.enabled:
        answers = _answers(table, verdicts, settings.difficulty, config, out / WORK / "answers")
        model = config.model.path
    (out / books.SUMMARY).unlink(missing_ok=True)  # written last, it says that all is there
    shards = write_kept(out, table, verdicts.alive(), answers, model, settings.shard_records)
    counts = books.count(table, verdicts)
    books.write_ledger(out / books.LEDGER, table, verdicts, held_out, answers)
    books.write_chart(out, table, answers)
    atomic.write_text(out / SETTINGS, settings_to_yaml(settings))
    notes = {"against": [*held_out], "model": model, "shards": {shard.name: shard.sha256 for shard in shards}}
    books.write_summary(out, counts, notes)
    if not shards:
        raise UserError(f"{out}: no record is kept: {books.totals(counts)}; {books.LEDGER} says why, for each")
    return counts


def _run_config(settings: DifficultySettings, words: Sequence[str]) -> Config | None:
    """The run whose model, sampling and rewards are used; None where no model answers. Raises ConfigError."""
    if not settings.enabled:
        if words:
            raise UserError(f"{words[0]}: bears on the model that answers, and difficulty.enabled is false")
        return None
    config = load_config([f"conf={settings.conf}", *words])
    if config.reward.custom is not None:
        check_loads(config.reward.custom)
    return config


def _open(places: Sequence[str | Path], out: Path) -> list[InputFile]:
    files = open_files(places)
    if inside := [file.path for file in files if out in file.path.parents]:
        raise UserError(f"--out {out}: {inside[0]} is read from there; name another folder")
    if not sum(file.num_rows for file in files):
        raise UserError(f"{files[0].path}: holds no rows, nor does any other file")
    return files


def _look(
    files: Sequence[InputFile], sets: Mapping[str, Sequence[InputFile]], work: Path, num_cpus: int | None
) -> tuple[SignatureTable, dict[str, SignatureTable]]:
    """Signatures of the records and of each evaluation set."""
    parts: dict[str, list[SignaturePart]] = {}
    with ray_for_data(num_cpus):
        for name, some in {"": files, **sets}.items():
            with counting(f"looking at pictures{name and ' of '}{name}", "records") as say:
                parts[name] = make_signatures(some, work / "signatures" / name, say)
    tables = {
        name: load_table(some, parts[name], work / f"copies{name and '-'}{name}.bin")
        for name, some in {"": files, **sets}.items()
    }
    return tables.pop(""), tables


def _answers(
    table: SignatureTable, verdicts: Verdicts, settings: DifficultySettings, config: Config, folder: Path
) -> Answers:
    """Has the model answer every record that is left, and drops those outside their band."""
    from mixed_r1_ray.difficulty import answer_chunks, answering

    made_by = answering(config, settings.samples)
    chunks = plan_chunks(table, verdicts.alive(), settings.chunk_rows, folder, made_by)
    with counting(f"answering with {config.model.path}", "records") as count:
        answer_chunks(config, chunks, settings.samples, _say, count)
    answers = gather(table, chunks, settings.samples)
    drop_by_answers(table, verdicts, answers, settings.bands)
    return answers


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _is_key(word: str) -> bool:
    """Whether it sets a key, `a.b=…`; names of evaluation sets have no dot."""
    return re.match(r"([a-z]\w*(\.\w+)+|shard_records)=", word) is not None


def _against(words: Sequence[str]) -> dict[str, str]:
    sets = dict(word.partition("=")[::2] for word in words)
    for name, place in sets.items():
        if not re.fullmatch(r"\w[\w-]*", name) or not place:
            raise UserError(f"--against {name}={place}: is not NAME=DIR, such as mathvista=records/mathvista")
    return sets


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mixed_r1_ray.data select",
        description="Leaves out duplicates, evaluation data, and what a model finds too easy or too hard. What a "
        "killed call had finished is not done again.",
        epilog="example: python -m mixed_r1_ray.data select clean --conf select --against mathvista=eval/mathvista "
        "--out selected difficulty.samples=16 model.path=OpenGVLab/InternVL3-8B-hf",
    )
    parser.add_argument(
        "words", nargs="+", metavar="DIR | KEY=VALUE", help="folders of records; keys of the selection, or of the run"
    )
    parser.add_argument("--conf", required=True, metavar="NAME", help="a YAML file, or a name in conf/data")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument(
        "--against", nargs="+", action="extend", default=[], metavar="NAME=DIR", help="evaluation sets to keep clear of"
    )
    parser.add_argument("--num-cpus", type=int, metavar="N", help="of a Ray that is started here [all]")
    return parser


if __name__ == "__main__":
    sys.exit(main())
