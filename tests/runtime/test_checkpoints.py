from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import pytest
from written_checkpoints import sealed, write_checkpoint

from mixed_r1_ray.errors import UserError
from mixed_r1_ray.runtime.checkpoints import begin, commit, gather_parts, newest_valid, note_part, verify


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
    commit(begin(tmp_path, 6), {}, {})
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


def test_the_spared_step_stays_beside_the_newest(tmp_path):
    for step in (1, 2, 3, 4):
        write_checkpoint(tmp_path, step, writer("x"), keep=1, spare=2)
    assert names(tmp_path) == ["latest", "step_000002", "step_000004"]


def test_a_truncated_shard_and_a_flipped_byte_are_each_named(tmp_path):
    for step in (1, 2, 3):
        write_checkpoint(tmp_path, step, writer("twelve bytes"))
    shard, other = (tmp_path / f"step_00000{step}" / "policy" / "weights.bin" for step in (3, 2))
    os.truncate(shard, 5)
    other.write_bytes(b"twelve\x21bytes")
    found, faults = newest_valid(tmp_path)
    assert found.step == 1
    assert ["5 bytes instead of 12" in faults[0], "sha256 differs" in faults[1]] == [True, True]


KILLED_WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from written_checkpoints import write_checkpoint

def fill(folder):
    for name in ("one", "two"):
        (folder / name).write_bytes(bytes(200_000))

step = int(sys.argv[3])
while True:
    step += 1
    write_checkpoint(Path(sys.argv[1]), step, fill, {"step": step}, keep=2)
    print(step, flush=True)
"""


def test_a_writer_killed_at_any_moment_leaves_the_last_one_it_finished(tmp_path):
    script, committed = tmp_path / "writer.py", 0
    script.write_text(KILLED_WRITER)
    root = tmp_path / "checkpoints"
    for delay_s in (0.0, 0.003, 0.007, 0.013, 0.029):
        command = [sys.executable, str(script), str(root), str(Path(__file__).parents[1]), str(committed)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        first = int(child.stdout.readline())
        time.sleep(delay_s)
        child.send_signal(signal.SIGKILL)
        committed = max([first, *map(int, child.communicate()[0].split())])
        found, faults = newest_valid(root)
        assert faults == [] and found.step in (committed, committed + 1)  # killed between the rename and the message
        committed = found.step


def test_parts_of_several_writers_become_one_checkpoint(tmp_path):
    folder = begin(tmp_path, 7)

    def write(part: int) -> None:
        time.sleep(0.1 * part)
        (folder / f"shard-{part}").write_text(str(part))
        note_part(folder, part, sealed_one(folder, f"shard-{part}"))

    threads = [Thread(target=write, args=(part,)) for part in range(3)]
    for thread in threads:
        thread.start()
    commit(folder, {}, gather_parts(folder, 3, deadline_s=30))
    found, faults = newest_valid(tmp_path)
    assert (found.step, faults) == (7, [])
    assert names(found.path) == ["manifest.json", "shard-0", "shard-1", "shard-2"]


def sealed_one(folder: Path, name: str) -> dict:
    return {name: sealed(folder)[name]}


def test_a_part_that_never_comes_is_named_within_the_deadline(tmp_path):
    folder = begin(tmp_path, 7)
    note_part(folder, 0, {})
    with pytest.raises(UserError, match="nothing from learner 1 of 2 after 0.1 s"):
        gather_parts(folder, 2, deadline_s=0.1)
    assert newest_valid(tmp_path) == (None, [])


def test_a_file_that_changes_after_it_was_sealed_is_found(tmp_path):
    folder = begin(tmp_path, 1)
    writer("old")(folder)
    files = sealed(folder)
    (folder / "policy" / "weights.bin").write_text("new")
    with pytest.raises(UserError, match="sha256 differs"):
        verify(commit(folder, {}, files).path)
