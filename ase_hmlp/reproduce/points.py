"""The runs of a reproduction: a phase at a pressure and temperature is one folder.

Phases are those of `hmlp run`, and ``cooled``: Phase I that is compressed from 20 GPa at 150 K and
then cooled, as the seed found its Phase II. A run at constant energy for spectra is a point too;
its phase has ``-nve`` behind it.
"""

from __future__ import annotations

import zlib
from typing import Any

from ase_hmlp.reproduce.recipe import COOLED, Recipe
from ase_hmlp.reproduce.seed import PHASE_I, PRESSURES
from ase_hmlp.simulate.run_config import RunConfig
from ase_hmlp.simulate.sweep import Point, point_name

#: Behind the name of the phase of a run at constant energy.
NVE = "-nve"

#: Folder of the structures that runs at constant energy start from.
STARTS = "starts"

#: Cooling takes this many times the equilibration, compression once.
COOLING = 2.0


def equilibrium(
    phase: str, pressure: float, temperature: float, recipe: Recipe, model: str
) -> Point:
    """A run at constant pressure and temperature.

    Parameters
    ----------
    phase : str
        "hcp" (Phase I), "liquid", "cooled", or a crystal.
    pressure : float, GPa
    temperature : float, K
    recipe : Recipe
    model : str
        Shipped name, or the absolute path of a file.
    """
    # Shear would let a liquid's cell lose its shape.
    cell = "iso" if phase == "liquid" else "full"
    held: dict[str, Any] = {"ensemble": "npt", "cell": cell}
    here = {"temperature": temperature, "pressure": pressure}
    settling = {"time": recipe.settling, "thermostat": "langevin"}
    before: list[dict[str, Any]] = [held | here | settling]
    if phase == COOLED:
        low = min(PRESSURES[0], pressure)
        compression = {"temperature": PHASE_I, "pressure": [low, pressure]}
        cooling = {"temperature": [PHASE_I, temperature], "pressure": pressure}
        before = [
            held | {"temperature": PHASE_I, "pressure": low} | settling,
            held | compression | {"time": recipe.equilibration},
            held | cooling | {"time": COOLING * recipe.equilibration},
        ]
    stages = [
        *before,
        held | here | {"time": recipe.equilibration},
        held | here | {"time": recipe.production},
    ]
    return Point(
        phase,
        pressure,
        temperature,
        RunConfig.model_validate(
            {
                "model": model,
                "threads": 1,
                "seed": _seed(point_name(phase, pressure, temperature)),
                "structure": {
                    "phase": "hcp" if phase == COOLED else phase,
                    "atoms": recipe.atoms,
                },
                "dynamics": {
                    "timestep": recipe.timestep,
                    "bond_steps": recipe.bond_steps,
                    "barostat_time": recipe.barostat_time,
                },
                "stage": stages,
                "write": {"frame_interval": _interval(recipe.frame, recipe.timestep)},
            }
        ),
    )


def spectrum(parent: Point, recipe: Recipe) -> Point:
    """A run at constant energy from the end of another, at its mean density.

    Parameters
    ----------
    parent : Point
        From `equilibrium`.
    recipe : Recipe
    """
    settings, phase = recipe.spectrum, parent.phase + NVE
    return Point(
        phase,
        parent.pressure,
        parent.temperature,
        RunConfig.model_validate(
            {
                "model": parent.config.model,
                "threads": 1,
                "seed": _seed(point_name(phase, parent.pressure, parent.temperature)),
                "structure": {"file": f"{STARTS}/{parent.name}.extxyz"},
                "dynamics": {"timestep": settings.timestep},
                "stage": [
                    {
                        "ensemble": "nvt",
                        "temperature": parent.temperature,
                        "time": settings.settling,
                    },
                    {"ensemble": "nve", "time": settings.production},
                ],
                "write": {
                    "frame_interval": _interval(settings.frame, settings.timestep),
                    "properties": [],
                },
            }
        ),
    )


def first_frame(config: RunConfig) -> int:
    """First frame of a run's last stage, where its averages begin."""
    before = sum(stage.steps for stage in config.stages[:-1])
    return -(-before // config.write.frame_interval)


def _interval(time: float, timestep: float) -> int:
    return max(1, round(time / timestep))


def _seed(name: str) -> int:
    """Another for every point, the same every time."""
    return zlib.crc32(name.encode())
