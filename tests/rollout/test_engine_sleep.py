"""The engine between its turns on a GPU: what lies there when, and what it still knows afterwards. Without a GPU."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixed_r1_ray.errors import UserError
from mixed_r1_ray.rollout.engine import Engine, StaleCache
from mixed_r1_ray.types import SamplingConfig

SAMPLING = SamplingConfig(1, 1, 1.0)
PARTS = {"changing": object()}


class Device:
    """vLLM as far as memory goes: two tagged pools, and caches that are stale once their memory was given away."""

    def __init__(self):
        self.there = {"weights", "kv_cache"}
        self.stale: set[str] = set()
        self.held = 0  # blocks of requests
        self.llm_engine = SimpleNamespace(
            reset_mm_cache=lambda: self.stale.discard("pictures"),
            reset_encoder_cache=lambda: self.stale.discard("encoder"),
            has_unfinished_requests=self.works,
        )

    def works(self) -> bool:
        assert self.there == {"weights", "kv_cache"} and not self.stale
        return False

    def sleep(self, level: int) -> None:
        assert level == 1 and "weights" in self.there
        self.there.clear()
        self.stale = {"prefix", "pictures", "encoder"}

    def wake_up(self, tags: list[str]) -> None:
        assert not self.there & set(tags), "taken twice"
        self.there |= set(tags)

    def reset_prefix_cache(self) -> bool:
        """As vLLM: nothing is reset while requests hold blocks, and that is all that it says."""
        if not self.held:
            self.stale.discard("prefix")
        return not self.held

    def collective_rpc(self, method: str, args: tuple) -> list:
        assert method == "load_policy_weights" and "weights" in self.there
        self.stale = {"prefix", "pictures", "encoder"}
        return [[]]


@pytest.fixture
def engine() -> Engine:
    return engine_on(Device())


def engine_on(device: Device) -> Engine:
    engine = object.__new__(Engine)
    engine.llm, engine.version, engine._cache_asleep = device, 0, False
    return engine


def test_weights_come_back_first_and_the_cache_when_prompts_come(engine):
    engine.sleep()
    assert engine.llm.there == set()
    engine.wake()
    assert engine.llm.there == {"weights"}
    engine.load_weights(PARTS, 3)
    assert engine.llm.there == {"weights"}, "a sync needs the room of the cache"
    list(engine.generate([], SAMPLING, 1))
    assert engine.llm.there == {"weights", "kv_cache"} and engine.version == 3


@pytest.mark.parametrize("asleep", [False, True])
def test_a_cache_that_is_not_reset_is_an_error_that_names_the_version_and_no_users_mistake(engine, asleep):
    """So that the pool puts another engine in this one's place: an error of the user's would end the run."""
    if asleep:
        engine.sleep()
        engine.wake()
    engine.llm.held = 3
    with pytest.raises(StaleCache, match="prefix cache at weight version 7") as caught:
        engine.load_weights(PARTS, 7)
    assert engine.version == 0 and not isinstance(caught.value, UserError)
    if asleep:
        with pytest.raises(StaleCache, match="weight version 0"):
            list(engine.generate([], SAMPLING, 1))


@given(st.lists(st.sampled_from(["nothing", "sync", "generate"]), max_size=8))
def test_after_any_turn_the_engine_works_with_what_it_has_and_with_no_stale_cache(turns):
    engine = engine_on(Device())
    for turn in turns:
        engine.sleep()
        engine.wake()
        if turn == "sync":
            engine.load_weights(PARTS, engine.version + 1)
        if turn == "generate":
            list(engine.generate([], SAMPLING, 1))
    list(engine.generate([], SAMPLING, 1))
    assert engine.version == turns.count("sync")
