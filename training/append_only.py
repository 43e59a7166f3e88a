"""Files that only grow, a record at a time, and survive a kill at any moment."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ase_hmlp.errors import DataError
from ase_hmlp.files import lock


class RecordFile:
    """A growing file. The record a killed writer left half-written is cut off on opening.

    Locked while open: a second writer is refused.

    Parameters
    ----------
    path : Path
        Made unless it exists; removed on closing if nothing was written.
    split : callable
        From the bytes of a file to its complete records; only an incomplete last one may be
        missing among them.

    Attributes
    ----------
    records : list of str
        What the file held on opening.
    cut : int
        Bytes that were cut off.

    Raises
    ------
    OutputExistsError
        If another process is writing to it.
    DataError
        From `split`, if it is another kind of file.
    """

    def __init__(self, path: Path, split: Callable[[bytes], list[bytes]]):
        self._path = path
        # Unbuffered: a record is one write, which no Ctrl-C comes in between.
        self._stream = path.open("a+b", buffering=0)
        try:
            lock(self._stream, self._path)
            self._stream.seek(0)
            content = self._stream.read()
            records = split(content)
            whole = sum(map(len, records))
            self.cut = len(content) - whole
            if self.cut:
                self._stream.truncate(whole)
            self.records = [record.decode() for record in records]
            self._empty = whole == 0
        except BaseException:
            self._stream.close()
            raise

    def append(self, record: str) -> None:
        """Write one record, through to the disk."""
        data = record.encode()
        written = self._stream.write(data)
        while written < len(data):  # a full disk raises in the next write
            written += self._stream.write(data[written:])
        os.fsync(self._stream.fileno())
        self._empty = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._empty:
            self._path.unlink(missing_ok=True)
        self._stream.close()


def split_lines(content: bytes) -> list[bytes]:
    """Complete lines."""
    return [line for line in content.splitlines(keepends=True) if line.endswith(b"\n")]


def split_records(content: bytes) -> list[bytes]:
    """Complete lines of a file of JSON objects, one a line.

    Raises
    ------
    DataError
        If a line, complete or not, begins with something else.
    """
    for n, line in enumerate(content.splitlines(), 1):
        if not line.startswith(b"{"):
            raise DataError(f"line {n} is not a record")
    return split_lines(content)


def split_frames(content: bytes) -> list[bytes]:
    """Complete frames of an extended XYZ file.

    Raises
    ------
    DataError
        If a frame does not begin with a number of atoms.
    """
    lines = content.split(b"\n")
    complete = len(lines) - 1  # what follows the last newline is no line yet
    frames, start = [], 0
    while start < complete:
        try:
            end = start + int(lines[start]) + 2
        except ValueError:
            raise DataError(f"line {start + 1} is not a number of atoms") from None
        if end > complete:
            break
        frames.append(b"\n".join(lines[start:end]) + b"\n")
        start = end
    return frames
