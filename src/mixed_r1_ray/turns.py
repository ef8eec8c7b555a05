"""Whose turn it is on GPUs that several roles share (`cluster.share_gpus`): one is awake, the others sleep."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from mixed_r1_ray.remote import fetch
from mixed_r1_ray.scale.hardware import GIB

FIRST = "rollout"  # engines measure the free memory while they start, so they start while no other role holds any


class Turns:
    """Before a role works it takes its turn: the one that had it sleeps, then it wakes.

    Asleep means that what lies on the GPU has gone to the host, or is forgotten where it can be made again: never two
    roles at once, whatever the order of the calls. Roles that are not among `members` share nothing and just work.
    """

    def __init__(self, members: Mapping[str, Callable[[], Sequence]], timeout_s: float):
        """members: by role, its actors of now; they have `sleep` and `wake`. timeout_s: for either of them.

        `sleep` returns the most bytes of its GPU that were in use since `wake`, or None where that is not known.
        """
        self._members, self._timeout_s = dict(members), timeout_s
        self._awake = FIRST
        self._seconds: Counter[str] = Counter()  # by the role that took its turn
        self._peaks: Counter[str] = Counter()  # bytes, by role

    def shares(self, role: str) -> bool:
        """Whether others have turns on its GPUs."""
        return role in self._members

    def take(self, role: str) -> None:
        """Returns when the role is awake and all others are asleep."""
        if role not in self._members or role == self._awake:
            return
        begun = time.perf_counter()
        peaks = [peak for peak in self._all(self._awake, "sleep") if peak is not None]
        if peaks:
            self._peaks[self._awake] = max(self._peaks[self._awake], *peaks)
        self._awake = ""  # nobody, should waking fail
        self._all(role, "wake")
        self._awake = role
        self._seconds[role] += time.perf_counter() - begun

    def metrics(self) -> dict[str, float]:
        """What turns took, and the most memory in use in each, since they were last asked for."""
        seconds = {f"time/turn_{role}_s": taken for role, taken in self._seconds.items()}
        peaks = {f"memory/peak_{role}_gib": peak / GIB for role, peak in self._peaks.items()}
        self._seconds.clear()
        self._peaks.clear()
        return seconds | peaks

    def _all(self, role: str, method: str) -> list:
        actors = self._members[role]() if role else ()
        what = f"{role} {'giving its GPUs away' if method == 'sleep' else 'taking its GPUs'}"
        return fetch([getattr(actor, method).remote() for actor in actors], what=what, deadline_s=self._timeout_s)


def no_turns() -> Turns:
    """Every role has GPUs of its own, or none needs any."""
    return Turns({}, 0.0)
