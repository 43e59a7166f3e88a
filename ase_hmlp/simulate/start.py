"""The structure a run starts from: built or read, at its pressure, with momenta."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, cast

import numpy as np
from ase import Atoms
from ase.md.velocitydistribution import Stationary

from ase_hmlp.analysis.source import trajectory_path
from ase_hmlp.calculator import HMLP
from ase_hmlp.errors import ConfigError, HMLPError
from ase_hmlp.simulate import structures
from ase_hmlp.simulate.build import at_pressure, hcp, isotopes, orthogonal, phase, supercell
from ase_hmlp.simulate.dynamics import Stage, draw_momenta
from ase_hmlp.simulate.melt import liquid, solid_liquid
from ase_hmlp.simulate.run_config import StructureSection
from ase_hmlp.stated_bonds import read_structure, repeated

#: Phases that are no crystals of `structures.NAMES`.
MADE = ("hcp", "liquid", "slab")

Progress = Callable[[str], None]


def check(section: StructureSection, base: Path, stages: Sequence[Stage]) -> None:
    """Refuse what cannot be built, before anything is.

    Parameters
    ----------
    section : StructureSection
    base : Path
        That files are relative to.
    stages : sequence of Stage
        Of the run.

    Raises
    ------
    ConfigError
    """
    for key, name, known in (
        ("phase", section.phase, (*MADE, *structures.NAMES)),
        ("solid", section.solid, ("hcp", *structures.NAMES)),
    ):
        if name is not None and name not in known:
            raise ConfigError(f"structure.{key}: there is no {name!r}, but {', '.join(known)}.")
    if section.file is not None and not trajectory_path(base / section.file).is_file():
        raise ConfigError(f"structure.file: there is no {trajectory_path(base / section.file)}.")
    if section.repeat is not None and section.phase in MADE:
        raise ConfigError(f"structure.repeat: {section.phase} takes atoms instead.")
    if section.file is None:
        _temperature(section, stages[0])


def check_atoms(atoms: Atoms, stages: Sequence[Stage], what: str) -> None:
    """Refuse a structure that was given and cannot go through the stages.

    Parameters
    ----------
    atoms : ase.Atoms
    stages : sequence of Stage
    what : str
        What to call it in messages.

    Raises
    ------
    ConfigError
    """
    if atoms.constraints:
        kinds = ", ".join(sorted({type(c).__name__ for c in atoms.constraints}))
        raise ConfigError(f"{what} has constraints ({kinds}), which no run keeps: take them off.")
    if not atoms.pbc.all() and any(stage.method.ensemble == "npt" for stage in stages):
        raise ConfigError(
            f"{what} is not periodic in all three directions, as npt needs it: take nvt or nve."
        )


def _temperature(section: StructureSection, first: Stage) -> float:
    """What momenta are drawn at, K."""
    temperature = section.temperature or first.start.temperature
    if np.isnan(temperature):
        raise ConfigError(
            "structure.temperature: an nve stage needs it, or momenta in the structure's file, "
            "which supercells do not take."
        )
    return temperature


def starting_structure(
    section: StructureSection,
    base: Path,
    stages: Sequence[Stage],
    calculator: HMLP,
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> Atoms:
    """Build or read the structure of a run.

    Parameters
    ----------
    section : StructureSection
    base : Path
        That files are relative to.
    stages : sequence of Stage
        Of the run: the start of the first decides what `section` leaves open.
    calculator : HMLP
    rng : numpy.random.Generator
    progress : callable, optional
        Called with a word on what is being done.

    Returns
    -------
    ase.Atoms
        With momenta; with an array ``partner`` where the bonds are known from how it was made.

    Raises
    ------
    ConfigError
        If something needed is not given.
    ase_hmlp.errors.HMLPError
        If the structure will not do.
    """
    check(section, base, stages)
    builder = _Builder(section, base, stages, calculator, rng, progress or (lambda _: None))
    atoms = builder.build()
    if section.temperature is not None:
        draw_momenta(atoms, section.temperature, rng)
    elif not atoms.has("momenta"):
        # At a minimum, half of the kinetic energy is about to become potential.
        draw_momenta(atoms, builder.temperature * (2.0 if builder.at_minimum else 1.0), rng)
    atoms.calc = None
    return atoms


class _Builder:
    def __init__(self, section, base, stages: Sequence[Stage], calculator, rng, progress):
        self.section = section
        self.base = base
        self.stages = stages
        self.calculator = calculator
        self.rng = rng
        self.progress = progress
        self.at_minimum = False

    @property
    def temperature(self) -> float:
        return _temperature(self.section, self.stages[0])

    @property
    def pressure(self) -> float:
        pressure = self.section.pressure
        if pressure is None:
            pressure = self.stages[0].start.pressure
        if np.isnan(pressure):
            raise ConfigError("structure.pressure: it is needed where the first stage has none.")
        return pressure

    def build(self) -> Atoms:
        section = self.section
        if section.file is not None:
            atoms = self._read()
        elif section.phase == "liquid":
            self.progress("melting")
            atoms = liquid(
                self.calculator,
                self.pressure,
                self.temperature,
                section.atoms,
                self.rng,
                section.melt.melting,
                self._melting,
            )
        elif section.phase == "slab":
            atoms = self._slab()
        else:
            atoms = self._solid(section.phase, section.atoms)
        if section.isotope is not None:
            atoms = isotopes(atoms, section.isotope, self.rng)
            if section.file is None and atoms.has("momenta"):  # masses weigh them anew
                Stationary(atoms)
        return atoms

    def _read(self) -> Atoms:
        section, path = self.section, self.base / self.section.file
        try:
            atoms = read_structure(path, section.index)
        except (HMLPError, OSError) as error:
            raise ConfigError(f"structure.file: {error}") from error
        atoms.calc = None
        check_atoms(atoms, self.stages, f"structure.file: {path}")
        copies = np.prod(section.repeat) if section.repeat else 1
        if copies > 1 or not atoms.has("momenta"):
            _temperature(section, self.stages[0])
        if section.relax not in (None, "none"):
            if not atoms.pbc.all():
                raise ConfigError(
                    f"structure.relax: {path} is not periodic in all three directions and has no "
                    "pressure to be brought to."
                )
            atoms = self._relaxed(atoms, section.relax)
        if section.orthogonal:
            atoms = orthogonal(atoms)
            if not atoms.has("momenta"):
                _temperature(section, self.stages[0])
        return repeated(atoms, section.repeat) if section.repeat else atoms

    def _solid(self, name: str, min_atoms: int) -> Atoms:
        section = self.section
        if name == "hcp":
            atoms = hcp(min_atoms, rng=self.rng)
            relax = section.relax or "volume"
            return atoms if relax == "none" else self._relaxed(atoms, relax)
        atoms = phase(name)
        relax = section.relax or "full"
        if relax != "none":
            atoms = self._relaxed(atoms, relax)
        if section.orthogonal:
            atoms = orthogonal(atoms)
        if section.repeat is not None:
            return atoms.repeat(section.repeat)
        return supercell(atoms, min_atoms)

    def _slab(self) -> Atoms:
        section = self.section
        cell = self._solid(section.solid, (section.atoms + 1) // 2)
        axis = int(np.argmax(cell.cell.lengths()))
        solid = cell.repeat([2 if k == axis else 1 for k in range(3)])
        solid.calc = self.calculator
        return solid_liquid(
            solid, self.temperature, self.rng, axis, section.melt.melting, self._melting
        )

    def _relaxed(self, atoms: Atoms, relaxation: str) -> Atoms:
        atoms.calc = self.calculator
        self.progress(f"relaxing at {self.pressure:g} GPa")
        self.at_minimum = relaxation == "full"

        def report(step, fmax, stress):
            self.progress(f"relaxing, step {step}: {fmax:.3f} eV/Å, {stress:.2f} GPa")

        options = {"progress": report} if relaxation == "full" else {}
        relaxed = at_pressure(
            atoms, self.pressure, cast(Literal["full", "volume"], relaxation), **options
        )
        relaxed.calc = None
        return relaxed

    def _melting(self, what: str, step: int, order: float) -> None:
        self.progress(f"{what}, step {step}: {100.0 * order:.0f} % of the crystal's order left")
