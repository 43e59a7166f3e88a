"""Structures that exploration starts from: crystals, files, liquids, random packings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.cell import Cell
from ase.geometry import get_distances

from ase_hmlp.calculator import HMLP
from ase_hmlp.errors import DataError, HMLPError
from ase_hmlp.molecules import find_molecules
from ase_hmlp.simulate.build import at_pressure, hcp, phase, supercell
from ase_hmlp.simulate.melt import liquid
from ase_hmlp.training.frames import Frame, iterate_structures
from ase_hmlp.training.learn.config import HCP, LIQUID, ExploreSection
from ase_hmlp.training.learn.environments import frame_of

#: Shortest distance (Å) between molecules in a random packing, and how much larger than at the
#: pressure its volume is at first: denser ones are not found by chance.
PACKING_CONTACT, PACKING_VOLUME = 1.2, 1.3


#: Places tried for a molecule before a larger cell is.
TRIALS = 100


@dataclass(frozen=True)
class Start:
    """A structure to begin with.

    Attributes
    ----------
    name : str
    atoms : ase.Atoms or None
        None for what is drawn anew at every pressure: random packings, hcp, liquids.
    """

    name: str
    atoms: Atoms | None = None

    @property
    def made(self) -> bool:
        """Whether it is brought to the pressure by `make`, not relaxed."""
        return self.atoms is None and self.name in (HCP, LIQUID)

    @property
    def flows(self) -> bool:
        """Whether it may be liquid."""
        return self.atoms is None and self.name != HCP

    def draw(self, volume: float, bond: float, n_atoms: int, rng: np.random.Generator) -> Atoms:
        """A structure to be brought to a pressure.

        Parameters
        ----------
        volume : float, Å³/atom
        bond : float, Å
            In random packings.
        n_atoms : int
            The fewest.
        rng : numpy.random.Generator
        """
        if self.atoms is not None:
            return self.atoms.copy()
        if self.made:
            return hcp(n_atoms, volume, rng=rng)
        return random_packing(n_atoms, PACKING_VOLUME * volume, bond, rng)

    def make(
        self, drawn: Atoms, calculator: HMLP, pressure: float, hot: float, rng: np.random.Generator
    ) -> Atoms:
        """Scale hcp to a pressure, or melt it there, as `hmlp run` and `hmlp stability` do.

        Parameters
        ----------
        drawn : ase.Atoms
            By `draw`, if it is `made`.
        calculator : HMLP
            Of its molecules.
        pressure : float, GPa
        hot : float, K
            Of a liquid.
        rng : numpy.random.Generator

        Raises
        ------
        NotConvergedError
            If it has no such volume, or does not melt.
        StructureError
            If it has no energy on the way.
        """
        if self.name == LIQUID:
            return liquid(calculator, pressure, hot, len(drawn), rng)
        atoms = drawn.copy()
        atoms.calc = calculator
        return at_pressure(atoms, pressure, "volume")


def starting_structures(settings: ExploreSection, base: Path) -> list[Start]:
    """All that the tours begin with.

    Raises
    ------
    DataError
        If a file holds something that is not periodic molecular hydrogen.
    """
    starts = [
        Start(name, None if name in (HCP, LIQUID) else supercell(phase(name), settings.atoms))
        for name in settings.phases
    ]
    for file in settings.files:
        path = base / file
        for k, atoms in enumerate(iterate_structures(path)):
            try:
                if (atoms.numbers != 1).any() or not atoms.pbc.all() or atoms.cell.rank < 3:
                    raise DataError("it is no hydrogen in a cell periodic in all directions")
                find_molecules(atoms.positions, atoms.cell.array, atoms.pbc)
            except HMLPError as error:
                raise DataError(f"Frame {k} of {path} cannot be started from: {error}.") from error
            whole = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
            starts.append(Start(f"{path.stem}-{k}", supercell(whole, settings.atoms)))
    starts += [Start(f"random-{k}") for k in range(settings.random)]
    names = [start.name for start in starts]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"Two starting structures are called {twice[0]}: rename a file.")
    return starts


def random_packing(n_atoms: int, volume: float, bond: float, rng: np.random.Generator) -> Atoms:
    """Molecules thrown into a random cell, none nearer to another than `PACKING_CONTACT`.

    Parameters
    ----------
    n_atoms : int
        One more if it is odd.
    volume : float, Å³/atom
        At first; larger where there is no room.
    bond : float, Å
    rng : numpy.random.Generator
    """
    n = (n_atoms + 1) // 2
    while True:
        lengths, angles = np.exp(rng.uniform(-0.25, 0.25, 3)), rng.uniform(70.0, 110.0, 3)
        cell = Cell.fromcellpar([*lengths, *angles])
        cell = Cell(cell.array * np.cbrt(2 * n * volume / cell.volume))
        positions = np.zeros((0, 3))
        for _ in range(n):
            axes = rng.normal(size=(TRIALS, 3))
            half = 0.5 * bond * axes / np.linalg.norm(axes, axis=1, keepdims=True)
            centres = rng.uniform(size=(TRIALS, 3)) @ cell.array
            pairs = np.stack([centres - half, centres + half], axis=1)
            if len(positions):
                distances = get_distances(pairs.reshape(-1, 3), positions, cell, True)[1]
                pairs = pairs[distances.reshape(TRIALS, -1).min(axis=1) >= PACKING_CONTACT]
            if not len(pairs):
                break
            positions = np.vstack([positions, pairs[0]])
        # A molecule meets its own images, too.
        if len(positions) == 2 * n:
            whole = frame_of(positions, cell.array, np.arange(2 * n).reshape(-1, 2))
            if whole.shortest_contact >= PACKING_CONTACT:
                return Atoms(f"H{2 * n}", positions, cell=cell, pbc=True)
        volume *= 1.05


def volume_at(frames: list[Frame], pressure: float) -> float:
    """Volume (Å³/atom) of the labelled frame whose pressure is nearest to the given one (GPa)."""
    bulk = [f for f in frames if f.stress is not None] or frames
    given = np.array([f.pressure for f in bulk])
    nearest = int(np.nan_to_num(np.abs(given - pressure)).argmin())
    return bulk[nearest].volume / bulk[nearest].n_atoms
