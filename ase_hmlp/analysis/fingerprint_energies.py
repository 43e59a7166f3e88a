"""Energy by families of fingerprints, fp_EQQ above all (Zong et al. 2020, Fig. 5a)."""

from __future__ import annotations

import warnings

import numpy as np
from matplotlib.figure import Figure

from ase_hmlp.analysis.figures import CURVES
from ase_hmlp.analysis.result import Result
from ase_hmlp.analysis.series import Series
from ase_hmlp.analysis.streaming import Analysis
from ase_hmlp.analysis.trajectory import Snapshot, Trajectory
from ase_hmlp.calculator import HMLP
from ase_hmlp.errors import DomainWarning
from ase_hmlp.figure_style import styled

#: The quadrupole-quadrupole fingerprint is a family by itself.
FP_EQQ = "fp_EQQ"


def family(level: str, fingerprint: str) -> str:
    """Family of a fingerprint: the kind of pair function, or the orientational invariant.

    Parameters
    ----------
    level : {"pair", "orientation", "environment"}
    fingerprint : str
        As ``gaussian(1.5)``, ``S220*gaussian(2)``, ``density gaussian(2)``, ``shell(2,0.4)`` or
        ``fp_EQQ``.
    """
    if fingerprint == FP_EQQ:
        return FP_EQQ
    kind = fingerprint.split("(")[0]
    return f"{level} {kind.split()[0] if level == 'environment' else kind.split('*')[0]}"


class FingerprintEnergies(Analysis):
    """Where a model's energy comes from, by families of fingerprints.

    The split is that of `ase_hmlp.attribution`; the families and the bonds add up to the energy
    above that of the energy zero. What matters is how a family changes from phase to phase:
    radial functions overlap, and large contributions of opposite sign may cancel.

    Parameters
    ----------
    model : str, path or Model
    threads : int, optional
        See `ase_hmlp.HMLP`.
    """

    name = "fingerprints"

    def __init__(self, model="h2-pbe", threads: int | None = None):
        self._calc = HMLP(model, threads=threads)
        self._model = model
        self._series: Series | None = None
        self._notes: list[str] = []

    def parameters(self) -> dict:
        """Settings, for the record."""
        return {"model": self._calc.model.name, "model_file": str(self._model)}

    def start(self, trajectory: Trajectory) -> None:
        """Take over the bonds."""
        self._calc.set(bonds=trajectory.molecules)

    def add(self, snapshot: Snapshot) -> None:
        """Take in a frame."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", DomainWarning)
            found = self._calc.fingerprint_shares(snapshot.atoms)
        self._notes += [f"{snapshot.where}: {warning.message}" for warning in caught]
        levels = self._calc.levels
        energies = {"bond": levels["bond"]}
        for level, fingerprints in found.items():
            for fingerprint, energy in fingerprints.items():
                key = family(level, fingerprint)
                energies[key] = energies.get(key, 0.0) + energy
        energies["all"] = sum(levels.values()) - levels["zero"]
        if self._series is None:
            self._series = Series(*energies)
        per_molecule = 1000.0 / len(snapshot.molecules)
        self._series.add(snapshot, *(per_molecule * energies[key] for key in self._series.names))

    def result(self) -> Result:
        """A quantity for each family (meV/molecule); table ``fingerprints``, against time."""
        assert self._series is not None
        series = self._series
        # fp_EQQ first, and the total last.
        names = sorted(series.names, key=lambda name: (name != FP_EQQ, name == "all"))
        columns = [f"{name.replace(' ', '_')}_meV" for name in series.names]
        return Result(
            self.name,
            f"Energy by families of fingerprints, model {self._calc.model.name}",
            tuple(series.quantity(name, name, "meV/molecule") for name in names),
            (series.table(self.name, series.names, columns),),
            ("S224 has fp_EQQ's dependence on angles, with other radial functions.", *self._notes),
            draw=_draw,
        )


@styled
def _draw(result: Result) -> Figure:
    """Means with errors, and fp_EQQ against time."""
    figure = Figure(figsize=(7.5, 6.5), layout="constrained")
    bars, series = figure.subplots(2, 1, height_ratios=(3, 2))
    shown = [q for q in result.quantities if q.name != "all"]
    at = np.arange(len(shown))
    bars.barh(
        at,
        [q.value for q in shown],
        xerr=np.nan_to_num([q.error for q in shown]),
        color=[CURVES[1] if q.name == FP_EQQ else CURVES[0] for q in shown],
    )
    bars.set_xscale("symlog", linthresh=100.0)
    bars.set_yticks(at, [q.name for q in shown])
    bars.invert_yaxis()
    bars.set_xlabel("energy (meV/molecule)")
    bars.set_title(result.title)
    (table,) = result.tables
    column = f"{FP_EQQ}_meV"
    if column in table.arrays():
        x = table.columns[0]
        series.plot(x.values, table[column], color=CURVES[1], marker="o", ms=3)
        series.set(xlabel=x.label, ylabel=f"{FP_EQQ} (meV/molecule)")
    else:
        series.axis("off")
    return figure
