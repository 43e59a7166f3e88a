"""The ASE calculator: units, caching and errors around `ase_hmlp.potential`; no physics."""

from __future__ import annotations

import operator
import os
import warnings

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.data import chemical_symbols

from ase_hmlp.attribution import fingerprint_shares
from ase_hmlp.errors import (
    BondingError,
    BondStretchError,
    ContactError,
    DomainError,
    DomainWarning,
    NonFinitePositionsError,
    OddAtomError,
    StructureError,
    UnsupportedElementError,
)
from ase_hmlp.geometry import Geometry, default_threads, identical
from ase_hmlp.model_io import Domain, Model, load_model
from ase_hmlp.molecules import check_molecules, find_molecules
from ase_hmlp.neighbors import complete_cell, neighbour_list
from ase_hmlp.potential import Evaluation

#: An atom that moved farther than this (Å) between two calls was moved by hand, not by dynamics
#: or an optimizer: whatever is bonded is found afresh.
JUMP = 0.3

#: Atoms nearer than this (Å) are on top of each other, not a short bond.
COINCIDENT = 0.1

#: Positions beyond this many cells (or Å, without a cell) from the origin have lost the digits
#: that forces need.
FARTHEST = 1e6


#: Fewer atoms per thread than this take longer to share out than to compute.
FEWEST = 64


#: What is to be done about bonds that cannot be found.
HOT = (
    "Of hot molecules, a bond may be longer for a moment, or another atom nearer: say which atoms "
    "are bonded by HMLP(bonds=pairs)."
)


class HMLP(Calculator):
    """Hierarchical machine-learned potential of molecular hydrogen.

    Parameters
    ----------
    model : str, path or Model
        Name of a shipped model, path of a model file, or a loaded model.
    bonds : (m, 2) integers, optional
        Which atoms are bonded, each atom once. Found from the first structure if not given.
    threads : int, optional
        Threads of the core; ``OMP_NUM_THREADS`` or every available core if not given; one in a
        process that was forked off one with several (as `multiprocessing` does), for those do not
        come along. Results do not depend on it.

    Notes
    -----
    **Results.** Every calculation fills ``energy``, ``free_energy`` (the same) and ``energies``
    (n) in eV, ``forces`` (n, 3) in eV/Å, and, where the cell has three vectors, ``stress`` (6) and
    ``stresses`` (n, 6), which sum to ``stress``: eV/Å³, Voigt order xx yy zz yz xz xy, positive in
    tension, without the kinetic part. (``Atoms.get_stresses(include_ideal_gas=True)`` adds each
    atom's kinetic part divided by the volume *per atom*, ASE's choice for every calculator.)
    Only hydrogen is accepted; deuterium and tritium are hydrogen of another mass.

    **Bonds** are found once, each atom with its mutual nearest neighbour, and kept while they
    hold. What happens to them at the next structure:

    - Another number of atoms or other periodic directions: they are found afresh.
    - No atom moved farther than 0.3 Å since the last structure that was calculated, not counting
      a homogeneous strain of the cell or a translation by its vectors: they are kept.
    - Otherwise the structure may be another one, and they are found afresh, with the same result
      as a new calculator would find. Only if that fails, because a close contact makes the
      nearest neighbours ambiguous, and every bond kept so far has a length seen in training, are
      they kept.

    Bonds given by `bonds` always stay. A bond outside the model's limits raises.

    **Domain.** A bond, contact or volume outside what the model was trained on warns once of each
    kind (`DomainWarning`); `forget` makes it warn again. Where an energy would be meaningless an
    error is raised instead.

    Raises
    ------
    ase_hmlp.errors.ModelFileError
        If the model cannot be used.
    ase_hmlp.errors.StructureError
        From every calculation of a structure the potential has no answer for.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress", "stresses"]  # noqa: RUF012

    def __init__(self, model="h2-pbe", bonds=None, threads=None):
        super().__init__()
        self._model = model if isinstance(model, Model) else load_model(model)
        self._set_bonds(bonds)
        self._set_threads(threads)
        self.parameters.update(
            model=self._model.name if isinstance(model, Model) else os.fspath(model),
            bonds=None if self._given is None else self._given.tolist(),
            threads=threads,
        )
        self._tracker = None
        self._cell_key = None
        self._hydrogen = b""
        self.forget()

    def set(self, **kwargs):
        """Change `bonds` or `threads`; anything else is refused.

        Returns
        -------
        dict
            What was changed.
        """
        unknown = sorted(kwargs.keys() - {"bonds", "threads"})
        if unknown:
            raise TypeError(
                f"HMLP.set() takes bonds and threads, not {', '.join(unknown)}: "
                "make a new calculator for another model."
            )
        if "threads" in kwargs:
            self._set_threads(kwargs["threads"])
        if "bonds" in kwargs:
            self._set_bonds(kwargs["bonds"])
            kwargs["bonds"] = None if self._given is None else self._given.tolist()
            self.forget()
        self.parameters.update(kwargs)
        return kwargs

    def forget(self) -> None:
        """Forget the bonds that were found, what is of them, and which warnings were given."""
        self.reset()
        # Positions, cell, pbc and molecules of the last structure that was calculated.
        self._seen: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None = None
        self._geometry: Geometry | None = None
        self._lengths: np.ndarray | None = None
        self._levels: dict[str, float] | None = None
        self._contact = float("inf")
        self._deviations: np.ndarray | None = None
        self._warned: set[str] = set()

    @property
    def model(self) -> Model:
        """The model in use."""
        return self._model

    @property
    def domain(self) -> Domain:
        """What the model's training data cover."""
        return self._model.domain

    @property
    def threads(self) -> int:
        """Threads of the core."""
        return self._threads

    @property
    def molecules(self) -> np.ndarray:
        """Indices of the two atoms of each molecule (m, 2), as of the last calculation.

        Here and below, of the last one that gave an energy: a structure that fails changes nothing.
        """
        if self._seen is None:
            raise RuntimeError("No structure has been calculated: the bonds are unknown.")
        return self._seen[3].copy()

    @property
    def bond_lengths(self) -> np.ndarray:
        """Lengths (m) of the bonds in the last calculation, in the order of `molecules`, Å."""
        if self._lengths is None:
            raise RuntimeError("No structure has been calculated: the bonds are unknown.")
        return self._lengths.copy()

    @property
    def shortest_contact(self) -> float:
        """Shortest distance of atoms of different molecules in the last calculation, Å.

        Infinite if no two molecules are within the cutoff.
        """
        if self._seen is None:
            raise RuntimeError("No structure has been calculated: there are no contacts.")
        return self._contact

    @property
    def levels(self) -> dict[str, float]:
        """Energy of each level (eV) in the last calculation; they sum to the energy."""
        if self._levels is None:
            raise RuntimeError("No structure has been calculated: there are no energies.")
        return dict(self._levels)

    def uncertainties(self, atoms=None) -> np.ndarray:
        """Predicted standard deviation of each atom's energy; warns where one is out of the common.

        Half of its molecule's, on the scale of errors of unseen frames; see the model's card.

        Beyond the training data it is not these that tell but `DomainWarning`, which calculations
        give: they are of what neighbours add to a molecule, hence 0 for one alone at any bond
        length, and see no more of a very long or short bond than of the last one the levels see.

        Parameters
        ----------
        atoms : ase.Atoms, optional
            The last structure calculated if not given.

        Returns
        -------
        (n,) array, eV

        Raises
        ------
        PropertyNotImplementedError
            If the model was saved without what they need.
        """
        if not self._model.has_deviations:
            raise PropertyNotImplementedError(
                f"The model {self._model.name!r} was saved without predictive variances."
            )
        geometry = self._geometry_of(atoms, "uncertainties")
        if self._deviations is None:
            self._deviations = self._model.potential.deviations(geometry)
        found = self._deviations.copy()
        threshold = self._model.uncertainty_threshold
        if threshold is not None and found.max() > threshold:
            i = int(found.argmax())
            self._warn(
                "uncertainty",
                f"The predicted deviation of atom {i} is {1e3 * found[i]:.1f} meV, above the "
                f"{1e3 * threshold:.1f} meV of nearly all atoms in unseen frames.",
            )
        return found

    def fingerprint_shares(self, atoms=None) -> dict[str, dict[str, float]]:
        """Energy by fingerprint: which of them the energies of the levels come from.

        Parameters
        ----------
        atoms : ase.Atoms, optional
            The last structure calculated if not given.

        Returns
        -------
        dict of dict, eV
            See `ase_hmlp.attribution.fingerprint_shares`; those of a level add up to its energy in
            `levels`.
        """
        geometry = self._geometry_of(atoms, "shares of fingerprints")
        return fingerprint_shares(self._model.potential, geometry)

    def _geometry_of(self, atoms, purpose: str) -> Geometry:
        """Geometry of a structure, calculated if it is not the last."""
        atoms = self.atoms if atoms is None else atoms
        if atoms is None:
            raise RuntimeError(f"No structure has been calculated: {purpose} need one.")
        # The geometry is not kept in copies and pickles, and is another's after a failure.
        if self.calculation_required(atoms, ["energy"]) or self._geometry is None:
            self.calculate(atoms)
        assert self._geometry is not None
        return self._geometry

    def check_state(self, atoms, tol=1e-15):
        """List what differs from the structure of the last calculation, to the last bit."""
        if self._last is None:
            return list(all_changes)
        # ASE's own comparison takes as long as evaluating a dozen atoms.
        new = (atoms.positions, atoms.numbers, atoms.cell.array, atoms.pbc)
        names = ("positions", "numbers", "cell", "pbc")
        return [
            name for name, a, b in zip(names, self._last, new, strict=True) if not identical(a, b)
        ]

    @property
    def atoms(self) -> Atoms | None:
        """The structure of the last calculation: positions, elements, cell and periodicity."""
        # Made when asked for: copying ASE's object takes as long as evaluating a dozen atoms.
        if self._last is None:
            return None
        positions, numbers, cell, pbc = self._last
        return Atoms(numbers, positions, cell=cell, pbc=pbc)

    @atoms.setter
    def atoms(self, atoms) -> None:
        self._last = (
            None
            if atoms is None
            else tuple(
                x.copy() for x in (atoms.positions, atoms.numbers, atoms.cell.array, atoms.pbc)
            )
        )

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        """Calculate everything, whatever of `properties` was asked for."""
        atoms = self.atoms if atoms is None else atoms
        if atoms is None:
            raise RuntimeError("HMLP.calculate() needs a structure.")
        positions, given_cell, pbc = atoms.positions, atoms.cell.array, atoms.pbc
        cell, volume = self._check_structure(atoms.numbers, positions, given_cell, pbc)
        molecules = self._bonds_of(positions, cell, pbc)
        if self._tracker is None:
            self._tracker = self._model.potential.tracker()
        geometry = self._tracker.update(
            positions, cell, pbc, molecules, min(self._threads, len(positions) // FEWEST + 1)
        )
        self._check_bonds(geometry)
        evaluation = self._model.potential.evaluate(geometry)
        self._check_contact(evaluation)
        if volume and pbc.all():
            self._warn_outside("volume", volume / len(positions), "Å³/atom", "The volume is")

        # Nothing was changed so far: after a structure that fails, bonds and all that is known of
        # them are those of the last one that did not.
        results = {
            "energy": float(evaluation.energies.sum()),
            "energies": evaluation.energies,
            "forces": evaluation.forces,
        }
        results["free_energy"] = results["energy"]
        if volume:
            results["stresses"] = evaluation.virials / volume
            results["stress"] = results["stresses"].sum(axis=0)
        for value in results.values():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False
        self.atoms = atoms
        self.results = results
        self._seen = (geometry.positions, cell, pbc.copy(), molecules)
        self._geometry = geometry
        self._lengths = geometry.bond_length
        self._levels = evaluation.levels
        self._contact = evaluation.shortest_contact
        self._deviations = None
        if not volume and {"stress", "stresses"} & set(properties):
            raise PropertyNotImplementedError(
                "There is no stress without three cell vectors that span a volume."
            )

    # ------------------------------------------------------------ checks

    def _set_bonds(self, bonds) -> None:
        if bonds is not None:
            bonds = np.asarray(bonds)
            bonds = check_molecules(bonds, 2 * len(bonds) if bonds.ndim else 0)
        self._given = bonds

    def _set_threads(self, threads) -> None:
        if threads is None:
            self._threads = default_threads()
            return
        try:
            self._threads = operator.index(threads)
        except TypeError:
            raise TypeError(f"threads must be a whole number, not {threads!r}.") from None
        if isinstance(threads, bool) or self._threads < 1:
            raise ValueError(f"threads must be at least 1, not {threads!r}.")

    def _check_structure(self, numbers, positions, cell, pbc) -> tuple[np.ndarray, float]:
        """Refuse what has no energy whatever its bonds.

        Returns
        -------
        A non-singular cell (3, 3) in Å, and the volume of the given one in Å³ (0 without three
        vectors).
        """
        if len(numbers) == 0:
            raise StructureError("The structure has no atoms.")
        # Comparing bytes with what was fine before: reductions of small arrays take their time.
        if (these := numbers.tobytes()) != self._hydrogen and (numbers != 1).any():
            i = int((numbers != 1).argmax())
            raise UnsupportedElementError(
                f"Atom {i} is {chemical_symbols[numbers[i]]}: the potential knows hydrogen only."
            )
        self._hydrogen = these
        farthest = abs(positions).max()
        if not np.isfinite(farthest):
            i = int((~np.isfinite(positions)).any(axis=1).argmax())
            raise NonFinitePositionsError(f"Atom {i} is at {positions[i].tolist()} Å.")
        key = cell.tobytes() + pbc.tobytes()
        if key != self._cell_key:
            self._cell = self._check_cell(cell, pbc)
            self._cell_key = key
        whole, volume = self._cell
        if farthest > FARTHEST:
            cells = abs(np.linalg.solve(whole.T, positions.T)).max(axis=0)
            i = int(cells.argmax())
            if cells[i] > FARTHEST:
                raise StructureError(
                    f"Atom {i} is at {positions[i].tolist()} Å: so far out that its distances to "
                    "other atoms have lost their digits."
                )
        if pbc.all() and volume < 0.2 * self.domain.volume[0] * len(numbers):
            raise DomainError(
                f"The cell has {volume / len(numbers):.2g} Å³/atom, so far below the "
                f"{self.domain.volume[0]:.2g} of the training data that an energy would mean "
                "nothing."
            )
        return whole, volume

    @staticmethod
    def _check_cell(cell, pbc) -> tuple[np.ndarray, float]:
        if not np.isfinite(cell).all():
            raise NonFinitePositionsError(f"The cell is not finite: {cell.tolist()} Å.")
        whole = complete_cell(cell, pbc)
        volume = abs(np.linalg.det(cell))
        # Vectors in one plane leave a volume of rounding errors.
        if volume <= 1e-6 * np.prod(np.linalg.norm(cell, axis=1)):
            volume = 0.0
        return whole, float(volume)

    def _bonds_of(self, positions, cell, pbc) -> np.ndarray:
        """Molecules by the rule in the class docstring."""
        if self._given is not None:
            return check_molecules(self._given, len(positions))
        if self._seen is None or len(positions) != len(self._seen[0]):
            return self._find(positions, cell, pbc)
        old_positions, old_cell, old_pbc, molecules = self._seen
        if not identical(pbc, old_pbc):
            return self._find(positions, cell, pbc)
        if identical(cell, old_cell):
            moved = positions - old_positions
        else:
            moved = positions - old_positions @ np.linalg.solve(old_cell, cell)
        if abs(moved).max() > 0.5 * JUMP:
            moved -= (np.round(moved @ np.linalg.inv(cell)) * pbc) @ cell
            if (moved * moved).sum(axis=1).max() > JUMP**2:
                return self._find_again(positions, cell, pbc, molecules)
        return molecules

    def _find_again(self, positions, cell, pbc, kept) -> np.ndarray:
        try:
            return self._find(positions, cell, pbc)
        except (BondingError, ContactError):
            # The structure may be a hot one of the same molecules; see the class docstring.
            lengths = self._model.potential.tracker().update(positions, cell, pbc, kept).bond_length
            low, high = self.domain.bond_length
            if lengths.min() < low or lengths.max() > high:
                raise
            return kept

    def _find(self, positions, cell, pbc) -> np.ndarray:
        try:
            molecules = find_molecules(positions, cell, pbc)
        except BondingError as exc:
            # Overlapping atoms leave others without a partner: name the cause.
            self._check_overlap(positions, cell, pbc, self.domain.bond_limits[0], exc)
            if isinstance(exc, OddAtomError):  # one atom is too many, whichever are bonded
                raise
            raise type(exc)(f"{exc} {HOT}") from exc
        self._check_overlap(positions, cell, pbc, COINCIDENT)
        return molecules

    def _check_overlap(self, positions, cell, pbc, nearest, cause=None) -> None:
        first, index, shift = neighbour_list(positions, cell, pbc, nearest)
        if len(index):
            i = int(np.searchsorted(first, 0, side="right")) - 1
            j = int(index[0])
            distance = np.linalg.norm(positions[j] + shift[0] @ cell - positions[i])
            raise ContactError(
                f"Atoms {i} and {j} are on top of each other, {distance:.3f} Å apart."
            ) from cause

    def _check_bonds(self, geometry: Geometry) -> None:
        lengths = geometry.bond_length
        shortest, longest = lengths.min(), lengths.max()
        low, high = self.domain.bond_length
        if low <= shortest and longest <= high:
            return
        low, high = self.domain.bond_limits
        for k, outside in ((lengths.argmin(), shortest < low), (lengths.argmax(), longest > high)):
            if outside:
                i, j = geometry.molecules[k]
                raise BondStretchError(
                    f"The bond between atoms {i} and {j} is {lengths[k]:.3f} Å long; the model's "
                    f"energies mean something from {low:.3f} to {high:.3f} Å."
                )
        low, high = self.domain.bond_length
        for k, outside in ((lengths.argmin(), shortest < low), (lengths.argmax(), longest > high)):
            if outside:
                i, j = geometry.molecules[k]
                self._warn(
                    "bond_length",
                    f"The bond between atoms {i} and {j} is {lengths[k]:.3f} Å; the solids and "
                    f"liquids of the training data have {low:.3f} to {high:.3f} Å.",
                )
                break

    def _check_contact(self, evaluation: Evaluation) -> None:
        contact = evaluation.shortest_contact
        if contact >= self.domain.contact:
            return
        i, j = evaluation.contact_atoms
        image = " (its own image)" if i == j else ""
        who = f"Atoms {i} and {j}{image} of different molecules are {contact:.3f} Å apart; "
        if contact < self.domain.contact_limit:
            raise ContactError(
                f"{who}below {self.domain.contact_limit:.3f} Å the model's energies mean nothing."
            )
        self._warn(
            "contact",
            f"{who}the training data have {self.domain.contact:.3f} Å and more.",
        )

    def _warn_outside(self, kind: str, value: float, unit: str, what: str) -> None:
        low, high = getattr(self.domain, kind)
        if not low <= value <= high:
            self._warn(
                kind, f"{what} {value:.3f} {unit}; the training data have {low:.3f} to {high:.3f}."
            )

    def _warn(self, kind: str, sentence: str) -> None:
        if kind not in self._warned:
            warnings.warn(
                DomainWarning(f"{sentence} This is an extrapolation.", kind), stacklevel=2
            )
            # Only now: a filter that turns warnings into errors shall see every one.
            self._warned.add(kind)

    def __getstate__(self):
        # Lists are made again in a moment; bonds are kept.
        return self.__dict__ | {"_tracker": None, "_geometry": None}
