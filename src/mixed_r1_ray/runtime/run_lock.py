"""One driver a run folder."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import TextIO

from mixed_r1_ray.errors import UserError


class RunLock:
    """One driver a folder: an advisory lock on a file that says who holds it.

    The kernel frees it when its process ends in whatever way, so there is no stale lock to clear after a
    crash, and a process id that was given out again cannot be mistaken for the owner.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = self._acquire()
        self._file.write(
            json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": int(time.time())})
        )
        self._file.flush()

    def _acquire(self) -> TextIO:
        while True:
            file = self.path.open("a+", encoding="utf-8")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                held = file.read()
                file.close()
                raise _in_use(self.path, held) from None
            # A former owner may have unlinked the file between our opening and our locking it.
            if self.path.exists() and os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                file.truncate(0)
                return file
            file.close()

    def release(self) -> None:
        """Frees the folder; a second call does nothing."""
        if not self._file.closed:
            self.path.unlink(missing_ok=True)
            self._file.close()


def check_unlocked(path: Path) -> None:
    """Raises UserError where a driver holds the lock. Writes nothing; a reader's lock is held for a moment."""
    try:
        with path.open(encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _in_use(path, file.read()) from None
    except OSError:  # no lock, or none that may be read
        return


def _in_use(path: Path, held: str) -> UserError:
    return UserError(
        f"run folder {path.parent} is in use by {_owner(held)}. Wait for it or end it, or choose another run.name"
    )


def _owner(text: str) -> str:
    try:
        owner = json.loads(text)
        return f"process {owner['pid']} on {owner['host']}"
    except (ValueError, KeyError, TypeError):
        return "another driver"
