from __future__ import annotations

from dataclasses import replace

import pyarrow.parquet as pq

from mixed_r1_ray.runtime.rollout_log import RolloutRow, read_rollouts, write_rollouts

ROW = RolloutRow(
    prompt_id="p",
    source="s",
    reward_type="chart",
    question="q?",
    answer="5",
    sample_index=0,
    response="<think>é</think>",
    reward_total=1.5,
    reward_task=1.0,
    reward_format=1.0,
    reward_detail="ok",
    advantage=0.7,
    weight_version_oldest=3,
    weight_version_newest=4,
    prompt_tokens=20,
    response_tokens=6,
    finished=True,
    choices=("five", "six"),
    image_size=(640, 480),
    box_frame=(1000.0, 1000.0),
)


def test_rows_come_back_with_unscored_as_null(tmp_path):
    unscored = replace(
        ROW, sample_index=1, reward_total=None, reward_task=None, reward_format=None, advantage=None,
        choices=None, image_size=None, box_frame=None,
    )  # fmt: skip
    path = write_rollouts(tmp_path / "rollouts", 10, [ROW, unscored])
    assert path.name == "step_000010.parquet"
    assert read_rollouts(path) == [ROW, unscored]
    assert pq.read_table(path)["step"].to_pylist() == [10, 10]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_step_in_which_nothing_was_scored_keeps_its_column_types(tmp_path):
    row = replace(ROW, reward_total=None, reward_task=None, reward_format=None, advantage=None)
    schema = pq.read_schema(write_rollouts(tmp_path, 1, [row]))
    assert str(schema.field("advantage").type) == "double" and str(schema.field("finished").type) == "bool"
