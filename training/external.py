"""Labels of other codes and projects: any file, its units and signs, in; ASE's out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.formats import ioformats
from ase.stress import full_3x3_to_voigt_6_stress
from pydantic import field_validator

from ase_hmlp.errors import DataError
from ase_hmlp.training.frames import consistent_energy, iterate_structures
from ase_hmlp.training.runner_files import iterate_runner
from ase_hmlp.training.sections import Section

#: Formats that ASE has under another name or reads less carefully.
RUNNER = ("n2p2", "runner")

LENGTHS = {"angstrom": 1.0, "bohr": units.Bohr, "nm": units.nm}
ENERGIES = {
    "eV": 1.0,
    "hartree": units.Hartree,
    "rydberg": units.Rydberg,
    "kJ/mol": units.kJ / units.mol,
    "kcal/mol": units.kcal / units.mol,
}
FORCES = {
    "eV/angstrom": 1.0,
    "hartree/bohr": units.Hartree / units.Bohr,
    "rydberg/bohr": units.Rydberg / units.Bohr,
}
STRESSES = {
    "eV/angstrom3": 1.0,
    "GPa": units.GPa,
    "kbar": 0.1 * units.GPa,
    "hartree/bohr3": units.Hartree / units.Bohr**3,
    "rydberg/bohr3": units.Rydberg / units.Bohr**3,
}


class ReadSection(Section):
    """What a file holds and in which units.

    Attributes
    ----------
    format : "n2p2" or "runner" (``input.data``), or ASE's name of a format; guessed if empty
    length, energy : units; bohr and hartree in n2p2's and RuNNer's files unless given, Å and eV,
        to which ASE converts, in all others
    forces, stress : units, if not the energy unit over the length unit or its cube
    energy_of : whether energies are of the whole frame or per atom
    forces_sign : "gradient" for dE/dx in place of forces
    stress_sign : which stress is positive; "tension" is ASE's convention
    energy_key, forces_key, stress_key : where labels are that are not in their usual place, such
        as "REF_energy": names in ``atoms.info``, of the forces in ``atoms.arrays``
    """

    format: str = ""
    length: Literal["", "angstrom", "bohr", "nm"] = ""
    energy: Literal["", "eV", "hartree", "rydberg", "kJ/mol", "kcal/mol"] = ""
    forces: Literal["", "eV/angstrom", "hartree/bohr", "rydberg/bohr"] = ""
    stress: Literal["", "eV/angstrom3", "GPa", "kbar", "hartree/bohr3", "rydberg/bohr3"] = ""
    energy_of: Literal["frame", "atom"] = "frame"
    forces_sign: Literal["force", "gradient"] = "force"
    stress_sign: Literal["tension", "compression"] = "tension"
    energy_key: str = ""
    forces_key: str = ""
    stress_key: str = ""

    @field_validator("format")
    @classmethod
    def _known(cls, name: str) -> str:
        if name and name not in RUNNER and name not in ioformats:
            raise ValueError(f"neither n2p2 nor one of ASE's formats: {name!r}")
        return name

    def factors(self) -> dict[str, float]:
        """What numbers of each kind are multiplied by to be in eV and Å, signs included."""
        atomic = self.format in RUNNER
        length = LENGTHS[self.length or ("bohr" if atomic else "angstrom")]
        energy = ENERGIES[self.energy or ("hartree" if atomic else "eV")]
        forces = FORCES[self.forces] if self.forces else energy / length
        stress = STRESSES[self.stress] if self.stress else energy / length**3
        return {
            "length": length,
            "energy": energy,
            "forces": forces if self.forces_sign == "force" else -forces,
            "stress": stress if self.stress_sign == "tension" else -stress,
        }

    def structures(self, path) -> Iterator[Atoms]:
        """Structures of a file in Å, with the labels they have in eV, eV/Å and eV/Å³.

        Energies are free energies where a code gives both, unless `energy_key` says which.

        Raises
        ------
        DataError
            If the file cannot be read. Labels are not checked here.
        """
        if self.format in RUNNER:
            raw = iterate_runner(path)
        else:
            raw = iterate_structures(path, self.format or None)
        factors = self.factors()
        for n, atoms in enumerate(raw):
            try:
                yield self._converted(atoms, factors)
            except (TypeError, ValueError) as error:
                reason = " ".join(str(error).split())
                raise DataError(
                    f"Labels of frame {n} of {path} are no numbers: {reason}."
                ) from error

    def _converted(self, atoms: Atoms, factors: dict[str, float]) -> Atoms:
        labels = self._labels(atoms)
        if "energy" in labels and self.energy_of == "atom":
            labels["energy"] = labels["energy"] * len(atoms)
        if "stress" in labels and labels["stress"].size == 9:
            labels["stress"] = full_3x3_to_voigt_6_stress(labels["stress"].reshape(3, 3))
        out = Atoms(
            atoms.numbers,
            atoms.positions * factors["length"],
            cell=atoms.cell.array * factors["length"],
            pbc=atoms.pbc,
            info=atoms.info,
        )
        if "partner" in atoms.arrays:
            out.set_array("partner", atoms.arrays["partner"])
        out.calc = SinglePointCalculator(
            out, **{name: value * factors[name] for name, value in labels.items()}
        )
        return out

    def _labels(self, atoms: Atoms) -> dict[str, Any]:
        found = consistent_energy(atoms.calc.results) if atoms.calc is not None else {}
        places = (
            ("energy", self.energy_key, atoms.info),
            ("forces", self.forces_key, atoms.arrays),
            ("stress", self.stress_key, atoms.info),
        )
        for name, key, place in places:
            if key:
                found.pop(name, None)
                if key in place:
                    found[name] = place[key]
        return {
            name: np.asarray(found[name], dtype=float)
            for name, *_ in places
            if found.get(name) is not None
        }
