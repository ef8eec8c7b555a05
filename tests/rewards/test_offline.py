"""`python -m mixed_r1_ray.rewards FILE`: what it writes, prints and refuses."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from mixed_r1_ray.data.schema import Record, write_records
from mixed_r1_ray.rewards import response_files
from mixed_r1_ray.rewards.__main__ import main
from mixed_r1_ray.runtime.rollout_log import RolloutRow, write_rollouts


def said(answer: str) -> str:
    return f"<think>t</think><answer>{answer}</answer>"


def row(response, **changed) -> dict:
    return {
        "id": "p1", "source": "charts", "reward_type": "chart", "question": "How many?", "answer": "100",
        "response": response, **changed,
    }  # fmt: skip


BOX = {"reward_type": "iou", "source": "boxes", "answer": "[0, 0, 50, 100]", "question": "Where?"}


@pytest.fixture
def score(tmp_path, capsys):
    """Writes rows as JSON lines, scores them, and gives exit code, output rows, what was printed and told."""

    def run(rows, *arguments: str):
        file = tmp_path / "answers.jsonl"
        file.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
        code = main([str(file), *arguments])
        output = tmp_path / "answers.scored.jsonl"
        lines = [json.loads(line) for line in output.read_text().splitlines()] if output.exists() else None
        printed = capsys.readouterr()
        return code, lines, printed.out, printed.err

    return run


def test_each_row_gets_total_task_format_and_detail_beside_what_it_had(score):
    code, lines, *_ = score([row(said("104"), meta="kept"), row(said("106")), row("<answer>100</answer>")])
    assert code == 0
    assert [(r["score_total"], r["score_task"], r["score_format"]) for r in lines] == [
        (1.5, 1, 1), (0.5, 0, 1), (1, 1, 0)
    ]  # fmt: skip
    assert lines[0]["meta"] == "kept" and lines[0]["response"] == said("104")
    assert "106" in lines[1]["score_detail"]


def test_table_has_means_unscored_missing_answers_and_flat_groups_by_source(score):
    _, _, out, _ = score(
        [
            row([said("100"), said("1"), "100"]),  # totals 1.5, .5, 0: not flat
            row([said("7"), said("8"), said("9")], id="p2"),  # .5 each: flat
            row([said("yes"), said("no")], id="p3", reward_type="matching", answer="yes", source="quiz"),
            row(said("x"), id="p4", answer="", source="quiz"),
        ]
    )
    cells = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.split()}
    # 3.5 / 6, 1 / 6, 5 / 6
    assert cells["charts"] == ["chart", "6", "0.583", "0.167", "0.833", "0", "16.7%", "50.0%"]
    assert cells["quiz"] in (
        ["matching", "2", "1.000", "0.500", "1.000", "0", "0.0%", "0.0%"],
        ["chart", "1", "–", "–", "–", "1", "0.0%", "–"],
    )
    assert cells["all"] == ["9", "0.688", "0.250", "0.875", "1", "11.1%", "33.3%"]


def test_a_list_of_responses_is_scored_as_a_list(score):
    _, (line,), *_ = score([row([said("100"), "nothing"])])
    assert line["score_total"] == [1.5, 0.0] and line["score_format"] == [1.0, 0.0]
    assert len(line["score_detail"]) == 2


@pytest.mark.parametrize("batch_rows", [1, 2, 100])
def test_rows_of_one_prompt_that_follow_one_another_are_a_group_also_across_batches(
    score, monkeypatch, batch_rows
):
    monkeypatch.setattr(response_files, "BATCH_ROWS", batch_rows)
    code, lines, out, _ = score(
        [row(said("1")), row(said("2")), row(said("3")), row(said("1"), id="p2"), row(said("100"), id="p2")]
    )
    assert [line["score_total"] for line in lines] == [0.5, 0.5, 0.5, 0.5, 1.5]
    assert "50.0%" in out


def test_rows_that_cannot_be_read_are_named_counted_and_unscored_and_the_rest_goes_on(score):
    code, lines, out, err = score(
        [
            row(said("100")),
            "{broken",
            row(None),
            row([said("1"), 5]),
            row(said("1"), reward_type="chrat"),
            row(said("1"), answer=100),
            row(said("1"), **BOX | {"answer": "[9, 9, 1, 1]"}),
            row(said("100")),
        ]
    )
    assert code == 0
    assert [line["score_total"] for line in lines] == [1.5, *[None] * 6, 1.5]
    for number, column in [
        (2, "the line"),
        (3, "response"),
        (4, r"response[1]"),
        (5, "reward_type"),
        (6, "answer"),
    ]:
        assert f"answers.jsonl, line {number}: {column}: " in err
    assert "answers.jsonl, line 7: " in err and "[9, 9, 1, 1]" in err
    assert "could not be read: 5" in out
    assert lines[2]["score_detail"] == "response: is missing or null"


def test_ten_thousand_rows_with_one_fault_are_told_once_with_their_count(score):
    _, _, _, err = score([row(None)] * 300)
    assert err.count("\n") == 1 and "300 samples" in err and "line 1:" in err


def test_a_missing_column_names_the_nearest_and_nothing_is_written(score):
    code, lines, _, err = score([row(said("1"))], "--responses", "respones")
    assert code == 2 and lines is None
    assert "answers.jsonl" in err and "'respones'" in err and "'response'" in err
    assert "'answer'" in score([{"response": "x", "reward_type": "chart"}])[3]


def test_nothing_is_overwritten_without_force(score):
    assert score([row(said("1"))])[0] == 0
    code, lines, _, err = score([row(said("100"))])
    assert code == 2 and lines[0]["score_total"] == 0.5 and "--force" in err
    code, lines, *_ = score([row(said("100"))], "--force")
    assert code == 0 and lines[0]["score_total"] == 1.5


@pytest.mark.parametrize("frame", ["original", "200x100", "internvl", "own"])
def test_boxes_are_read_in_the_frame_that_is_named(score, frame):
    spoken = {"original": "[0,0,50,100]", "200x100": "[0,0,100,100]", "internvl": "[0,0,500,1000]"}
    rows = [
        row(said(box), **BOX, id=name, image_size=[100, 100], box_frame=[1000, 1000])
        for name, box in spoken.items()
    ]
    _, lines, *_ = score(rows, *(["--box-frame", frame] if frame != "own" else []))
    expected = "internvl" if frame == "own" else frame
    assert [line["id"] for line in lines if line["score_task"] == 1] == [expected]


def test_settings_are_those_of_the_configuration_with_or_without_their_section(score):
    assert (
        score([row(said("104"))], "chart_mode=exact", "reward.format_weight=0.25")[1][0]["score_total"]
        == 0.25
    )
    code, _, _, err = score([row(said("104"))], "chart_mod=exact", "--force")
    assert code == 2 and "reward.chart_mode" in err
    assert score([row(said("1"))], "num_workers=2", "--force")[0] == 2
    assert score([row(said("1"))], "algo.beta=0", "--force")[0] == 2


def test_lowest_samples_are_shown_on_request_lowest_first(score):
    rows = [row(said(answer), id=answer) for answer in ("100", "1", "2")] + [row("no tags", id="worst")]
    _, _, out, _ = score(rows, "--show", "2")
    assert out.index("prompt worst") < out.index("prompt 1,") and "prompt 2," not in out
    assert "no complete <answer>" in out


def test_your_own_function_scores_what_it_is_given(score, tmp_path):
    (tmp_path / "mine.py").write_text("def half(sample):\n    return len(sample.response) / 2\n")
    code, lines, *_ = score([row("four", reward_type="custom")], "--custom", f"{tmp_path}/mine.py:half")
    assert code == 0 and lines[0]["score_task"] == 2.0
    code, _, _, err = score([row("x")], "--custom", f"{tmp_path}/mine.py:whole", "--force")
    assert code == 2 and "whole" in err


@pytest.fixture
def model(tmp_path, tokenizer, matrix):
    folder = tmp_path / "model"
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    save_file({"model.embed_tokens.weight": matrix}, folder / "model.safetensors")
    return str(folder)


def test_captions_need_a_model_and_say_so(score, model):
    rows = [row(said("5")), row(said("a red circle"), reward_type="open_ended", answer="a red circle")]
    code, lines, _, err = score(rows)
    assert code == 2 and lines is None and "line 2" in err and "--model" in err
    code, lines, *_ = score(rows, "--model", model)
    assert code == 0 and lines[1]["score_task"] == pytest.approx(1.0)


def test_parquet_keeps_every_column_but_the_pictures(tmp_path, capsys):
    source = tmp_path / "records.parquet"
    records = [
        Record(f"r{i}", "boxes", "iou", (b"picture",), ((100, 100),), "Where?", "[0, 0, 50, 100]")
        for i in range(3)
    ]
    write_records(source, records)
    table = pq.read_table(source)
    responses = [said("[0, 0, 50, 100]"), said("[0, 0, 100, 100]"), None]
    pq.write_table(table.append_column("output", pa.array(responses)), source)
    assert main([str(source), "--responses", "output"]) == 0
    scored = pq.read_table(tmp_path / "records.scored.parquet")
    assert "images" not in scored.column_names
    assert scored.column("image_sizes").to_pylist() == table.column("image_sizes").to_pylist()
    assert scored.column("score_task").to_pylist() == [1.0, 0.5, None]
    assert "row 2: output: is missing or null" in capsys.readouterr().err


def test_parquet_with_lists_of_responses_has_lists_of_scores_null_where_a_row_is_bad(tmp_path):
    rows = {name: [value, value] for name, value in row("").items() if name != "response"}
    source = tmp_path / "groups.parquet"
    pq.write_table(pa.table(rows | {"response": [[said("100"), said("1")], None]}), source)
    assert main([str(source)]) == 0
    assert pq.read_table(tmp_path / "groups.scored.parquet").column("score_total").to_pylist() == [
        [1.5, 0.5],
        [None],
    ]


def rollout_row(index: int, response: str, total: float | None, **changed) -> RolloutRow:
    given = dict(
        prompt_id="p", source="boxes", reward_type="iou", question="Where?", answer="[0, 0, 50, 100]"
    )
    earned = dict(reward_total=total, reward_task=None, reward_format=None, reward_detail="", advantage=None)
    rest = dict(
        weight_version_oldest=0, weight_version_newest=0, prompt_tokens=1, response_tokens=1, finished=True
    )
    asked = dict(image_size=(100, 100), box_frame=(1000.0, 1000.0))
    return RolloutRow(sample_index=index, response=response, **given | earned | rest | asked | changed)


def test_rollouts_of_a_run_get_the_rewards_that_they_got_in_it(tmp_path, capsys):
    rows = [
        rollout_row(0, said("[0, 0, 500, 1000]"), 1.5),
        rollout_row(1, said("[0, 0, 1000, 1000]"), 1.0),
        rollout_row(2, "[0, 0, 500, 1000]", 0.0),
        rollout_row(
            0,
            said("B"),
            1.5,
            prompt_id="q",
            reward_type="matching",
            answer="a cat",
            choices=("a dog", "a cat"),
        ),
    ]
    path = write_rollouts(tmp_path, 1, rows)
    assert main([str(path)]) == 0
    assert "same as the file's reward_total: 4 of 4\n" in capsys.readouterr().out
    path = write_rollouts(
        tmp_path, 2, [*rows[:2], rollout_row(2, said("?"), 1.25), rollout_row(3, said("?"), None)]
    )
    assert main([str(path)]) == 0
    assert "2 of 4; the first that is not: row 2: 1.25 there, 0.5 here" in capsys.readouterr().out


def test_a_file_that_is_none_is_refused(tmp_path, capsys):
    (tmp_path / "a.parquet").write_text("no parquet")
    (tmp_path / "b.jsonl").write_text("\n[1]\n")
    (tmp_path / "c.csv").write_text("a,b")
    for name, words in {
        "a.parquet": "not a readable Parquet",
        "b.jsonl": "no line",
        "c.csv": ".jsonl",
        "d.jsonl": "no such",
    }.items():
        assert main([str(tmp_path / name)]) == 2
        assert words in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "b.jsonl", "c.csv"]


def test_half_a_surrogate_pair_is_written_as_json_writes_it(score):
    code, (line,), *_ = score([row(said("\ud800 é 100"))])
    assert code == 0 and "\ud800 é" in line["response"]


def test_numpy_is_the_heaviest_import(tmp_path):
    file = tmp_path / "one.jsonl"
    file.write_text(json.dumps(row(said("100"))))
    code = (
        "import sys; from mixed_r1_ray.rewards.__main__ import main; code = main([sys.argv[1]]);"
        "print(code, [name for name in ('ray', 'torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.splitlines()[-1] == "0 []", done.stdout + done.stderr
    assert np.float32(1.5) == json.loads((tmp_path / "one.scored.jsonl").read_text())["score_total"]
