from __future__ import annotations

import json
from pathlib import Path

import pytest

from mixed_r1_ray.runtime.checkpoints import begin, commit, newest_valid, write_checkpoint


def writer(content: str):
    def write(folder: Path) -> None:
        (folder / "policy").mkdir()
        (folder / "policy" / "weights.bin").write_text(content)
        (folder / "rng.json").write_text("{}")

    return write


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_checkpoint_comes_back_with_its_state(tmp_path):
    state = {"step": 100, "rng": [0.1, 1e-17], "by_rank": {0: "a"}}
    write_checkpoint(tmp_path, 100, writer("w"), state)
    found, faults = newest_valid(tmp_path)
    assert (found.step, faults) == (100, [])
    assert found.state == {"step": 100, "rng": [0.1, 1e-17], "by_rank": {"0": "a"}}
    assert (tmp_path / "latest" / "policy" / "weights.bin").read_text() == "w"
    assert names(tmp_path) == ["latest", "step_000100"]


def test_empty_or_missing_folder_has_no_checkpoint(tmp_path):
    assert newest_valid(tmp_path / "none") == (None, [])


def test_a_writer_that_fails_leaves_the_former_checkpoint_alone(tmp_path):
    write_checkpoint(tmp_path, 1, writer("one"), {})

    def failing(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_checkpoint(tmp_path, 2, failing, {})
    found, faults = newest_valid(tmp_path)
    assert found.step == 1 and faults == []


def test_leftovers_of_an_interrupted_run_are_removed_at_the_next_begin(tmp_path):
    (begin(tmp_path, 5) / "half").write_text("x")
    (tmp_path / ".step_000003.deleted").mkdir()
    commit(begin(tmp_path, 6), {})
    assert names(tmp_path) == ["latest", "step_000006"]


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (
            lambda path: (path / "policy" / "weights.bin").write_text("thred"),
            "content of file policy/weights.bin is damaged",
        ),
        (lambda path: (path / "policy" / "weights.bin").write_text("thre"), "has 4 bytes instead of 5"),
        (lambda path: (path / "rng.json").unlink(), "file rng.json is missing"),
        (lambda path: (path / "manifest.json").unlink(), "has no manifest.json"),
        (lambda path: (path / "manifest.json").write_text('{"step":'), "manifest.json cannot be read"),
        (lambda path: (path / "manifest.json").write_text("[]"), "manifest.json cannot be read"),
        (
            lambda path: (path / "manifest.json").write_text(
                (path / "manifest.json").read_text().replace('"cursor": 3', '"cursor": 4')
            ),
            "was changed",
        ),
    ],
)
def test_newest_valid_passes_over_a_damaged_one_names_its_fault_and_keeps_it(tmp_path, damage, fault):
    write_checkpoint(tmp_path, 1, writer("one"), {})
    newest = write_checkpoint(tmp_path, 3, writer("three"), {"cursor": 3}).path
    damage(newest)
    found, faults = newest_valid(tmp_path)
    assert found.step == 1
    assert len(faults) == 1 and "step_000003" in faults[0] and fault in faults[0]
    assert newest.is_dir()


def test_all_damaged_is_none_with_every_fault(tmp_path):
    for step in (1, 2):
        (write_checkpoint(tmp_path, step, writer("x"), {}).path / "manifest.json").unlink()
    found, faults = newest_valid(tmp_path)
    assert found is None and ["step_000002" in faults[0], "step_000001" in faults[1]] == [True, True]


def test_keep_prunes_the_oldest_only(tmp_path):
    for step in (1, 2, 10, 100):
        write_checkpoint(tmp_path, step, writer("x"), {}, keep=2)
    assert names(tmp_path) == ["latest", "step_000010", "step_000100"]


def test_pruning_spares_newer_ones_that_were_passed_over(tmp_path):
    for step in (1, 2, 9):
        write_checkpoint(tmp_path, step, writer("x"), {})
    write_checkpoint(tmp_path, 3, writer("x"), {}, keep=1)
    assert names(tmp_path) == ["latest", "step_000003", "step_000009"]


def test_the_same_step_is_replaced(tmp_path):
    (write_checkpoint(tmp_path, 4, writer("old"), {}).path / "manifest.json").unlink()
    write_checkpoint(tmp_path, 4, writer("new"), {})
    assert (newest_valid(tmp_path)[0].path / "policy" / "weights.bin").read_text() == "new"
    assert names(tmp_path) == ["latest", "step_000004"]


def test_steps_are_ordered_as_numbers(tmp_path):
    for step in (999_999, 1_000_000):
        write_checkpoint(tmp_path, step, writer("x"), {})
    assert newest_valid(tmp_path)[0].step == 1_000_000


def test_state_that_json_cannot_hold_is_refused_before_the_rename(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_checkpoint(tmp_path, 1, writer("x"), {"loss": float("nan")})
    assert newest_valid(tmp_path) == (None, [])


def test_manifest_lists_every_file_with_its_size(tmp_path):
    path = write_checkpoint(tmp_path, 1, writer("12345"), {}).path
    files = json.loads((path / "manifest.json").read_text())["files"]
    assert {name: entry["bytes"] for name, entry in files.items()} == {"policy/weights.bin": 5, "rng.json": 2}
