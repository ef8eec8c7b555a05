"""The most memory of a GPU that was in use while a process had its turn on it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """Bytes. `free`, `total`: of the whole GPU. `reserved`, `most_reserved`: by this process, now and at most."""

    free: int
    total: int
    reserved: int
    most_reserved: int

    @property
    def peak(self) -> int:
        """In use at most, whoever held it: what is in use now, and what this process has given back since."""
        return self.total - self.free + self.most_reserved - self.reserved


def forget_peak() -> None:
    """From here on `peak_bytes` counts."""
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def peak_bytes() -> int | None:
    """The peak since `forget_peak`; None in a process that uses no GPU."""
    import torch

    if not torch.cuda.is_initialized():
        return None
    free, total = torch.cuda.mem_get_info()
    return MemoryReading(free, total, torch.cuda.memory_reserved(), torch.cuda.max_memory_reserved()).peak
