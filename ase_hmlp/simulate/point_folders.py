"""The folders of points: whether runs in them may go on, before anything is noted."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ase_hmlp.simulate.run import Run
from ase_hmlp.simulate.sweep import POINTS, Point


def refuse_other_runs(points: Iterable[Point], folder: Path, base: Path) -> None:
    """Refuse points whose folders hold something else than their runs; writes nothing.

    Parameters
    ----------
    points : iterable of Point
    folder : Path
        See `ase_hmlp.simulate.sweep.run_points`.
    base : Path
        That paths in the configurations of the points are relative to.

    Raises
    ------
    ConfigError
        If the configuration of such a point is impossible.
    OutputExistsError
    """
    for point in points:
        path = folder / POINTS / point.name
        if path.exists():  # not all of them: every look at a point loads the model
            _ = Run(point.config, path, base).summary
