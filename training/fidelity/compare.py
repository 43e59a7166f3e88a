"""A model's derived quantities beside DFT's, each with its difference and the bar it must meet."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase import Atoms

from ase_hmlp import HMLP
from ase_hmlp.errors import DomainWarning, HMLPError
from ase_hmlp.model_io import Model, load_model, model_hash
from ase_hmlp.simulate.relax import Relaxation
from ase_hmlp.training.fidelity.crystals import (
    Modes,
    displaced_cells,
    enthalpy,
    match,
    modes,
    pressure,
    relax_phase,
    relax_positions,
    volume,
)
from ase_hmlp.training.fidelity.molecules import (
    Curve,
    alone,
    crossing,
    dft_curve,
    model_curve,
    molecule_equilibrium,
)
from ase_hmlp.training.fidelity.reference import (
    ARRANGEMENTS,
    CRYSTAL,
    PHASES,
    PRESSURES,
    Reference,
    bonds,
    read_reference,
)

NAN = float("nan")

#: How far a faithful model may be off, by kind of quantity.
BARS = {
    "bond length": (0.003, "Å"),
    "frequency": (1.5, "%"),
    "crossing": (0.1, "Å"),
    "pressure": (1.5, "%"),
    "enthalpy": (3.0, "meV/molecule"),
    "phonon": (5.0, "%"),
}

#: Stages of a comparison, as progress is reported.
STAGES = ("molecule", "dimers", "P(V)", "enthalpies", "phonons")


@dataclass(frozen=True)
class Row:
    """One quantity.

    Attributes
    ----------
    kind : str
        One of `BARS`.
    quantity, unit : str
    dft, model : float
        NaN where there is no such number: no crossing, say, or a relaxation that failed.
    """

    kind: str
    quantity: str
    unit: str
    dft: float
    model: float

    @property
    def bar(self) -> float:
        """Largest difference that is good enough, in `bar_unit`."""
        return BARS[self.kind][0]

    @property
    def bar_unit(self) -> str:
        """Per cent, or the unit of the quantity."""
        return BARS[self.kind][1]

    @property
    def difference(self) -> float:
        """Model less DFT, in the unit of the bar."""
        if self.bar_unit == "%":
            return 100.0 * (self.model / self.dft - 1.0)
        return self.model - self.dft

    @property
    def met(self) -> bool:
        """Whether the difference is within the bar."""
        return bool(abs(self.difference) <= self.bar)

    def to_dict(self) -> dict:
        """Plain numbers and strings, None for NaN."""
        numbers = ("dft", "model", "difference", "bar")
        values = {name: float(getattr(self, name)) for name in numbers}
        return {
            "kind": self.kind,
            "quantity": self.quantity,
            "unit": self.unit,
            **{name: None if np.isnan(value) else value for name, value in values.items()},
            "bar_unit": self.bar_unit,
            "met": self.met,
        }


@dataclass
class Comparison:
    """All of it; what failed is NaN, and the remarks say why.

    Attributes
    ----------
    model, model_sha256 : str
    reference : Reference
    rows : list of Row
    remarks : list of str
    curves : dict of pairs of Curve
        DFT's and the model's, by arrangement, relative to two single molecules.
    crossings : tuple of float, Å
        DFT's and the model's.
    pressures : (n, 4) array
        Volume (Å³/atom), pressures (GPa) of DFT, of the model with its own relaxed positions, and
        at DFT's positions.
    volumes : dict of (phase, pressure) to pairs of float, Å³/atom
        Relaxed by DFT and by the model.
    modes : (m, 3) array
        Frequencies (1/cm) of DFT and the model, and the overlap of the eigenvectors.
    """

    model: str
    model_sha256: str
    reference: Reference
    rows: list[Row] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    curves: dict[str, tuple[Curve, Curve]] = field(default_factory=dict)
    crossings: tuple[float, float] = (NAN, NAN)
    pressures: np.ndarray = field(default_factory=lambda: np.empty((0, 4)))
    volumes: dict[tuple[str, float], tuple[float, float]] = field(default_factory=dict)
    modes: np.ndarray = field(default_factory=lambda: np.empty((0, 3)))

    @property
    def missed(self) -> list[Row]:
        """Rows that are not within their bar."""
        return [row for row in self.rows if not row.met]

    def worst(self) -> list[Row]:
        """Of each kind the row that is farthest off, in the order of `BARS`."""
        found = []
        for kind in BARS:
            rows = [row for row in self.rows if row.kind == kind]
            if rows:  # a NaN is the largest
                found.append(rows[int(np.argmax([abs(row.difference) for row in rows]))])
        return found


def compare(
    model: str | Path | Model,
    reference: str | Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Comparison:
    """Hold a model against the DFT results that come with the package.

    Nothing is computed with DFT. The model relaxes the crystals itself, from DFT's structures and
    in their space groups.

    Parameters
    ----------
    model : shipped name, path or Model
    reference : path, optional
        Other results of ``generate_fidelity.py``.
    progress : callable, optional
        Called as ``progress(stage, done, of)``.

    Raises
    ------
    ModelFileError
        If the model cannot be read.
    DataError
        If the results cannot.
    HMLPError
        Without phonopy.
    """
    digest = "" if isinstance(model, Model) else model_hash(model)
    model = model if isinstance(model, Model) else load_model(model)
    results = read_reference(reference)
    comparison = Comparison(model.name, digest, results)
    seen = results.digests & set(np.asarray(model.training.get("frame_digests", ())).tolist())
    if seen:
        comparison.remarks.append(
            f"{len(seen)} of the {len(results.digests)} DFT results were in the training data: "
            "this is no test."
        )
    work = _Work(comparison, model, progress)
    work.molecule()
    work.dimers()
    work.pressures()
    work.enthalpies()
    work.phonons()
    return comparison


class _Work:
    """The stages of a comparison, each filling in its part."""

    def __init__(self, comparison: Comparison, model: Model, progress):
        self.result, self.reference, self.model = comparison, comparison.reference, model
        self._progress = progress
        self._relaxed: dict[tuple[str, float], Relaxation] = {}

    def _report(self, stage: str, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(stage, done, total)

    @contextmanager
    def _attempt(self, what: str) -> Iterator[None]:
        """Let a model fail in one thing, and say so; tell when it was outside its domain."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", DomainWarning)
            try:
                yield
            except HMLPError as error:
                self._remark(f"{what}: {error}")
        for warning in caught:
            if issubclass(warning.category, DomainWarning):
                self._remark(f"{what}: {warning.message}")
            else:
                warnings.warn_explicit(
                    warning.message, warning.category, warning.filename, warning.lineno
                )

    def _remark(self, text: str) -> None:
        text = " ".join(text.split())
        if text not in self.result.remarks:
            self.result.remarks.append(text)

    def _row(self, kind, quantity, unit, dft, model) -> None:
        self.result.rows.append(Row(kind, quantity, unit, float(dft), float(model)))

    def _calculator(self, atoms: Atoms) -> HMLP:
        return HMLP(self.model, bonds=bonds(atoms))

    def _crystal(self, atoms: Atoms) -> Atoms:
        """A labelled structure with the model as its calculator, and nothing of its labels.

        What ``info["pulay"]`` says that DFT's stress lacks, the model's does not.
        """
        crystal = atoms.copy()
        crystal.info.clear()
        crystal.calc = self._calculator(atoms)
        return crystal

    def molecule(self) -> None:
        """Bond length and frequency, from the same polynomial through the same bond lengths."""
        stage, frames = STAGES[0], self.reference.molecule
        self._report(stage, 0, 1)
        dft = molecule_equilibrium(frames)
        own = NAN, NAN
        with self._attempt("Isolated molecule"):
            calculator = self._calculator(frames[0])
            own = molecule_equilibrium([alone(atoms, calculator) for atoms in frames])
        self._row("bond length", "bond length of the molecule", "Å", dft[0], own[0])
        self._row("frequency", "harmonic frequency of the molecule", "1/cm", dft[1], own[1])
        self._report(stage, 1, 1)

    def dimers(self) -> None:
        """Energy curves of two molecules, and where T and X cross."""
        stage, dimers = STAGES[1], self.reference.dimers
        names = [name for name in ARRANGEMENTS if name in dimers]
        own: dict[str, Curve] = {}
        for done, name in enumerate(names):
            self._report(stage, done, len(names))
            with self._attempt(f"Arrangement {name}"):
                own[name] = model_curve(dimers[name], self.model)
                shortest = own[name].separation[0]
                if shortest > dimers[name][0].info["separation"]:
                    self._remark(f"Arrangement {name}: the model refuses less than {shortest:g} Å.")
        self._report(stage, len(names), len(names))
        dft = {name: dft_curve(dimers[name]) for name in names}
        at = crossing(dft["T"], dft["X"])
        both = "T" in own and "X" in own
        self.result.crossings = at, crossing(own["T"], own["X"]) if both else NAN
        self._row("crossing", "T-X crossing of two molecules", "Å", *self.result.crossings)
        zeros = self._two_molecules(dimers[names[0]][0])
        for name in [name for name in names if name in own]:
            curves = tuple(
                Curve(curve.separation, curve.energy - zero)
                for curve, zero in zip((dft[name], own[name]), zeros, strict=True)
            )
            self.result.curves[name] = curves[0], curves[1]

    def _two_molecules(self, dimer: Atoms) -> tuple[float, float]:
        """Energies (eV) of two single molecules with the bond length of a dimer."""
        frames = self.reference.molecule
        i, j = bonds(dimer)[0]
        length = dimer.get_distance(i, j, mic=True)
        lengths = [atoms.get_distance(0, 1, mic=True) for atoms in frames]
        energies = [atoms.get_potential_energy() for atoms in frames]
        fit = np.polynomial.Polynomial.fit(lengths, energies, min(5, len(frames) - 1))
        single = alone(frames[0], self._calculator(frames[0]))
        single.set_distance(0, 1, length, fix=0.5, mic=True)
        own = NAN
        with self._attempt("Isolated molecule"):
            own = 2.0 * single.get_potential_energy()
        return 2.0 * float(fit(length)), own

    def pressures(self) -> None:
        """Pressures of one crystal in DFT's cells."""
        stage, relaxed = STAGES[2], self.reference.relaxed[CRYSTAL]
        table = []
        for done, (target, atoms) in enumerate(relaxed.items()):
            self._report(stage, done, len(relaxed))
            moving = self._crystal(atoms)
            own = unmoved = NAN
            with self._attempt(f"{CRYSTAL} at {target:g} GPa, DFT's cell"):
                unmoved = pressure(moving)
                own = pressure(relax_positions(moving))
            table.append((volume(atoms), pressure(atoms), own, unmoved))
        self.result.pressures = np.array(sorted(table))
        for v, dft, own, _ in self.result.pressures:
            self._row("pressure", f"{CRYSTAL}, pressure at {v:.2f} Å³/atom", "GPa", dft, own)
        self._report(stage, len(relaxed), len(relaxed))

    def _relax(self, phase: str, target: float) -> Relaxation | None:
        """Let the model relax a phase from DFT's structure; what failed fails once.

        To the pressure that DFT's structure is under: the target is that of a stress that lacks
        Pulay's, half a GPa to one below.
        """
        key = phase, target
        if key not in self._relaxed:
            atoms = self.reference.relaxed[phase][target]
            moving = self._crystal(atoms)
            with self._attempt(f"{phase} at {target:g} GPa"):
                self._relaxed[key] = relax_phase(moving, pressure(atoms))
        return self._relaxed.get(key)

    def enthalpies(self) -> None:
        """Enthalpy differences at the pressures at which there are several phases."""
        stage, relaxed = STAGES[3], self.reference.relaxed
        order = [*(p for p in PHASES if p in relaxed), *(p for p in relaxed if p not in PHASES)]
        points = {
            target: phases
            for target in PRESSURES
            if len(phases := [name for name in order if target in relaxed[name]]) > 1
        }
        total, done = sum(map(len, points.values())), 0
        for target, phases in points.items():
            dft, own = [], []
            for name in phases:
                self._report(stage, done, total)
                atoms, relaxation = relaxed[name][target], self._relax(name, target)
                dft.append(enthalpy(atoms, target))
                own.append(NAN if relaxation is None else enthalpy(relaxation.atoms, target))
                sizes = volume(atoms), NAN if relaxation is None else relaxation.volume
                self.result.volumes[name, target] = sizes
                done += 1
            a, b = (1e3 * np.array(h) for h in (dft, own))
            for k, name in enumerate(phases[1:], start=1):
                what = f"H({name}) - H({phases[0]}) at {target:g} GPa"
                self._row("enthalpy", what, "meV/molecule", a[k] - a[0], b[k] - b[0])
            if len(phases) > 2:
                # Any two of them: the rows above are only those with the first.
                pairs = list(itertools.combinations(range(len(phases)), 2))
                off = [abs((b[j] - b[i]) - (a[j] - a[i])) for i, j in pairs]
                i, j = pairs[int(np.argmax(off))]  # a NaN is the largest
                if i > 0:
                    what = f"H({phases[j]}) - H({phases[i]}) at {target:g} GPa"
                    self._row("enthalpy", what, "meV/molecule", a[j] - a[i], b[j] - b[i])
        self._report(stage, total, total)

    def phonons(self) -> None:
        """Optical modes at Gamma, each calculation at its own relaxed structure."""
        stage, displaced = STAGES[4], self.reference.phonon
        about = displaced[0].info
        phase, target = str(about["phase"]), float(about["pressure_GPa"])
        atoms = self.reference.relaxed[phase][target]
        self._report(stage, 0, 1)
        dft = modes(atoms, displaced)
        own: Modes | None = None
        relaxation = self._relax(phase, target)
        if relaxation is not None:
            with self._attempt("Phonons"):
                start = relaxation.atoms.copy()
                start.set_constraint()
                moved = displaced_cells(start)
                for cell in moved:
                    cell.calc = self._calculator(atoms)
                own = modes(start, moved)
        pairs, overlap = match(dft, dft if own is None else own)
        found = np.full(len(pairs), NAN) if own is None else own.frequency[pairs[:, 1]]
        self.result.modes = np.column_stack([dft.frequency[pairs[:, 0]], found, overlap])
        for k, (a, b, _) in enumerate(self.result.modes, start=1):
            what = f"{phase}, {target:g} GPa, optical mode {k} at Gamma"
            self._row("phonon", what, "1/cm", a, b)
        self._report(stage, 1, 1)
