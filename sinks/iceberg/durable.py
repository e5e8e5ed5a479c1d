"""Files that survive a power cut: a pyiceberg FileIO that syncs what it writes to local disks.

pyiceberg syncs nothing, so after a power cut a committed catalog row may name bytes that never reached the disk. Here every
manifest, manifest list and metadata file is synced with its directory when it is closed, that is before the catalog swap.
Data files are synced by their writer (`sinks.iceberg.parquet`) through `DurableFile.sync`.
"""

from __future__ import annotations

import os
import threading
from types import TracebackType
from typing import Any, Final, Self

from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO

_KNOWN_DIRECTORIES: Final[set[str]] = set()  # whose entry in their parent has been synced by this process
_LOCK: Final = threading.Lock()


class DurableFile(PyArrowFile):
    """A file that is on the disk once it is closed. Object stores do that by themselves."""

    @property
    def is_local(self) -> bool:
        """Whether the file is on a local disk."""
        return bool(self._filesystem.type_name == "local")

    def create_native(self) -> Any:
        """Return a plain Arrow stream; the caller calls `sync` after closing it."""
        return super().create(overwrite=True)

    def create(self, overwrite: bool = False) -> Any:  # noqa: FBT001, FBT002 pyiceberg's signature
        """Return a stream whose `close` syncs."""
        stream = super().create(overwrite=overwrite)
        return _SyncedStream(stream, self) if self.is_local else stream

    def sync(self) -> None:
        """Bring a closed local file and its directory entries to the disk; raises OSError."""
        if self.is_local:
            _sync(self._path)
            _sync_directories(os.path.dirname(self._path))  # noqa: PTH120 hot enough to stay with strings


class DurableFileIO(PyArrowFileIO):
    """`py-io-impl` of our catalogs."""

    def new_output(self, location: str) -> DurableFile:
        """Return the file at a location, to be written."""
        return self._file(location)

    def new_input(self, location: str) -> DurableFile:
        """Return the file at a location, to be read."""
        return self._file(location)

    def _file(self, location: str) -> DurableFile:
        scheme, netloc, path = self.parse_location(location, self.properties)
        return DurableFile(
            fs=self.fs_by_scheme(scheme, netloc), location=location, path=path, buffer_size=int(self.properties.get("buffer-size", 1 << 20))
        )


class _SyncedStream:
    def __init__(self, stream: Any, file: DurableFile) -> None:
        self._stream = stream
        self._file = file

    def write(self, data: bytes) -> int:
        return int(self._stream.write(data))

    def tell(self) -> int:
        return int(self._stream.tell())

    @property
    def closed(self) -> bool:
        return bool(self._stream.closed)

    def close(self) -> None:
        if not self._stream.closed:
            self._stream.close()
            self._file.sync()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _sync(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_directories(directory: str) -> None:
    _sync(directory)
    while True:
        parent = os.path.dirname(directory)  # noqa: PTH120
        with _LOCK:
            if directory in _KNOWN_DIRECTORIES or parent == directory:
                return
        try:
            _sync(parent)
        except PermissionError:
            return  # above what is ours: it was there before us
        with _LOCK:
            _KNOWN_DIRECTORIES.add(directory)
        directory = parent
