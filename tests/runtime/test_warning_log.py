from __future__ import annotations

from mixed_r1_ray.runtime.warning_log import Warned, WarningLog, read_warnings


def test_each_warning_is_shown_and_kept_once(tmp_path):
    shown = []
    log = WarningLog(tmp_path / "w", shown.append)
    for step in (1, 2):
        log.add("row 8 is bad", step)
    log.add("other")
    assert shown == ["row 8 is bad", "other"]
    assert read_warnings(tmp_path / "w") == [Warned("row 8 is bad", 1), Warned("other", None)]


def test_a_continued_run_keeps_the_earlier_ones_and_shows_a_repeated_one_again(tmp_path):
    WarningLog(tmp_path / "w").add("first", 3)
    with (tmp_path / "w").open("a") as file:
        file.write('{"step": 4, "te')  # killed while writing
    shown = []
    log = WarningLog(tmp_path / "w", shown.append)
    log.add("first", 9)
    log.add("second", 10)
    assert shown == ["first", "second"]
    assert read_warnings(tmp_path / "w") == log.warnings == [Warned("first", 3), Warned("second", 10)]
