"""Pieces of a stream, for Fourier transforms that never see the whole of it."""

from __future__ import annotations

import numpy as np


class Segments:
    """Cut a stream of arrays into segments of equal length, which may overlap.

    Single precision: a segment holds 4 bytes for each number and frame, and nothing else is kept.

    Parameters
    ----------
    length : int
        Frames in a segment.
    hop : int
        Frames from the start of a segment to that of the next; at most `length`.
    """

    def __init__(self, length: int, hop: int):
        if not 1 <= hop <= length:
            raise ValueError(f"segments of {length} frames cannot be {hop} apart")
        self.length, self.hop = length, hop
        self._filled = 0
        self._buffer: np.ndarray | None = None

    def add(self, values) -> np.ndarray | None:
        """Take in one frame.

        Parameters
        ----------
        values : array, of one shape for all frames

        Returns
        -------
        (length, ...) float32 array or None
            The segment that ends with this frame, if one does; valid until the next call.
        """
        if self._buffer is None:
            self._buffer = np.empty((self.length, *np.shape(values)), dtype=np.float32)
        if self._filled == self.length:
            kept = self.length - self.hop
            # In steps that do not overlap themselves: no copy of the whole buffer.
            for start in range(0, kept, self.hop):
                end = min(start + self.hop, kept)
                self._buffer[start:end] = self._buffer[start + self.hop : end + self.hop]
            self._filled = kept
        self._buffer[self._filled] = values
        self._filled += 1
        return self._buffer if self._filled == self.length else None
