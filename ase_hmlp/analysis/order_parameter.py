"""Orientational order against a reference cell: Zong et al. 2020, equation 5, Fig. 6."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from ase_hmlp.analysis.reference_lattice import ReferenceLattice, match_reference
from ase_hmlp.analysis.result import Quantity, Result
from ase_hmlp.analysis.series import Series
from ase_hmlp.analysis.streaming import Analysis
from ase_hmlp.analysis.trajectory import Snapshot, Trajectory
from ase_hmlp.errors import ReferenceMismatchError

#: Axes less aligned with the reference than this in the first frame, some 47 degrees off, have
#: signs that may mean nothing.
ALIGNED = 0.2


def order_parameter(axes, displacements, separations, which) -> tuple[float, float]:
    """Correlation of orientations between unit cells, equation 5, for one structure.

    ``sum_b sum_(i != j) f(r_ib . r_jb) R_ijb / sum_b sum_(i != j) R_ijb`` over unit cells i and j
    and sites b of their basis: unit vectors r along the molecules, distances R of their centres.

    Parameters
    ----------
    axes : (c, b, 3) unit vectors along the molecule on site b of unit cell i
    displacements : (c, b, 3) Å, of its centre from the lattice; a common shift does not count
    separations : (d, 3) Å, lattice vectors between unit cells
    which : (c, c) integers
        The lattice vector from i to j is ``separations[which[i, j]]``.

    Returns
    -------
    signed : float
        With f(x) = x, as in equation 5.
    headless : float
        With f(x) = (3 x^2 - 1) / 2, for which a molecule turned end over end is the same.
    """
    signed = headless = total = 0.0
    lattice = separations[which]
    for b in range(axes.shape[1]):
        cosines = axes[:, b] @ axes[:, b].T
        offset = displacements[None, :, b] - displacements[:, None, b]
        # Zero for i = j.
        distances = np.linalg.norm(lattice + offset, axis=2)
        signed += float((cosines * distances).sum())
        headless += float(((1.5 * cosines**2 - 0.5) * distances).sum())
        total += float(distances.sum())
    return signed / total, headless / total


class OrderParameter(Analysis):
    """Order parameter O against a reference cell, and its time series.

    The molecules are assigned to the reference's sites in the first frame of the trajectory,
    whichever are used. Axes have no sign by themselves: each molecule's is the one that agrees with
    the reference in that frame, and is carried along with its atoms from then on. Chosen in a
    disordered crystal, signs would make order of none; a run that begins disordered is better
    judged by the headless form, which needs no sign.

    Parameters
    ----------
    reference : ase.Atoms
        Unit cell, as one of `ase_hmlp.simulate.structures`.
    repeat : three integers or (3, 3) integers, optional
        See `ase_hmlp.analysis.reference_lattice.match_reference`.
    """

    name = "order"

    def __init__(self, reference: Atoms, repeat=None):
        self._reference, self._repeat = reference, repeat
        self._lattice: ReferenceLattice | None = None
        self._signs: np.ndarray
        self._aligned = 1.0
        self._series = Series("O", "O_headless", "alignment")

    def parameters(self) -> dict:
        """Settings, for the record."""
        return {
            "reference_cell_A": self._reference.cell.array,
            "reference_positions_A": self._reference.positions,
            "repeat": None if self._lattice is None else self._lattice.matrix,
        }

    def start(self, trajectory: Trajectory) -> None:
        """Refuse frames too sparse to follow the molecules.

        Raises
        ------
        TrajectoryError
        """
        trajectory.require_paths("the order parameter")
        trajectory.require_beginning("the order parameter")

    def lead(self, snapshot: Snapshot) -> None:
        """Find the molecules' sites and signs in the first frame."""
        if self._lattice is None:
            self._lattice = self._match(snapshot)

    def _match(self, snapshot: Snapshot) -> ReferenceLattice:
        lattice = match_reference(snapshot, self._reference, self._repeat)
        if len(lattice.cells) < 2:
            raise ReferenceMismatchError(
                f"{snapshot.where} is a single reference cell: order between cells needs two."
            )
        agreement = np.einsum("xbc,bc->xb", snapshot.axes[lattice.molecules], lattice.axes)
        self._signs = np.where(agreement < 0.0, -1.0, 1.0)[:, :, None]
        self._aligned = _second_legendre(agreement)
        return lattice

    def add(self, snapshot: Snapshot) -> None:
        """Take in a frame."""
        if self._lattice is None:
            self._lattice = self._match(snapshot)
        lattice = self._lattice
        axes = self._signs * snapshot.axes[lattice.molecules]
        signed, headless = order_parameter(
            axes, lattice.displacements(snapshot), *lattice.separations(snapshot.cell)
        )
        cosines = np.einsum("xbc,bc->xb", axes, lattice.axes)
        self._series.add(snapshot, signed, headless, _second_legendre(cosines))

    def result(self) -> Result:
        """Quantities ``O``, ``O (headless)``, ``alignment``; table ``order``, against time."""
        quantities: tuple[Quantity, ...] = (
            self._series.quantity("O", "O", ""),
            self._series.quantity("O_headless", "O (headless)", ""),
            self._series.quantity("alignment", "alignment", ""),
        )
        labels = (
            "O (equation 5)",
            "O, headless: P₂ in place of the cosine",
            "alignment ⟨P₂⟩ with the reference's own axes",
        )
        return Result(
            self.name,
            "Orientational order parameter O",
            quantities,
            (self._series.table(self.name, labels, label="order parameter"),),
            (
                "O compares unit cells with one another, alignment compares molecules with the "
                "reference: O near 1 with low alignment is another structure of the same lattice.",
                *self._doubts(),
            ),
        )

    def _doubts(self) -> tuple[str, ...]:
        if self._aligned >= ALIGNED:
            return ()
        return (
            "In the first frame, by which axes have their signs, molecules are not aligned with "
            f"the reference (alignment {self._aligned:.2f}): if they are in disorder there, O is "
            "too high until they have turned, by up to 0.25; the headless form needs no signs.",
        )


def _second_legendre(cosines) -> float:
    return float(1.5 * np.mean(cosines**2) - 0.5)
