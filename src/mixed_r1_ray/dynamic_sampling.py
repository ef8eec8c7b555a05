"""Dynamic sampling: which groups a step learns from where some have nothing to tell (DAPO, arXiv 2503.14476).

A group whose samples all earned the same has advantages of zero. It is set aside, and another prompt of the same reward
type takes its place, so that the mixture of types is what it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mixed_r1_ray.experience import Experience
from mixed_r1_ray.runtime.metrics import is_flat


class InformativeGroups:
    """Collects a step's groups until as many of each reward type as wanted differ in their rewards."""

    def __init__(self, wanted_types: Sequence[str]):
        """wanted_types: the reward type of every group that the step should have."""
        self.wanted = Counter(wanted_types)
        self.informative: list[Experience] = []
        self.flat: list[Experience] = []

    def add(self, experiences: Sequence[Experience]) -> None:
        """Takes in what was generated."""
        for experience in experiences:
            (self.flat if is_flat(experience.scored()) else self.informative).append(experience)

    def missing(self) -> list[str]:
        """The reward type of each group that is wanted and not there yet."""
        there = Counter(experience.prompt.reward_type for experience in self.informative)
        return sorted((self.wanted - there).elements())

    @property
    def generated(self) -> list[Experience]:
        """Everything that was taken in."""
        return _sorted([*self.informative, *self.flat])

    def fill(self) -> list[Experience]:
        """Flat groups in the places that are still free, those drawn first before others."""
        free, chosen = Counter(self.missing()), []
        for experience in self.flat:
            if free[experience.prompt.reward_type] > 0:
                free[experience.prompt.reward_type] -= 1
                chosen.append(experience)
        return chosen

    def batch(self) -> list[Experience]:
        """What the step learns from: all informative groups, and flat ones where these are too few."""
        return _sorted([*self.informative, *self.fill()])

    def metrics(self, refills: int) -> dict[str, float]:
        """`dynamic_sampling/*`."""
        flat = Counter(experience.prompt.reward_type for experience in self.flat)
        every = flat + Counter(experience.prompt.reward_type for experience in self.informative)
        return {
            "dynamic_sampling/refills": refills,
            "dynamic_sampling/generated_groups": every.total(),
            "dynamic_sampling/filled_groups": len(self.fill()),
            **{f"dynamic_sampling/zero_variance_fraction/{kind}": flat[kind] / every[kind] for kind in sorted(every)},
        }


def _sorted(experiences: list[Experience]) -> list[Experience]:
    return sorted(experiences, key=lambda experience: experience.prompt.prompt_id)
