"""How molecules point about a direction of the crystal: polar and azimuthal distributions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ase_hmlp.analysis.result import Column, Result, Table
from ase_hmlp.analysis.series import Series
from ase_hmlp.analysis.stacking import alternate_layers
from ase_hmlp.analysis.statistics import BlockedMean
from ase_hmlp.analysis.streaming import Analysis
from ase_hmlp.analysis.trajectory import Snapshot
from ase_hmlp.errors import AnalysisError

CELL_VECTORS, LAYERS, SOUGHT = "abc", "layers", "layers, or c"

#: A normal this close (degrees) to a cell vector is along it.
ALONG = 1.0


def polar_angles(axes, pole, zero) -> tuple[np.ndarray, np.ndarray]:
    """Angles of molecular axes about a pole; an axis and its opposite are the same.

    Parameters
    ----------
    axes : (m, 3) unit vectors
    pole : (3,) vector
    zero : (3,) vector, not along `pole`
        Its part normal to the pole is at azimuth 0.

    Returns
    -------
    cosine : (m,) array
        Of the angle with the pole, 0 to 1.
    azimuth : (m,) array
        Of the axis seen along the pole, counted right-handed about it, degrees from 0 to 180.
    """
    z = pole / np.linalg.norm(pole)
    x = zero - (zero @ z) * z
    azimuth = np.degrees(np.arctan2(axes @ np.cross(z, x), axes @ x))
    return np.minimum(abs(axes @ z), 1.0), azimuth % 180.0


class Orientations(Analysis):
    """Distributions of the polar angle and the azimuth of the axes about a direction.

    Both are relative to molecules that point anywhere: 1 is isotropic.

    Parameters
    ----------
    pole : "layers", "a", "b", "c" or three numbers, optional
        The normal of close-packed layers, which are found in the first frame by
        `ase_hmlp.analysis.stacking.alternate_layers`; a vector of each frame's cell; or a fixed
        direction. If not given, that of the layers where there is one way to see them, else c. The
        azimuth is counted from the next cell vector (a after c), from a for a fixed direction, and
        for layers from the cell vector that is most nearly in them.
    bins : int
        Of each distribution.
    """

    name = "orientation"

    def __init__(self, pole: str | Sequence[float] | None = None, bins: int = 30):
        if pole is None or isinstance(pole, str):
            if pole not in (None, LAYERS, *CELL_VECTORS):
                raise AnalysisError(
                    f"A direction is a, b, c, layers or three numbers, not {pole!r}."
                )
            self._pole = pole or SOUGHT
        else:
            direction = np.asarray(pole, dtype=float)
            if direction.shape != (3,) or not np.isfinite(direction).all() or not direction.any():
                raise AnalysisError(
                    f"A direction is a, b, c, layers or three numbers, not all zero, not {pole!r}."
                )
            self._pole, self._direction = "fixed", direction
        self._notes: tuple[str, ...] = ()
        self._cosine_edges = np.linspace(0.0, 1.0, bins + 1)
        self._azimuth_edges = np.linspace(0.0, 180.0, bins + 1)
        self._cosines, self._azimuths = BlockedMean(), BlockedMean()
        self._series = Series("P2", "P4")

    def parameters(self) -> dict:
        """Settings, for the record."""
        pole = self._direction if self._pole == "fixed" else self._pole
        return {"pole": pole, "bins": len(self._cosine_edges) - 1}

    def add(self, snapshot: Snapshot) -> None:
        """Take in a frame."""
        if self._pole in (SOUGHT, LAYERS) and not len(self._series):
            self._find_layers(snapshot)
        cosine, azimuth = polar_angles(snapshot.axes, *self._directions(snapshot))
        share = (len(self._cosine_edges) - 1) / len(cosine)
        self._cosines.add(np.histogram(cosine, self._cosine_edges)[0] * share)
        self._azimuths.add(np.histogram(azimuth, self._azimuth_edges)[0] * share)
        square = cosine**2
        p4 = float(np.mean(35.0 * square**2 - 30.0 * square + 3.0)) / 8.0
        self._series.add(snapshot, 1.5 * float(square.mean()) - 0.5, p4)

    def _find_layers(self, snapshot: Snapshot) -> None:
        try:
            if not snapshot.pbc.all():
                raise AnalysisError("The cell is not periodic in all directions.")
            layers = alternate_layers(snapshot.centres, snapshot.cell)
            if not layers.unique:
                raise AnalysisError("The molecules are in layers in more than one way.")
        except AnalysisError as error:
            if self._pole == LAYERS:
                raise AnalysisError(f"{snapshot.where}: {error}") from error
            self._pole = "c"
            self._notes = (f"Angles are about cell vector c, for no layers were found: {error}",)
            return
        self._pole = LAYERS
        # Along a vector of the reciprocal lattice, in each frame's own.
        self._crossed = snapshot.cell @ layers.normal
        cosines = abs(self._crossed) / np.linalg.norm(snapshot.cell, axis=1)
        self._in_layers, nearest = int(cosines.argmin()), int(cosines.argmax())
        angle = np.degrees(np.arccos(min(1.0, cosines[nearest])))
        off = "along" if angle < ALONG else f"{angle:.0f} degrees off"
        self._notes = (
            "Angles are about the normal of the close-packed layers, which is "
            f"{off} cell vector {CELL_VECTORS[nearest]}.",
        )

    def _directions(self, snapshot: Snapshot) -> tuple[np.ndarray, np.ndarray]:
        if self._pole == "fixed":
            pole, zero = self._direction, snapshot.cell[0]
        elif self._pole == LAYERS:
            pole = np.linalg.solve(snapshot.cell, self._crossed)
            zero = snapshot.cell[self._in_layers]
        else:
            k = CELL_VECTORS.index(self._pole)
            pole, zero = snapshot.cell[k], snapshot.cell[(k + 1) % 3]
        if np.linalg.norm(np.cross(pole, zero)) < 1e-6 * np.linalg.norm(pole) * np.linalg.norm(
            zero
        ):
            zero = snapshot.cell[1]  # a fixed direction along a
        return pole, zero

    def result(self) -> Result:
        """Quantities ``<P2>``, ``<P4>``; tables ``polar``, ``azimuth`` and ``series``."""
        label = "density relative to isotropic"
        words = {"fixed": "the fixed direction", LAYERS: "the normal of the layers"}
        pole = words.get(self._pole, self._pole)
        polar = Column(
            "cosine", _middles(self._cosine_edges), f"cosine of the angle between axis and {pole}"
        )
        azimuth = Column(
            "azimuth_deg", _middles(self._azimuth_edges), f"azimuth about {pole} (degrees)"
        )
        return Result(
            self.name,
            f"Orientations about {pole}",
            (
                self._series.quantity("P2", "<P2(cos)>", ""),
                self._series.quantity("P4", "<P4(cos)>", ""),
            ),
            (
                Table("polar", (polar, _density(self._cosines, label))),
                Table("azimuth", (azimuth, _density(self._azimuths, label))),
                self._series.table("series", ("⟨P₂⟩", "⟨P₄⟩"), label="mean of polynomial"),
            ),
            self._notes,
        )


def _density(mean: BlockedMean, label: str) -> Column:
    return Column("relative_density", mean.mean, label, mean.error)


def _middles(edges) -> np.ndarray:
    return 0.5 * (edges[1:] + edges[:-1])
