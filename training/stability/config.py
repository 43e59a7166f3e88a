"""The configuration of a test of stability: a TOML file, every key checked."""

from __future__ import annotations

from typing import Any

from pydantic import Field, NonNegativeInt, PositiveFloat

from ase_hmlp.errors import ConfigError
from ase_hmlp.simulate.sweep import Point, SweepConfig, grid_points
from ase_hmlp.training.sections import Section

#: The phase whose cell keeps its angles unless a stage says otherwise: a liquid has no shear
#: modulus that would hold them.
LIQUID = "liquid"


class FramesSection(Section):
    """Which structures are written down for labelling.

    Attributes
    ----------
    most : of a run
    apart : ps, that two of a run are at least
    family : the family they belong to
    """

    most: NonNegativeInt = 3
    apart: PositiveFloat = 1.0
    family: str = Field("stability", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")


class StabilityConfig(SweepConfig):
    """A whole test: a sweep, as `hmlp sweep` takes it, and what is kept of what trips.

    Attributes
    ----------
    grid, run, workers, output : of the sweep; the cell of liquids changes its volume only, unless
        the stage names `cell`
    frames : FramesSection
    """

    frames: FramesSection = FramesSection()

    def changed(self, model: str | None = None, time: float | None = None) -> StabilityConfig:
        """The same with another model (a name or an absolute path) or length of the runs (ps).

        Raises
        ------
        ConfigError
            If there is not one stage that the time could be of.
        """
        run: dict[str, Any] = dict(self.run)
        if model is not None:
            run["model"] = model
        if time is not None:
            stages = run.get("stage", [])
            if len(stages) != 1:
                raise ConfigError("Another time needs a configuration with one stage.")
            kept = {k: v for k, v in stages[0].items() if k != "steps"}
            run["stage"] = [kept | {"time": time}]
        return self.model_copy(update={"run": run})


def stability_points(config: StabilityConfig, where: str = "") -> list[Point]:
    """The runs of a test.

    Parameters
    ----------
    config : StabilityConfig
    where : str
        Name of the configuration, for errors.

    Raises
    ------
    ConfigError
        If a run is impossible, or could not be watched across a kill.
    """
    points = []
    for phase in config.grid.phase:
        run = dict(config.run)
        if phase == LIQUID:
            run["stage"] = [_isotropic(stage) for stage in run.get("stage", [])]
        grid = config.grid.model_copy(update={"phase": [phase]})
        points += grid_points(SweepConfig(grid=grid, run=run), where)
    names = [point.name for point in points]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{where}The grid has {name} more than once.")
    write = points[0].config.write
    if write.checkpoint_interval % write.sample_interval:
        raise ConfigError(
            f"{where}run.write.checkpoint_interval must be a multiple of sample_interval."
        )
    return points


def _isotropic(stage: dict[str, Any]) -> dict[str, Any]:
    return {"cell": "iso", **stage} if stage.get("ensemble") == "npt" else stage
