"""What is measured in the runs of a reproduction, each once, and kept beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read

from ase_hmlp.analysis.bond_lengths import BondLengths
from ase_hmlp.analysis.diffusion import Diffusion
from ase_hmlp.analysis.e2g import E2gPhonon
from ase_hmlp.analysis.fingerprint_energies import FingerprintEnergies
from ase_hmlp.analysis.order_parameter import OrderParameter
from ase_hmlp.analysis.pair_distributions import PairDistributions
from ase_hmlp.analysis.quadrupoles import QuadrupoleEnergy
from ase_hmlp.analysis.result import Quantity, Result
from ase_hmlp.analysis.source import file_sha256
from ase_hmlp.analysis.streaming import Analysis, analyse
from ase_hmlp.analysis.trajectory import Trajectory
from ase_hmlp.analysis.vibron import Vibron
from ase_hmlp.errors import HMLPError
from ase_hmlp.reproduce import quench
from ase_hmlp.reproduce.points import first_frame
from ase_hmlp.reproduce.recipe import Recipe
from ase_hmlp.simulate import run_folder
from ase_hmlp.simulate.run_config import RunConfig

#: Between these lie the vibrons (1/cm) of compressed and of free molecules.
VIBRONS = (3000.0, 5000.0)

#: Reach of pair distributions, Å: three shells at all pressures of the seed, the same in any cell.
#: Half of the cells of "quick" is 3 to 4 Å: beyond that, images of molecules count.
REACH = 6.0

#: Measurements that need the model.
FINGERPRINTS, QUENCH = "fingerprints", quench.NAME

#: What is measured, by its name in files.
MEASUREMENTS: dict[str, Callable[[Recipe, str], Analysis]] = {
    "eqq": lambda recipe, model: QuadrupoleEnergy(),
    "bonds": lambda recipe, model: BondLengths(),
    "rdf": lambda recipe, model: PairDistributions(REACH),
    "diffusion": lambda recipe, model: Diffusion(),
    FINGERPRINTS: lambda recipe, model: FingerprintEnergies(model, threads=1),
    "vibron": lambda recipe, model: Vibron(
        recipe.spectrum.resolution, *VIBRONS, integrator_step=recipe.spectrum.timestep
    ),
    "e2g": lambda recipe, model: E2gPhonon(recipe.spectrum.resolution),
}

#: Measured apart from the others: it needs the crystal that the run starts from.
ORDER = "order"


@dataclass(frozen=True, eq=False)
class Measured:
    """A measurement that was kept.

    Attributes
    ----------
    title : str
    quantities : dict of Quantity, by name
    tables : dict of dict of arrays
        By the names of tables and of their columns.
    """

    title: str
    quantities: dict[str, Quantity]
    tables: dict[str, dict[str, np.ndarray]]

    def __getitem__(self, name: str) -> Quantity:
        return self.quantities[name]


def read_measured(path: Path) -> Measured:
    """Read the JSON file of a measurement."""
    record = json.loads(path.read_text(encoding="utf-8"))
    quantities = {
        q["name"]: Quantity(q["name"], _number(q["value"]), _number(q["error"]), q["unit"])
        for q in record["quantities"]
    }
    tables = {
        name: {column: np.array([_number(x) for x in values]) for column, values in table.items()}
        for name, table in record["tables"].items()
    }
    return Measured(record["title"], quantities, tables)


def _number(value):
    return float("nan") if value is None else value


def measure(
    run: Path, config: RunConfig, names: Sequence[str], folder: Path, recipe: Recipe, model: str
) -> dict[str, str]:
    """Measure what is not there yet.

    Trajectories are large, and may be deleted or left behind once they are measured: what was
    measured stays.

    Parameters
    ----------
    run : Path
        Folder of a finished run.
    config : RunConfig
        Of the run.
    names : sequence of str
        Of `MEASUREMENTS`, `ORDER` or `QUENCH`.
    folder : Path
        To write to.
    recipe : Recipe
    model : str
        For the split of energies.

    Returns
    -------
    dict
        Why, for every measurement that has no answer.
    """
    trajectory = run / run_folder.TRAJECTORY
    if not trajectory.exists():
        gone = [name for name in names if not (folder / f"{name}.json").exists()]
        return dict.fromkeys(gone, f"the trajectory is not in {run} any more.")
    digest = file_sha256(trajectory)
    left = [name for name in names if not _is_of(folder / f"{name}.json", digest)]
    start = first_frame(config)
    refused: dict[str, str] = {}
    for name in left:
        stride = 1
        if name == FINGERPRINTS:
            frames = config.stages[-1].steps // config.write.frame_interval
            stride = max(1, frames // recipe.fingerprint_frames)
        try:
            if name == ORDER:
                result = _order(run, start)
            elif name == QUENCH:
                result = _quench(trajectory, config, model)
            else:
                analysis = MEASUREMENTS[name](recipe, model)
                # Integrators never put an atom back into the cell.
                used = Trajectory(trajectory, start=start, step=stride, continuous=True)
                (result,) = analyse(used, [analysis])
        except HMLPError as error:
            refused[name] = " ".join(str(error).split())
            continue
        _portable(result, run).save(folder, overwrite=True)
    return refused


def _portable(result: Result, run: Path) -> Result:
    """A result whose record calls the trajectory by its place in the folder of the reproduction."""
    source = str(run / run_folder.TRAJECTORY)
    place = "/".join((run.parent.name, run.name, run_folder.TRAJECTORY))
    trajectory = dict(result.inputs.get("trajectory", {}))
    if trajectory.get("source") == source:
        trajectory["source"] = place
    return result.with_inputs({**result.inputs, "trajectory": trajectory})


def _is_of(path: Path, digest: str) -> bool:
    """Whether a measurement is there, and of this trajectory."""
    try:
        return json.loads(path.read_text())["inputs"]["trajectory"]["sha256"] == digest
    except (OSError, ValueError, KeyError):
        return False


def unit_cell(initial: Atoms) -> Atoms:
    """The cell a crystal was repeated from, as the first of the repeats."""
    repeat = np.array(initial.info["repeat"])
    unit = initial[: len(initial) // int(repeat.prod())]
    unit.set_cell(initial.cell.array / repeat[:, None])
    return unit


def _order(run: Path, start: int) -> Result:
    """O against the crystal as it was relaxed, over what is behind the equilibration."""
    initial = read(run / run_folder.INITIAL)
    assert isinstance(initial, Atoms)
    unit = unit_cell(initial)
    frames = Trajectory(run / run_folder.TRAJECTORY, start=start, continuous=True)
    (result,) = analyse(frames, [OrderParameter(unit, initial.info["repeat"])])
    return result


def _quench(trajectory: Path, config: RunConfig, model: str) -> Result:
    """The last frame at rest."""
    last = read(trajectory, index=-1)
    assert isinstance(last, Atoms)
    result = quench.quench(last, config.stages[-1].end.pressure, model)
    record = {"source": str(trajectory), "sha256": file_sha256(trajectory), "frame": -1}
    return result.with_inputs({"trajectory": record})
