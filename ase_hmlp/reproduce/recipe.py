"""How large and how long the runs of a reproduction are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from ase_hmlp.errors import ConfigError
from ase_hmlp.reproduce.seed import PRESSURES
from ase_hmlp.sections import Section, read_toml, validate

#: Crystals that Phase II may be; see `ase_hmlp.simulate.structures`.
CANDIDATES = ("P21c-24-a", "P21c-24-b", "P21c-8", "P63m-16", "P6122-36")

#: Phase I compressed and then cooled, in which the potential itself finds an order.
COOLED = "cooled"


class SpectrumSection(Section):
    """Runs at constant energy for spectra, each from the end of a run at constant pressure.

    Attributes
    ----------
    settling : ps at constant volume and temperature before
    production : ps
    timestep : fs; peaks are corrected for its error
    frame : fs between frames
    resolution : 1/cm
    """

    settling: PositiveFloat = 1.0
    production: PositiveFloat = 10.0
    timestep: PositiveFloat = 0.25
    frame: PositiveFloat = 2.5
    resolution: PositiveFloat = 20.0


class Recipe(Section):
    """A recipe.

    Attributes
    ----------
    name : of the recipe
    atoms : fewest atoms of a run
    settling : ps under a Langevin thermostat and piston, which take up what the start releases
    equilibration : ps more that are left out
    production : ps that are averaged over
    timestep : fs, of all forces but the bonds'
    bond_steps : short steps for the bonds in each; see `ase_hmlp.simulate.bond_steps`
    frame : fs between frames
    barostat_time : fs
    spectrum : SpectrumSection
    fingerprint_frames : frames of a run that energies are split by fingerprints in
    phase_ii : what Phase II is in Table 1
    order_phases : crystals of Fig. 6
    pressures : GPa, of Table 1 and Fig. 5
    spectrum_pressures : GPa, of Fig. 2
    liquid_pressures : GPa, of Fig. 3b
    contact_pressures : GPa, of Fig. 4
    order_pressures, order_temperatures : GPa and K, of Fig. 6
    """

    name: str
    atoms: PositiveInt
    settling: PositiveFloat
    equilibration: PositiveFloat
    production: PositiveFloat
    timestep: PositiveFloat = 1.25
    bond_steps: PositiveInt = 5
    frame: PositiveFloat = 50.0
    barostat_time: PositiveFloat = 1000.0
    spectrum: SpectrumSection = SpectrumSection()
    fingerprint_frames: PositiveInt = 40
    phase_ii: tuple[str, ...] = Field(default=(*CANDIDATES[:4], COOLED), min_length=1)
    pressures: tuple[float, ...] = PRESSURES
    spectrum_pressures: tuple[float, ...] = PRESSURES
    liquid_pressures: tuple[float, ...] = (20.0, 60.0, 100.0, 140.0)
    contact_pressures: tuple[float, ...] = (20.0, 120.0)
    order_phases: tuple[str, ...] = CANDIDATES[:1]
    order_pressures: tuple[float, ...] = (40.0, 80.0, 120.0)
    order_temperatures: tuple[PositiveFloat, ...] = (30.0, 50.0, 70.0, 90.0, 110.0, 130.0, 150.0)

    @field_validator("phase_ii", "order_phases")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in (*CANDIDATES, COOLED):
                raise ValueError(f"there is no {name!r}, but {', '.join((*CANDIDATES, COOLED))}")
        return names


#: The seed's own effort is "full": 2,304 atoms (its cells for Fig. 6), 50 and 200 ps. Its spectra
#: have a time step of 0.05 fs; frames are written for every fifth part of a vibration.
RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="quick",
            atoms=128,
            settling=1.0,
            equilibration=0.5,
            production=2.5,
            frame=10.0,
            spectrum=SpectrumSection(
                settling=0.25, production=4.0, timestep=0.5, frame=2.5, resolution=40.0
            ),
            fingerprint_frames=10,
            phase_ii=("P21c-24-a",),
            spectrum_pressures=(20.0, 40.0, 60.0, 100.0, 140.0),
            order_temperatures=(30.0, 50.0, 70.0, 90.0, 120.0, 150.0),
        ),
        Recipe(name="standard", atoms=1152, settling=2.0, equilibration=8.0, production=40.0),
        Recipe(
            name="full",
            atoms=2304,
            settling=5.0,
            equilibration=45.0,
            production=200.0,
            timestep=0.5,
            bond_steps=1,
            frame=100.0,
            spectrum=SpectrumSection(settling=2.0, production=20.0, timestep=0.05),
            order_pressures=(20.0, 40.0, 60.0, 80.0, 100.0, 120.0, 140.0, 160.0),
        ),
    )
}


def find_recipe(name: str | Path) -> Recipe:
    """Look up a recipe by name, or read one from a TOML file.

    Parameters
    ----------
    name : str or path
        One of `RECIPES`, or a file with the keys of `Recipe`.

    Raises
    ------
    ConfigError
    """
    if str(name) in RECIPES:
        return RECIPES[str(name)]
    if not Path(name).is_file():
        raise ConfigError(
            f"There is no recipe {str(name)!r}: it is no file, and {', '.join(RECIPES)} are known."
        )
    return read_toml(name, Recipe)


def with_phase_ii(recipe: Recipe, names: Sequence[str]) -> Recipe:
    """The recipe with other crystals as Phase II, if there are any names."""
    if not names:
        return recipe
    # What was cooled has no reference that an order parameter could be taken against.
    crystals = [name for name in names if name != COOLED]
    fields = recipe.model_dump() | {"phase_ii": list(names), "order_phases": crystals}
    return validate(fields, Recipe, "--phase-ii")


def all_phase_ii(recipe: Recipe) -> Recipe:
    """The recipe with everything as Phase II that it may be."""
    return with_phase_ii(recipe, (*CANDIDATES, COOLED))
