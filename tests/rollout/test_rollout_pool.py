"""Groups from several engines, some of which fail, with stand-ins for the actors."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from mixed_r1_ray.errors import UserError
from mixed_r1_ray.remote import ActorDied, ActorFailure, ObjectLost
from mixed_r1_ray.rollout import pool as module
from mixed_r1_ray.rollout.pool import RolloutPool
from mixed_r1_ray.types import GroupInfo, SamplingConfig

SAMPLING = SamplingConfig(2, 8, 1.0)
DIED = ActorDied("it died")


def prompts(names: str) -> list:
    return [SimpleNamespace(prompt_id=name) for name in names]


class Stream:
    """What an engine makes: a group and its info in turn; then nothing, or where it fails a reference to the error."""

    def __init__(self, engine: Engine, names: list[str], version):
        self.engine, self.version = engine, version
        self.made: list = [item for name in names for item in (f"group {name}", GroupInfo(name, (1,), (True,), 0))]
        self.failure = engine.error if engine.fails_after is not None else None
        if engine.fails_after is not None:
            self.made = self.made[: engine.fails_after]

    @property
    def ready(self) -> bool:
        return not self.engine.hangs

    def __next__(self):
        if self.made:
            made = self.made.pop(0)
            if isinstance(made, GroupInfo):
                self.engine.log.append((self.engine.name, made.prompt_id, self.version))
            return made
        failure, self.failure = self.failure, None
        if failure is None:
            raise StopIteration
        return failure


@dataclass(eq=False)
class Engine:
    """fails_after: that many objects of a stream, with `error`."""

    name: str
    log: list
    fails_after: int | None = None
    error: Exception = DIED
    hangs: bool = False
    starting: bool = False
    loads: list = field(default_factory=list)

    @property
    def generate(self):
        def remote(share, sampling, step, update):
            return Stream(self, [prompt.prompt_id for prompt in share], update and update.version)

        return SimpleNamespace(options=lambda num_returns: SimpleNamespace(remote=remote))

    @property
    def load_weights(self):
        return SimpleNamespace(remote=lambda update: self.error if self.fails_after is not None else self.loads.append(update))

    @property
    def ready(self):
        return SimpleNamespace(remote=lambda: SimpleNamespace(ready=not self.starting))


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    def fetch(ref, what, deadline_s):
        if isinstance(ref, Exception):
            raise ref
        return ref

    monkeypatch.setattr(module, "first_made", lambda refs, what, seconds: [ref for ref in refs if ref.ready])
    monkeypatch.setattr(module, "fetch", fetch)
    monkeypatch.setattr("time.sleep", lambda seconds: None)


@dataclass(eq=False)
class Pool:
    """A pool of `engines`, those that take their places, and what was told."""

    engines: list[Engine]
    substitutes: list[Engine] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    max_restarts: int = 2

    def __post_init__(self):
        renew = lambda number: self.substitutes.pop(0)  # noqa: E731
        restarts = {"renew": renew, "max_restarts": self.max_restarts} if self.substitutes else {}
        self.pool = RolloutPool(self.engines, 5.0, 1.0, warn=self.told.append, **restarts)


def ids(groups) -> list[str]:
    groups = list(groups)
    assert all(one.group == f"group {one.prompt.prompt_id}" and one.info.prompt_id == one.prompt.prompt_id for one in groups)
    return sorted(one.prompt.prompt_id for one in groups)


def generate(pool: RolloutPool, names: str, step: int = 1):
    return pool.generate(prompts(names), SAMPLING, step)


def test_every_group_comes_once_with_its_prompt_whichever_engine_made_it():
    log = []
    assert ids(generate(Pool([Engine("0", log), Engine("1", log)]).pool, "abcde")) == list("abcde")
    assert {name for engine, name, _ in log if engine == "0"} == set("ace")


def test_ready_takes_what_is_there_and_iterating_the_rest():
    engine = Engine("0", [])
    stream = generate(Pool([engine]).pool, "abc")
    engine.hangs = True
    assert stream.ready() == []
    engine.hangs = False
    assert ids(stream.ready()) == list("abc")
    assert stream.ready() == list(stream) == []


@pytest.mark.parametrize("fails_after", range(6))
def test_what_a_dead_engine_had_not_finished_is_asked_again_and_nothing_twice(fails_after):
    log = []
    pool = Pool([Engine("0", log, fails_after)], [Engine("0'", log)])
    assert ids(generate(pool.pool, "abc")) == list("abc")
    assert [name for engine, name, _ in log] == list("abc")
    assert [name for engine, name, _ in log if engine == "0"] == list("abc")[: fails_after // 2]
    assert len(pool.told) == 1 and "rollout[0] is replaced" in pool.told[0] and "it died" in pool.told[0]


def test_engines_that_run_take_over_and_nobody_waits_for_the_new_one():
    log = []
    pool = Pool([Engine("0", log, 0), Engine("1", log)], [Engine("0'", log, starting=True)])
    assert ids(generate(pool.pool, "abcd")) == list("abcd")
    assert {engine for engine, _, _ in log} == {"1"}
    log.clear()
    pool.pool.workers[0].starting = False
    assert ids(generate(pool.pool, "ab", step=2)) == list("ab")
    assert {engine for engine, _, _ in log} == {"1"}  # still starting when it was last asked


def test_batches_that_one_engine_had_are_all_asked_again_with_the_weights_that_each_was_begun_with():
    log = []
    pool = Pool([Engine("0", log, 2)], [Engine("0'", log)])
    pool.pool.queue_weights(SimpleNamespace(version=4))
    first = generate(pool.pool, "ab", step=5)
    pool.pool.queue_weights(SimpleNamespace(version=5))
    second = generate(pool.pool, "cd", step=6)
    assert ids(first) == ["a", "b"] and ids(second) == ["c", "d"]
    assert log == [("0", "a", 4), ("0'", "b", 4), ("0", "c", 5), ("0'", "d", 5)]
    assert len(pool.told) == 1


def test_an_engine_that_hangs_is_replaced_at_the_deadline(monkeypatch):
    log, now = [], iter(range(0, 10**6, 10))
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    pool = Pool([Engine("0", log, hangs=True)], [Engine("0'", log)])
    assert ids(generate(pool.pool, "ab", step=3)) == ["a", "b"]
    assert "rollout[0] generating at step 3: no group finished within 5 s" in pool.told[0]


def test_an_engine_that_fails_on_and_on_stops_the_run():
    broken = [Engine(str(number), [], 0) for number in range(4)]
    pool = Pool(broken[:1], broken[1:])
    with pytest.raises(UserError, match=r"rollout\[0\] failed 3 times in a row \(cluster.max_restarts 2\).*it died") as info:
        list(generate(pool.pool, "ab"))
    assert not isinstance(info.value, ActorFailure)


def test_an_engine_that_finishes_something_in_between_may_fail_again():
    engines = [Engine(str(number), [], 2) for number in range(6)]
    pool = Pool(engines[:1], engines[1:], max_restarts=1)
    assert ids(generate(pool.pool, "abcde")) == list("abcde")


@pytest.mark.parametrize("error", [ObjectLost("weights are gone"), UserError("tokens differ")])
def test_what_another_engine_would_not_mend_is_raised(error):
    pool = Pool([Engine("0", [], 2, error)], [Engine("0'", [])])
    with pytest.raises(type(error), match=str(error)):
        list(generate(pool.pool, "ab"))
    assert pool.told == []


def test_without_a_way_to_replace_an_engine_its_failure_is_raised():
    with pytest.raises(ActorDied, match="it died"):
        list(generate(Pool([Engine("0", [], 1)]).pool, "ab"))


def test_an_engine_that_ends_before_all_groups_are_made_is_named():
    engine = Engine("0", [], 2, error=None)
    with pytest.raises(ActorFailure, match=r"rollout\[0\] generating at step 1: ended with 1 prompts unanswered"):
        list(generate(Pool([engine]).pool, "ab"))


def test_a_sync_does_not_wait_for_an_engine_that_starts_and_it_loads_when_it_works():
    log = []
    pool = Pool([Engine("0", log, 0), Engine("1", log)], [new := Engine("0'", log, starting=True)])
    assert ids(generate(pool.pool, "ab")) == ["a", "b"]
    pool.pool.load_weights(update := SimpleNamespace(version=7))
    assert new.loads == [] and pool.engines[1].loads == [update]
    pool.pool._engines[0].ready.ready = True
    assert ids(generate(pool.pool, "ab", step=2)) == ["a", "b"]
    assert ("0'", "a", 7) in log


def test_all_engines_load_weights_and_one_that_cannot_is_replaced():
    log = []
    pool = Pool([Engine("0", log), Engine("1", log, 0)], [Engine("1'", log)])
    update = SimpleNamespace(version=7)
    pool.pool.load_weights(update)
    assert pool.engines[0].loads == [update] and "rollout[1] is replaced" in pool.told[0]
    assert ids(generate(pool.pool, "ab")) == ["a", "b"]
    assert {version for _, _, version in log} == {7}


def test_weights_that_went_past_the_store_are_put_there_for_an_engine_that_is_replaced_later():
    log, asked = [], []
    pool = Pool([Engine("0", log, 2), Engine("1", log)], [Engine("0'", log)])
    again = lambda: asked.append(7) or SimpleNamespace(version=7)  # noqa: E731
    pool.pool.take_over(7, {0: None, 1: None}, again)
    assert asked == []
    assert ids(generate(pool.pool, "abcd")) == list("abcd")
    assert asked == [7]
    assert [version for engine, _, version in log if engine == "0'"] == [7]
    assert {version for engine, _, version in log if engine == "1"} <= {None, 7}
    assert ids(generate(pool.pool, "ef", step=2)) == ["e", "f"] and asked == [7]


def test_an_engine_that_did_not_get_the_weights_gets_them_from_the_store():
    log = []
    pool = Pool([Engine("0", log), Engine("1", log)], [Engine("1'", log)])
    pool.pool.take_over(7, {0: None, 1: DIED}, lambda: SimpleNamespace(version=7))
    assert "rollout[1] is replaced" in pool.told[0]
    assert ids(generate(pool.pool, "ab")) == ["a", "b"]
    assert {version for _, _, version in log} == {7}
    pool.pool.take_over(8, {0: None}, lambda: SimpleNamespace(version=8))  # 1' was starting when it was sent
    assert ids(generate(pool.pool, "cd", step=2)) == ["c", "d"]
    assert {version for _, name, version in log if name in "cd"} == {8}
