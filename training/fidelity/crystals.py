"""Crystals at rest: pressure against volume, enthalpies, phonons at Gamma."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.constraints import FixSymmetry
from ase.optimize import BFGS
from ase.units import GPa
from scipy.optimize import linear_sum_assignment
from threadpoolctl import threadpool_limits

from ase_hmlp.errors import HMLPError, NotConvergedError
from ase_hmlp.simulate.relax import Relaxation, curvature_of, relax
from ase_hmlp.training.frames import corrected_stress

#: What distances between symmetry-equivalent atoms may differ by, Å.
SYMMETRY = 1e-3

#: Displacement of an atom in the finite differences of phonons, Å.
DISPLACEMENT = 0.01

#: Tolerances of a model's relaxation, eV/Å and GPa.
FMAX, STRESS = 1e-3, 0.02

#: 1/cm of a THz.
_PER_CM = 33.35641

ACOUSTIC = 3


def in_space_group(atoms: Atoms) -> Atoms:
    """Copy a structure, kept by a constraint in the space group it has."""
    copy = atoms.copy()
    copy.set_constraint(FixSymmetry(copy, symprec=SYMMETRY))
    return copy


def pressure(atoms: Atoms) -> float:
    """Static pressure, GPa, with what a label's stress lacks by its ``info["pulay"]``."""
    return -float(corrected_stress(atoms)[:3].mean()) / GPa


def volume(atoms: Atoms) -> float:
    """Volume per atom, Å³."""
    return float(atoms.get_volume()) / len(atoms)


def enthalpy(atoms: Atoms, target: float) -> float:
    """``E + P V`` per molecule, eV, at a target pressure `target` (GPa).

    Of a structure relaxed under a pressure that is off by dP it is wrong by ``V dP² / 2 B``, for
    1 GPa in 100 some 0.02 meV: that DFT's was relaxed to a stress without Pulay's does not matter.
    """
    energy = atoms.get_potential_energy()
    return float(energy + target * GPa * atoms.get_volume()) / (len(atoms) / 2)


def relax_positions(atoms: Atoms, fmax: float = FMAX, steps: int = 500) -> Atoms:
    """Relax positions in a fixed cell, within the space group.

    Parameters
    ----------
    atoms : ase.Atoms with a calculator
        Left as it is.
    fmax : float, eV/Å
    steps : int

    Raises
    ------
    NotConvergedError
    """
    moving = in_space_group(atoms)
    moving.calc = atoms.calc
    with threadpool_limits(1, user_api="blas"):
        if not BFGS(moving, logfile=None).run(fmax=fmax, steps=steps):
            raise NotConvergedError(
                f"Positions at {volume(atoms):.2f} Å³/atom did not relax in {steps} steps."
            )
    return moving


def relax_phase(atoms: Atoms, target: float) -> Relaxation:
    """Relax cell and positions within the space group.

    Parameters
    ----------
    atoms : ase.Atoms with a calculator
    target : float, GPa
    """
    start = in_space_group(atoms)
    start.calc = atoms.calc
    return relax(start, target, FMAX, STRESS, curvature=curvature_of(start, target))


# ---------------------------------------------------------------- phonons


@dataclass(frozen=True)
class Modes:
    """Phonons at Gamma of n atoms.

    Attributes
    ----------
    frequency : (3 n,) 1/cm, ascending; negative where imaginary
    vector : (3 n, 3 n)
        Mass-weighted eigenvectors in columns, atoms in the order of the structure.
    """

    frequency: np.ndarray
    vector: np.ndarray


def displaced_cells(atoms: Atoms) -> list[Atoms]:
    """Structures whose forces give the phonons at Gamma: phonopy's displacements, both ways."""
    phonon = _phonopy(atoms)
    phonon.generate_displacements(distance=DISPLACEMENT, is_plusminus=True)
    return [
        Atoms(cell.symbols, cell=cell.cell, scaled_positions=cell.scaled_positions, pbc=True)
        for cell in phonon.supercells_with_displacements
    ]


def modes(atoms: Atoms, displaced: list[Atoms]) -> Modes:
    """Phonons at Gamma from finite differences, with the acoustic sum rule imposed.

    Parameters
    ----------
    atoms : ase.Atoms
        At equilibrium.
    displaced : list of ase.Atoms with calculators
        The same with one atom displaced in each, enough of them for its space group.
    """
    phonon = _phonopy(atoms)
    first_atoms = []
    for moved in displaced:
        scaled = np.linalg.solve(atoms.cell.array.T, (moved.positions - atoms.positions).T).T
        shift = (scaled - scaled.round()) @ atoms.cell.array
        number = int(np.linalg.norm(shift, axis=1).argmax())
        first_atoms.append(
            {
                "number": number,
                "displacement": shift[number],
                "forces": moved.get_forces(apply_constraint=False),
            }
        )
    phonon.dataset = {"natom": len(atoms), "first_atoms": first_atoms}
    phonon.produce_force_constants(show_drift=False)
    phonon.symmetrize_force_constants()
    phonon.run_qpoints([[0.0, 0.0, 0.0]], with_eigenvectors=True)
    gamma = phonon.qpoints
    return Modes(gamma.frequencies[0] * _PER_CM, gamma.eigenvectors[0])


def _phonopy(atoms: Atoms):
    phonopy = _import_phonopy()
    cell = phonopy.structure.atoms.PhonopyAtoms(
        symbols=atoms.get_chemical_symbols(),
        cell=atoms.cell.array,
        scaled_positions=atoms.get_scaled_positions(wrap=False),
    )
    one = np.eye(3, dtype=int)
    return phonopy.Phonopy(cell, supercell_matrix=one, primitive_matrix=one, symprec=SYMMETRY)


def _import_phonopy():
    try:
        import phonopy
        import phonopy.structure.atoms
    except ImportError:
        raise HMLPError(
            "Phonons and space groups need phonopy: pip install 'ase_hmlp[compare]'."
        ) from None
    return phonopy


def match(reference: Modes, other: Modes) -> tuple[np.ndarray, np.ndarray]:
    """Pair the optical modes of two calculations of one crystal by their eigenvectors.

    Parameters
    ----------
    reference, other : Modes
        Of 3 n modes each; the atoms in the same order.

    Returns
    -------
    pairs : (3 n - 3, 2) int
        Indices of the optical modes, by frequency of the reference: those that are left when the
        three with the largest share of uniform translation are taken away.
    overlap : (3 n - 3,)
        Squared scalar product of the eigenvectors of each pair: 1 for the same mode.
    """
    optical = [_optical(m) for m in (reference, other)]
    a, b = (m.vector[:, keep] for m, keep in zip((reference, other), optical, strict=True))
    overlap = np.abs(a.conj().T @ b) ** 2
    rows, columns = linear_sum_assignment(-overlap)
    return np.column_stack([optical[0][rows], optical[1][columns]]), overlap[rows, columns]


def _optical(m: Modes) -> np.ndarray:
    n = len(m.frequency) // 3
    translations = np.tile(np.eye(3), (n, 1)) / np.sqrt(n)  # all masses are one
    share = (np.abs(translations.T @ m.vector) ** 2).sum(axis=0)
    return np.sort(np.argsort(share)[: 3 * n - ACOUSTIC])
