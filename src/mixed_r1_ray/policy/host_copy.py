"""What a process has on its GPU goes to host memory and comes back: through pinned buffers that are made once and kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from mixed_r1_ray.policy.device import free_cached_memory

PIECE_BYTES = 64 * 2**20  # choice; a power of two, since torch makes every pinned buffer as large as the next one


class HostCopy:
    """Room in host memory for tensors of one device.

    Tensors stay the objects that they are: their storages are emptied and later filled again. So views of them, and
    tensors that share a storage, are right afterwards, whoever holds them, and a storage is copied once. Until
    `bring_back` none of them may be read: there is nothing behind them, and the process would crash.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._pieces: list[torch.Tensor] = []  # bytes; storages lie in them one behind the other
        self._layout: list[tuple[int, int]] = []  # (identity, bytes) of the storages in them
        self._kept: list[torch.UntypedStorage] = []
        self._dropped: list[tuple[torch.UntypedStorage, int]] = []

    @property
    def num_bytes(self) -> int:
        """Of host memory that it holds, from the first `take_off` on."""
        return sum(piece.numel() for piece in self._pieces)

    def take_off(
        self,
        changing: Iterable[torch.Tensor] = (),
        constant: Iterable[torch.Tensor] = (),
        dropped: Iterable[torch.Tensor] = (),
    ) -> None:
        """Frees the device memory of all three: `changing` is copied, `constant` the first time alone, `dropped` never."""
        assert not self._kept, "nothing is there to take off"
        changed, kept = _storages(changing), _storages(constant)
        kept = {identity: storage for identity, storage in kept.items() if identity not in changed}
        gone = {identity: one for identity, one in _storages(dropped).items() if identity not in changed | kept}
        self._kept = [*kept.values(), *changed.values()]
        layout = [(identity, storage.nbytes()) for identity, storage in (kept | changed).items()]
        first = len(kept)
        if layout != self._layout:
            self._pieces, self._layout, first = make_room(sum(s for _, s in layout), self._device.type == "cuda"), layout, 0
        for there, here in self._runs(first):
            here.copy_(there, non_blocking=True)
        self._synchronize()
        self._dropped = [(storage, storage.nbytes()) for storage in gone.values()]
        for storage in (*self._kept, *gone.values()):
            storage.resize_(0)
        free_cached_memory()

    def bring_back(self) -> None:
        """All of them to the device again; what was dropped is zero."""
        for storage, (_, size) in zip(self._kept, self._layout, strict=True):
            storage.resize_(size)
        for there, here in self._runs(0):
            there.copy_(here, non_blocking=True)
        for storage, size in self._dropped:
            storage.resize_(size)
            self._bytes_of(storage).zero_()
        self._kept, self._dropped = [], []
        self._synchronize()

    def _runs(self, first: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(on the device, on the host), bytes that lie in one piece, of the storages from number `first` on."""
        begin = sum(size for _, size in self._layout[:first])
        for storage in self._kept[first:]:
            there, done = self._bytes_of(storage), 0
            while done < there.numel():
                number, offset = divmod(begin + done, PIECE_BYTES)
                length = min(there.numel() - done, PIECE_BYTES - offset)
                yield there[done : done + length], self._pieces[number][offset : offset + length]
                done += length
            begin += done

    def _bytes_of(self, storage: torch.UntypedStorage) -> torch.Tensor:
        return torch.empty(0, dtype=torch.uint8, device=self._device).set_(storage)

    def _synchronize(self) -> None:
        """Other streams than this one use these tensors, and memory that is still being copied must not be freed."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def make_room(num_bytes: int, pinned: bool) -> list[torch.Tensor]:
    """So many bytes of host memory, in pieces of PIECE_BYTES and a last one of the rest."""
    sizes = [PIECE_BYTES] * (num_bytes // PIECE_BYTES)
    sizes += [num_bytes % PIECE_BYTES] if num_bytes % PIECE_BYTES else []
    return [torch.empty(size, dtype=torch.uint8, pin_memory=pinned) for size in sizes]


def _storages(tensors: Iterable[torch.Tensor]) -> dict[int, torch.UntypedStorage]:
    """Each once, by what tells it from others whatever it holds."""
    storages = (tensor.untyped_storage() for tensor in tensors)
    return {storage._cdata: storage for storage in storages if storage.nbytes()}
