"""The configuration of a test of stability: a TOML file, every key checked."""

from __future__ import annotations

from typing import Any

from pydantic import Field, NonNegativeInt, PositiveFloat, field_validator

from ase_hmlp.errors import ConfigError
from ase_hmlp.simulate.sweep import Point, SweepConfig, grid_points
from ase_hmlp.training.frames import ALL
from ase_hmlp.training.sections import Section

#: The phase that flows at any temperature.
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
    family: str = Field(default="stability", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")

    @field_validator("family")
    @classmethod
    def _not_all(cls, name: str) -> str:
        if name == ALL:
            raise ValueError(f"{ALL!r} is what tables call all families together")
        return name


class StabilityConfig(SweepConfig):
    """A whole test: a sweep, as `hmlp sweep` takes it, and what is kept of what trips.

    Attributes
    ----------
    grid, run, workers, output : of the sweep
    isotropic_above : K; above, and of liquids at any temperature, cells keep their shape unless a
        stage says which `cell` it wants. A crystal may melt there, and a melt, which has no shear
        modulus, would flow until its cell is flat
    frames : FramesSection
    """

    isotropic_above: PositiveFloat = 500.0
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
    rigid = dict(config.run)
    rigid["stage"] = [_isotropic(stage) for stage in config.run.get("stage", [])]
    points = [
        isotropic if _flows(config, isotropic) else free
        for free, isotropic in zip(
            grid_points(config, where),
            grid_points(config.model_copy(update={"run": rigid}), where),
            strict=True,
        )
    ]
    if points[0].config.engine == "lammps":
        raise ConfigError(
            f"{where}run.engine: every step is looked at, which LAMMPS leaves no room for; use ase."
        )
    write = points[0].config.write
    if write.checkpoint_interval % write.sample_interval:
        raise ConfigError(
            f"{where}run.write.checkpoint_interval must be a multiple of sample_interval."
        )
    return points


def _flows(config: StabilityConfig, point: Point) -> bool:
    return point.phase == LIQUID or point.temperature > config.isotropic_above


def _isotropic(stage: dict[str, Any]) -> dict[str, Any]:
    return {"cell": "iso", **stage} if stage.get("ensemble") == "npt" else stage
