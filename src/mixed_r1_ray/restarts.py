"""How often something that failed is started again: a number of times in a row, with longer and longer pauses."""

from __future__ import annotations

import time
from collections.abc import Callable

from mixed_r1_ray.errors import UserError

LONGEST_PAUSE_S = 30.0


class Restarts:
    """Counts failures that nothing good came between."""

    def __init__(self, most: int, pause: Callable[[float], None] = time.sleep):
        self.most, self.failures = most, 0
        self._pause = pause

    def worked(self) -> None:
        """Something good came: the count begins anew."""
        self.failures = 0

    def failed(self, who: str, reason: Exception) -> None:
        """Pauses for 1, 2, 4, … s before the next start. Raises UserError where there have been enough."""
        self.failures += 1
        if self.failures > self.most:
            raise UserError(
                f"{who} failed {self.failures} times in a row (cluster.max_restarts {self.most}), the last time: {reason}"
            )
        self._pause(min(LONGEST_PAUSE_S, 2.0 ** (self.failures - 1)))
