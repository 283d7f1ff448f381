"""Locks shared by all processes of one studio: advisory locks on the bytes of one file.

A lock belongs to an open file (F_OFD_SETLK), so the kernel releases it when its process ends, even if it is killed. The
file stays empty; only its locks are used.
"""

import asyncio
import fcntl
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from zlib import crc32

from clearhead.studio.learner.database import private_file

EVERYBODY: Final = -2  # owner of locks that all learners share; a learner's number is -1 or above
LOOK: Final = 0.02  # seconds between two tries


class Locks:
    """Semaphores by kind and owner.

    Args:
        file: created if it does not exist; on a local file system.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        private_file(file)

    def take(self, kind: str, owner: int, count: int) -> int | None:
        """Take one of `count` places. Return a file descriptor that releases it when closed; None if all are taken."""
        descriptor = os.open(self._file, os.O_RDWR)
        for place in range(count):
            byte = (crc32(kind.encode()) & 0xFFFF) << 40 | (owner - EVERYBODY) << 8 | place
            lock = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
            try:
                fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)
            except BlockingIOError:
                continue
            return descriptor
        os.close(descriptor)
        return None

    @asynccontextmanager
    async def hold(self, kind: str, owner: int = EVERYBODY, count: int = 1) -> AsyncIterator[None]:
        """Wait for one of `count` places, and hold it."""
        while (taken := self.take(kind, owner, count)) is None:
            await asyncio.sleep(LOOK)
        try:
            yield
        finally:
            os.close(taken)
