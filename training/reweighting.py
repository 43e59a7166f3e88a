"""What DFT's dynamics would average, from labelled snapshots of a model's: `hmlp reweight`.

Snapshots of a model's dynamics at constant volume and temperature come with its energies U_0. With
energies U of DFT, or of another model, for the same snapshots, its averages are

    <A> = <A exp(-D)>_0 / <exp(-D)>_0,    D = (U - U_0) / k T

(R. W. Zwanzig, J. Chem. Phys. 22, 1420, 1954), as long as D varies by little more than 1; to first
order, which asks for less, ``<A> = <A>_0 - cov_0(A, D)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from ase import Atoms, units
from scipy.special import softmax

from ase_hmlp import HMLP
from ase_hmlp.analysis.quadrupoles import quadrupole_energy
from ase_hmlp.errors import DataError
from ase_hmlp.model_io import Model, load_model
from ase_hmlp.molecules import molecules_of
from ase_hmlp.training.frames import frame_from_atoms, iterate_structures

#: DFT's labels for snapshots of Phase I, in the package's data; see generate_ensembles.py there.
FILE = "h2-pbe-ensembles.extxyz.xz"

#: Fewer snapshots say nothing of a spread, fewer walkers nothing of an error.
FEWEST, FEWEST_WALKERS = 8, 3

#: Reach of the quadrupoles, Å, and resamples of the bootstrap.
CUTOFF, RESAMPLES = 8.0, 400

#: Name and unit of what is averaged.
OBSERVABLES = {"<EQQ>": "meV/molecule", "bond": "Å"}


@dataclass(frozen=True)
class Ensemble:
    """Labelled snapshots of one model at one volume and temperature.

    Attributes
    ----------
    name : str
    temperature : float, K
    frames : list of ase.Atoms
        With DFT's energies, and ``partner``.
    sampled, dft : (N,) arrays, eV
        Energies of the model that sampled, and of DFT.
    walker : (N,) integers
        Snapshots of one walker may depend on each other.
    observables : dict
        Values (N,) by the names of `OBSERVABLES`.
    """

    name: str
    temperature: float
    frames: list[Atoms]
    sampled: np.ndarray
    dft: np.ndarray
    walker: np.ndarray
    observables: dict[str, np.ndarray]


@dataclass(frozen=True)
class Average:
    """An average and its standard error over walkers, under three energies.

    Errors are NaN with fewer than `FEWEST_WALKERS` walkers.

    Attributes
    ----------
    ensemble, observable, unit : str
    snapshots : int
    spread : float
        Standard deviation of D.
    effective : float
        Snapshots that the weights leave, by Kish: (sum w)² / sum w².
    sampled, first_order, reweighted : (value, standard error)
    """

    ensemble: str
    observable: str
    unit: str
    snapshots: int
    spread: float
    effective: float
    sampled: tuple[float, float]
    first_order: tuple[float, float]
    reweighted: tuple[float, float]

    def to_dict(self) -> dict:
        """Plain numbers and strings; None for what is not a number."""

        def plain(value):
            return [plain(x) for x in value] if isinstance(value, tuple) else finite(value)

        def finite(value):
            return None if value != value else value

        return {name: plain(value) for name, value in asdict(self).items()}


def read_ensembles(path=None) -> list[Ensemble]:
    """Read a file of generate_ensembles.py; the package's own unless `path` is given.

    Raises
    ------
    DataError
        If a frame lacks what it was sampled with, or an ensemble is too small.
    """
    if path is None:
        with as_file(files("ase_hmlp.training.data") / FILE) as own:
            return read_ensembles(own)
    path = Path(path)
    groups: dict[str, list[Atoms]] = {}
    for number, atoms in enumerate(iterate_structures(path)):
        needed = ("ensemble", "temperature", "sampled_energy", "walker")
        missing = [key for key in needed if key not in atoms.info]
        if missing or not atoms.has("partner") or atoms.calc is None:
            missing += [] if atoms.has("partner") else ["partner"]
            missing += [] if atoms.calc is not None else ["energy"]
            raise DataError(f"{path}: frame {number} lacks {', '.join(missing)}.")
        groups.setdefault(str(atoms.info["ensemble"]), []).append(atoms)
    if not groups:
        raise DataError(f"{path} has no frames.")
    return [_ensemble(name, frames, path) for name, frames in groups.items()]


def _ensemble(name: str, frames: list[Atoms], path: Path) -> Ensemble:
    temperatures = {float(atoms.info["temperature"]) for atoms in frames}
    if len(temperatures) > 1:
        raise DataError(f"{path}: frames of {name} are of more than one temperature.")
    if len(frames) < FEWEST:
        raise DataError(
            f"{path}: {name} has {len(frames)} frames, and takes {FEWEST} to say anything."
        )
    values = np.array([_observe(atoms) for atoms in frames])
    return Ensemble(
        name,
        temperatures.pop(),
        frames,
        np.array([float(atoms.info["sampled_energy"]) for atoms in frames]),
        np.array([atoms.get_potential_energy() for atoms in frames]),
        np.array([int(atoms.info["walker"]) for atoms in frames]),
        dict(zip(OBSERVABLES, values.T, strict=True)),
    )


def _observe(atoms: Atoms) -> tuple[float, float]:
    frame = frame_from_atoms(atoms, str(atoms.info.get("source", "a snapshot")))
    bonds = frame.bond_vectors()
    lengths = np.linalg.norm(bonds, axis=1)
    centres = frame.positions[frame.molecules[:, 0]] + 0.5 * bonds
    energy, _ = quadrupole_energy(centres, bonds / lengths[:, None], frame.cell, frame.pbc, CUTOFF)
    return float(energy.sum()), float(lengths.mean())


def energies_of(model: Model | str | Path, ensemble: Ensemble) -> np.ndarray:
    """Energies (N,) of a model for the snapshots, eV."""
    model = model if isinstance(model, Model) else load_model(model)
    energies = []
    for atoms in ensemble.frames:
        copy = atoms.copy()
        copy.calc = HMLP(model, bonds=molecules_of(atoms.arrays["partner"]))
        energies.append(copy.get_potential_energy())
    return np.array(energies)


def averages(ensemble: Ensemble, energies, seed: int = 0) -> list[Average]:
    """What dynamics with other energies would average.

    Parameters
    ----------
    ensemble : Ensemble
    energies : (N,) eV
        Their zero does not matter.
    seed : int
        Of the bootstrap over walkers.
    """
    d = (np.asarray(energies) - ensemble.sampled) / (units.kB * ensemble.temperature)
    d -= d.mean()
    weight = softmax(-d)
    draws = _resamples(ensemble.walker, np.random.default_rng(seed))
    walkers = len(np.unique(ensemble.walker))
    # Walkers that are drawn scatter about the mean of those that there are: by less than these do
    # about the truth.
    scale = np.sqrt(walkers / (walkers - 1)) if walkers >= FEWEST_WALKERS else np.nan
    rows = []
    for name, unit in OBSERVABLES.items():
        a = ensemble.observables[name]
        kinds: Sequence[Callable] = (
            lambda k, a=a: a[k].mean(),
            lambda k, a=a: a[k].mean() - np.mean((a[k] - a[k].mean()) * (d[k] - d[k].mean())),
            lambda k, a=a: softmax(-d[k]) @ a[k],
        )
        everything = np.arange(len(a))
        results = [
            (float(f(everything)), scale * float(np.std([f(k) for k in draws], ddof=1)))
            for f in kinds
        ]
        rows.append(
            Average(
                ensemble.name,
                name,
                unit,
                len(a),
                float(d.std(ddof=1)),
                float(1.0 / (weight**2).sum()),
                *results,
            )
        )
    return rows


def _resamples(walker: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Indices of snapshots, whole walkers drawn with replacement."""
    names = np.unique(walker)
    members = [np.flatnonzero(walker == name) for name in names]
    drawn = rng.integers(len(names), size=(RESAMPLES, len(names)))
    return [np.concatenate([members[k] for k in row]) for row in drawn]
