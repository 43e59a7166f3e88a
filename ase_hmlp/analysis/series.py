"""Numbers gathered frame by frame: time series, their means, and the table they are saved as."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ase_hmlp.analysis.result import Column, Quantity, Table
from ase_hmlp.analysis.statistics import Estimate, estimate
from ase_hmlp.analysis.trajectory import Snapshot


class Series:
    """A few numbers of every frame.

    Parameters
    ----------
    names : str
        Of the numbers, with their units, as columns of files.
    """

    def __init__(self, *names: str):
        self.names = names
        self._frames: list[int] = []
        self._times: list[float | None] = []
        self._rows: list[tuple[float, ...]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, snapshot: Snapshot, *values: float) -> None:
        """Take in the numbers of a frame, in the order of `names`."""
        if len(values) != len(self.names):
            raise ValueError(f"{len(values)} values for {self.names}")
        self._frames.append(snapshot.index)
        self._times.append(snapshot.time)
        self._rows.append(tuple(float(x) for x in values))

    def __getitem__(self, name: str) -> np.ndarray:
        """Values of one of them (frames,)."""
        return np.array([row[self.names.index(name)] for row in self._rows])

    def estimate(self, name: str) -> Estimate:
        """Mean over frames and its standard error."""
        return estimate(self[name])

    def quantity(self, name: str, label: str, unit: str) -> Quantity:
        """The mean as a `Quantity`."""
        mean = self.estimate(name)
        return Quantity(label, mean.value, mean.error, unit)

    def table(
        self,
        name: str,
        labels: Sequence[str],
        columns: Sequence[str] | None = None,
        label: str = "",
    ) -> Table:
        """All of them against time (ps), or against frames where the time is unknown.

        Parameters
        ----------
        name : str
            Of the table.
        labels : sequence of str
            In pictures, in the order of `names`.
        columns : sequence of str, optional
            In files, if not `names`.
        label : str
            Of the table.
        """
        if None in self._times:
            along = Column("frame", np.array(self._frames), "frame")
        else:
            along = Column("time_ps", np.array(self._times, dtype=float) / 1000.0, "time (ps)")
        values = zip(columns or self.names, self.names, labels, strict=True)
        return Table(name, (along, *(Column(c, self[key], each) for c, key, each in values)), label)
