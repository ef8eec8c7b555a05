"""Whose turn it is on GPUs that several roles share (`cluster.share_gpus`): one is awake, the others sleep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mixed_r1_ray.remote import fetch

FIRST = "rollout"  # engines measure the free memory while they start, so they start while no other role holds any


class Turns:
    """Before a role works it takes its turn: the one that had it sleeps, then it wakes.

    Asleep means that what lies on the GPU has gone to the host, or is forgotten where it can be made again: never two
    roles at once, whatever the order of the calls. Roles that are not among `members` share nothing and just work.
    """

    def __init__(self, members: Mapping[str, Callable[[], Sequence]], timeout_s: float):
        """members: by role, its actors of now; they have `sleep` and `wake`. timeout_s: for either of them."""
        self._members, self._timeout_s = dict(members), timeout_s
        self._awake = FIRST

    def shares(self, role: str) -> bool:
        """Whether others have turns on its GPUs."""
        return role in self._members

    def take(self, role: str) -> None:
        """Returns when the role is awake and all others are asleep."""
        if role not in self._members or role == self._awake:
            return
        self._all(self._awake, "sleep")
        self._awake = ""  # nobody, should waking fail
        self._all(role, "wake")
        self._awake = role

    def _all(self, role: str, method: str) -> None:
        actors = self._members[role]() if role else ()
        what = f"{role} {'giving its GPUs away' if method == 'sleep' else 'taking its GPUs'}"
        fetch([getattr(actor, method).remote() for actor in actors], what=what, deadline_s=self._timeout_s)


def no_turns() -> Turns:
    """Every role has GPUs of its own, or none needs any."""
    return Turns({}, 0.0)
