from __future__ import annotations

import doctest
from pathlib import Path


def test_the_examples_of_the_documentation_run():
    page = Path(__file__).parents[2] / "docs" / "rewards.md"
    failed, tried = doctest.testfile(str(page), module_relative=False)
    assert (failed, tried > 0) == (0, True)
