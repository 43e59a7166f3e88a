"""How much each label counts: standard errors the fit assumes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.units import GPa

from ase_hmlp.training.frames import Frame


@dataclass(frozen=True)
class Weights:
    """Standard errors of the labels, for weighted least squares.

    A label's error has a constant part and a part that grows with the force: frames far up the
    repulsive wall must be right in proportion, not absolutely.  All of a frame's errors are divided
    by the square root of its weight.

    Forces count as what they do to a molecule, see `molecular_forces`: move it, stretch it, turn
    it.  What turns it is a tenth of what stretches it, and decides how molecules order: in one
    error with the others it would hardly count.

    Attributes
    ----------
    energy : float, eV/atom
    force : float, eV/Å
        Of what moves and stretches a molecule.
    stress : float, GPa
    relative : float
        This share of what moves, what stretches and what turns a molecule is added, in squares, to
        the error of just that; those of a frame's energy and stress are multiplied by `strength`.
    torque : float, eV/Å
        Of what turns a molecule; as `force` if not given.
    """

    energy: float = 0.002
    force: float = 0.04
    stress: float = 0.4
    relative: float = 0.1
    torque: float | None = None

    def force_sigma(self, frame: Frame) -> np.ndarray:
        """Standard error of each force component (n, 3), eV/Å, as the bond is fitted with."""
        own = np.linalg.norm(frame.forces, axis=1)
        sigma = np.hypot(self.force, self.relative * own) / np.sqrt(frame.weight)
        return np.repeat(sigma[:, None], 3, axis=1)

    def strength(self, frame: Frame) -> float:
        """How many times larger than usual the errors of energy and stress are taken.

        The root of 1 + s², where s is half of `relative` times the root mean square force of the
        frame, in units of `force`.
        """
        rms = np.sqrt((frame.forces**2).mean())
        return float(np.hypot(1.0, self.relative * rms / self.force * 0.5))

    def sigma(self, frame: Frame) -> np.ndarray:
        """Standard errors of energy, 3 n `molecular_forces`, 6 virials; eV, Å.

        The virial's are infinite for a frame without stress label.
        """
        more = self.strength(frame) / np.sqrt(frame.weight)
        virial = self.stress * GPa * frame.volume * more if frame.stress is not None else np.inf
        return np.concatenate(
            [
                [self.energy * frame.n_atoms * more],
                self._molecular_sigma(frame),
                np.full(6, virial),
            ]
        )

    def _molecular_sigma(self, frame: Frame) -> np.ndarray:
        m = len(frame.molecules)
        forces = molecular_forces(frame, frame.forces.ravel())
        centre, stretch, turn = forces[: 3 * m], forces[3 * m : 4 * m], forces[4 * m :]
        parts = [
            np.hypot(constant, self.relative * np.linalg.norm(part.reshape(m, -1), axis=1))
            for part, constant in (
                (centre, self.force),
                (stretch, self.force),
                (turn, self.torque or self.force),
            )
        ]
        repeated = [np.repeat(part, k) for part, k in zip(parts, (3, 1, 2), strict=True)]
        return np.concatenate(repeated) / np.sqrt(frame.weight)

    def in_molecules(self, frame: Frame, values) -> np.ndarray:
        """Design rows (p, o), or labels (o), with `molecular_forces` for forces.

        What `sigma` are the standard errors of.
        """
        end = 1 + 3 * frame.n_atoms
        forces = molecular_forces(frame, values[..., 1:end])
        return np.concatenate([values[..., :1], forces, values[..., end:]], axis=-1)


def molecular_forces(frame: Frame, forces) -> np.ndarray:
    """Forces in the coordinates of molecules, an orthogonal transformation of the atoms'.

    Parameters
    ----------
    frame : Frame
        With m molecules of atoms a and b, axes u.
    forces : (..., 3 n) array
        Of atoms.

    Returns
    -------
    (..., 3 n) array
        3 m of ``(F_a + F_b) / sqrt(2)``, which moves a molecule; m of ``u.(F_b - F_a) / sqrt(2)``,
        which stretches it; 2 m of the rest of ``(F_b - F_a) / sqrt(2)``, which turns it.
    """
    forces = np.asarray(forces)
    lead = forces.shape[:-1]
    atoms = forces.reshape(*lead, -1, 3)
    first, second = (atoms[..., k, :] for k in frame.molecules.T)
    axes = frame.bond_vectors()
    axes = axes / np.linalg.norm(axes, axis=1)[:, None]
    # Two directions across the axis: whichever, for both have the same error.
    away = np.eye(3)[np.abs(axes).argmin(axis=1)]
    across = np.cross(axes, away)
    across /= np.linalg.norm(across, axis=1)[:, None]
    frames = np.stack([axes, across, np.cross(axes, across)], axis=1)
    centre = (first + second) * np.sqrt(0.5)
    inner = np.einsum("mkx,...mx->...mk", frames, (second - first) * np.sqrt(0.5))
    return np.concatenate(
        [
            centre.reshape(*lead, -1),
            inner[..., 0],
            inner[..., 1:].reshape(*lead, -1),
        ],
        axis=-1,
    )


def targets(frame: Frame) -> np.ndarray:
    """Labels in the order of a design row: energy, dE/d(position), dE/d(strain)."""
    virial = np.zeros(6) if frame.stress is None else frame.virial
    return np.concatenate([[frame.energy], -frame.forces.ravel(), virial])
