"""Groups that wait to be learned from come back from their file bit by bit."""

from __future__ import annotations

import numpy as np
import pytest

from mixed_r1_ray.errors import UserError
from mixed_r1_ray.runtime.group_file import read_groups, write_groups
from mixed_r1_ray.types import Group, Rollout


def group(prompt_id: str, lengths: list[int]) -> Group:
    random = np.random.default_rng(len(lengths))
    rollouts = tuple(
        Rollout(
            sample_index=sample,
            token_ids=random.integers(0, 300_000, length).astype(np.int32),
            logprobs=-random.exponential(size=length).astype(np.float32),
            weight_versions=np.full(length, 3, np.int32),
            text=f"<answer>{prompt_id} é\n",
            finished=sample % 2 == 0,
        )
        for sample, length in enumerate(lengths)
    )
    return Group(prompt_id, np.arange(5, dtype=np.int32), rollouts)


def test_groups_come_back_with_their_types_and_in_their_order(tmp_path):
    written = {7: [group("b", [3, 1]), group("a", [2, 5, 4])], 8: [group("a", [1, 1])]}
    write_groups(tmp_path / "ahead.parquet", written)
    read = read_groups(tmp_path / "ahead.parquet")
    assert list(read) == [7, 8]
    for step, groups in written.items():
        assert [one.prompt_id for one in read[step]] == [one.prompt_id for one in groups]
        for one, two in zip(groups, read[step], strict=True):
            np.testing.assert_array_equal(one.prompt_token_ids, two.prompt_token_ids)
            for first, second in zip(one.rollouts, two.rollouts, strict=True):
                for name in ("token_ids", "logprobs", "weight_versions"):
                    np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
                    assert getattr(first, name).dtype == getattr(second, name).dtype
                assert (first.text, first.finished, first.sample_index) == (
                    second.text, second.finished, second.sample_index
                )  # fmt: skip


def test_a_file_of_another_kind_is_refused_by_name(tmp_path):
    path = tmp_path / "ahead.parquet"
    path.write_bytes(b"nothing of the sort")
    with pytest.raises(UserError, match=r"ahead\.parquet"):
        read_groups(path)
