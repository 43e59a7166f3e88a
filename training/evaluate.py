"""Errors of a potential against labelled frames, by family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from ase.units import GPa

from ase_hmlp.errors import DataError
from ase_hmlp.model_io import Model, load_model
from ase_hmlp.potential import Potential
from ase_hmlp.training.frames import ALL, Frame, read_frames

#: Width of a band of pressure, GPa.
BAND = 50.0


@dataclass(frozen=True)
class Predictions:
    """Labels and predictions of frames, flat; f frames, c force components.

    Attributes
    ----------
    group : (f,) families
    source : (f,) sources, `Frame.source_set`
    n_atoms : (f,)
    energy : (2, f) reference and prediction, eV/atom
    pressure : (2, f) GPa; NaN where a frame has no stress label
    stress : (2, f, 6) GPa
    forces : (2, c) eV/Å
    frame_of_force : (c,) index of the frame
    """

    group: np.ndarray
    source: np.ndarray
    n_atoms: np.ndarray
    energy: np.ndarray
    pressure: np.ndarray
    stress: np.ndarray
    forces: np.ndarray
    frame_of_force: np.ndarray

    @classmethod
    def concatenate(cls, parts: list[Predictions]) -> Predictions:
        """One set from several."""
        offsets = np.cumsum([0, *(len(p.group) for p in parts[:-1])])
        return cls(
            np.concatenate([p.group for p in parts]),
            np.concatenate([p.source for p in parts]),
            np.concatenate([p.n_atoms for p in parts]),
            np.concatenate([p.energy for p in parts], axis=1),
            np.concatenate([p.pressure for p in parts], axis=1),
            np.concatenate([p.stress for p in parts], axis=1),
            np.concatenate([p.forces for p in parts], axis=1),
            np.concatenate([p.frame_of_force + k for p, k in zip(parts, offsets, strict=True)]),
        )

    def on_one_zero(self, zeros: Mapping[str, float]) -> tuple[Predictions, dict[str, float]]:
        """Take the energy zeros of the sources off the labels.

        Parameters
        ----------
        zeros : how far a source's energies lie above the potential's, eV/atom

        Returns
        -------
        predictions : Predictions
        fitted : dict
            The zeros of the sources that `zeros` does not name: the medians of what the
            potential leaves of their energies.
        """
        rest = self.energy[0] - self.energy[1]
        fitted = {
            name: float(np.median(rest[self.source == name]))
            for name in sorted(set(self.source.tolist()) - set(zeros))
        }
        zero = np.array([({**zeros, **fitted})[name] for name in self.source.tolist()])
        return replace(self, energy=np.stack([self.energy[0] - zero, self.energy[1]])), fitted


@dataclass(frozen=True)
class ErrorRow:
    """Errors of one family: mean absolute (mae) and root mean square (rmse).

    Energies in meV/atom, forces in meV/Å (per component), pressure (a third of the trace) and
    stress (per component) in GPa; NaN without stress labels.
    """

    group: str
    frames: int
    atoms: int
    energy_mae: float
    energy_rmse: float
    force_mae: float
    force_rmse: float
    pressure_mae: float
    pressure_rmse: float
    stress_mae: float

    def to_dict(self) -> dict:
        """Plain numbers and strings."""
        return asdict(self)


def predict(potential: Potential, frames: list[Frame]) -> Predictions:
    """Run a potential over frames."""
    energy, stress, forces, owner = [], [], [], []
    for n, frame in enumerate(frames):
        result = potential.evaluate(frame.geometry(potential.cutoff))
        energy.append((frame.energy / frame.n_atoms, result.energies.sum() / frame.n_atoms))
        label = np.full(6, np.nan) if frame.stress is None else frame.stress
        stress.append((label / GPa, result.virials.sum(axis=0) / frame.volume / GPa))
        forces.append((frame.forces.ravel(), result.forces.ravel()))
        owner.append(np.full(3 * frame.n_atoms, n))
    both = np.array(stress).transpose(1, 0, 2)
    return Predictions(
        np.array([f.group for f in frames]),
        np.array([f.source_set for f in frames]),
        np.array([f.n_atoms for f in frames]),
        np.array(energy).T,
        -both[:, :, :3].mean(axis=2),
        both,
        np.concatenate(forces, axis=1),
        np.concatenate(owner),
    )


def error_table(p: Predictions) -> list[ErrorRow]:
    """Errors by family, and over all frames in the last row."""
    rows = []
    for group in [*sorted(set(p.group.tolist())), ALL]:
        frames = np.ones(len(p.group), bool) if group == ALL else p.group == group
        de = 1e3 * (p.energy[1] - p.energy[0])[frames]
        df = 1e3 * (p.forces[1] - p.forces[0])[frames[p.frame_of_force]]
        dp = (p.pressure[1] - p.pressure[0])[frames]
        ds = (p.stress[1] - p.stress[0])[frames]
        dp, ds = dp[np.isfinite(dp)], ds[np.isfinite(ds)]
        rows.append(
            ErrorRow(
                group,
                int(frames.sum()),
                int(p.n_atoms[frames].sum()),
                *_mae_rmse(de),
                *_mae_rmse(df),
                *_mae_rmse(dp),
                _mae_rmse(ds)[0],
            )
        )
    return rows


def _mae_rmse(d) -> tuple[float, float]:
    if not len(d):
        return float("nan"), float("nan")
    return float(np.abs(d).mean()), float(np.sqrt((d**2).mean()))


@dataclass(frozen=True)
class FileEvaluation:
    """Errors of a model on data files.

    Attributes
    ----------
    model : str
    rows : list of ErrorRow
    frames, seen : int
        How many there are, and how many of them the model was trained on.
    fitted_zeros : dict of float
        Energy zeros (eV/atom) of the sources the model does not know: fitted to these very frames.
    """

    model: str
    rows: list[ErrorRow]
    frames: int
    seen: int
    fitted_zeros: dict[str, float]


def evaluate_files(
    model: str | Path | Model,
    paths,
    split: str | None = None,
    pressures: tuple[float, float] | None = None,
    bands: bool = False,
) -> FileEvaluation:
    """Errors of a model on labelled files, each source on its own energy zero.

    Frames that name no source have the zero of the model.

    Parameters
    ----------
    model : shipped name, path or Model
    paths : data files, anything `read_frames` reads
    split : str, optional
        Only frames whose ``info["split"]`` this is.
    pressures : (2,), optional
        GPa; only frames whose labelled pressure is neither below nor above these.
    bands : bool
        A row for each family and each `BAND` of labelled pressure.

    Raises
    ------
    DataError
        If no frame is left, or one has no stress label where its pressure is asked for.
    """
    model = model if isinstance(model, Model) else load_model(model)
    frames = [frame for path in paths for frame in read_frames(path)]
    if split is not None:
        frames = [frame for frame in frames if frame.split == split]
    if bands or pressures is not None:
        for frame in frames:
            if np.isnan(frame.pressure):
                raise DataError(f"Frame {frame.source} has no stress label: no pressure is known.")
    if pressures is not None:
        low, high = pressures
        frames = [frame for frame in frames if low <= frame.pressure <= high]
    if not frames:
        raise DataError("None of the frames is of the split and the pressures asked for.")
    known = set(np.asarray(model.training.get("frame_digests", ())).tolist())
    seen = sum(frame.digest in known for frame in frames)
    zeros = {"": 0.0, **model.training.get("zeros", {})}
    predictions, fitted = predict(model.potential, frames).on_one_zero(zeros)
    rows = _in_bands(predictions, frames) if bands else error_table(predictions)
    return FileEvaluation(model.name, rows, len(frames), seen, fitted)


def _in_bands(p: Predictions, frames: list[Frame]) -> list[ErrorRow]:
    """Rows of families and bands of pressure, in the order of both."""
    band = np.array([int(frame.pressure // BAND) for frame in frames])
    names = {
        (family, k): f"{family}, {k * BAND:g} to {(k + 1) * BAND:g} GPa"
        for family, k in sorted(set(zip(p.group.tolist(), band.tolist(), strict=True)))
    }
    named = [names[key] for key in zip(p.group.tolist(), band.tolist(), strict=True)]
    rows = {row.group: row for row in error_table(replace(p, group=np.array(named)))}
    return [rows[name] for name in (*names.values(), ALL)]
