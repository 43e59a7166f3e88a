"""The configuration of a search: a TOML file, every key checked."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from ase_hmlp.simulate.structures import NAMES
from ase_hmlp.training.config import (
    BondSection,
    EnvironmentSection,
    OrientationSection,
    PairSection,
    WeightSection,
)
from ase_hmlp.training.sections import Section, section_of

#: Tables of a training configuration that may be varied: all that leave the frames as they are.
TABLES: dict[str, type[Section]] = {
    "weights": WeightSection,
    "bond": BondSection,
    "pair": PairSection,
    "orientation": OrientationSection,
    "environment": EnvironmentSection,
}

#: The one key of the other tables that changes the potential and not what is written about it.
JOINT = "fit.joint"


def _is_key(key: str) -> bool:
    """Whether a key, with its tables, is one of `TABLES`."""
    first, *rest = key.split(".")
    table = TABLES.get(first)
    for part in rest[:-1]:
        table = None if table is None else section_of(table, part)
    return bool(rest) and table is not None and rest[-1] in table.model_fields


class ScoreSection(Section):
    """By what candidates are judged.

    The error of a candidate is the mean of its errors on unseen families divided by those of the
    base; its score is the error and a price for time.

    Attributes
    ----------
    energy, force, pressure : weights of the three mean absolute errors in the mean
    families : "alike" counts a family once, "frames" as many times as it has frames
    price : what is added for each doubling of the time of an evaluation
    gain : a change is kept if the score falls by more than this
    resolution : share by which times must differ to count as different on the Pareto front
    """

    energy: float = Field(default=1.0, ge=0)
    force: float = Field(default=1.0, ge=0)
    pressure: float = Field(default=0.0, ge=0)
    families: Literal["alike", "frames"] = "alike"
    price: float = Field(default=0.1, ge=0)
    gain: float = Field(default=0.002, ge=0)
    resolution: float = Field(default=0.02, ge=0)

    @model_validator(mode="after")
    def _something(self) -> ScoreSection:
        if not any(self.shares.values()):
            raise ValueError("one of energy, force and pressure must count")
        return self

    @property
    def shares(self) -> dict[str, float]:
        """Weights by field of `ErrorRow`."""
        return {
            "energy_mae": self.energy,
            "force_mae": self.force,
            "pressure_mae": self.pressure,
        }


class TimingSection(Section):
    """What is evaluated to see how long it takes.

    Attributes
    ----------
    phase : crystal structure, by name as in `ase_hmlp.simulate.build.phase`
    atoms : fewest in the supercell
    volume : Å³/atom
    calls : evaluations by each of the two potentials that are compared; the fastest counts
    """

    phase: str = "P21c-24-a"
    atoms: int = Field(default=192, ge=2)
    volume: PositiveFloat = 2.4
    calls: PositiveInt = 30

    @field_validator("phase")
    @classmethod
    def _known(cls, phase: str) -> str:
        if phase not in NAMES:
            raise ValueError(f"there is no phase {phase!r}, only {', '.join(NAMES)}")
        return phase


class GroupSection(Section):
    """Keys that are varied one at a time while all groups else stay; the best variation is kept.

    Keys are those of a training configuration with their tables: "environment.prior",
    "environment.overlap.ridge".

    Attributes
    ----------
    values : by key, what to try
    factors : by key, what to multiply the best value so far by: a number, or each of a list
    together : sets of keys that are changed at once
    """

    values: dict[str, list[Any]] = Field(default_factory=dict)
    factors: dict[str, list[PositiveFloat]] = Field(default_factory=dict)
    together: list[dict[str, Any]] = Field(default_factory=list)

    @model_validator(mode="after")
    def _known(self) -> GroupSection:
        if not (any(self.values.values()) or any(self.factors.values()) or any(self.together)):
            raise ValueError("there must be values, factors or sets of keys to try")
        for key in (*self.values, *self.factors, *(k for keys in self.together for k in keys)):
            if key != JOINT and not _is_key(key):
                raise ValueError(
                    f"{key!r} is no key of the tables {', '.join(TABLES)} of a training "
                    f"configuration, nor {JOINT}"
                )
        return self


class SearchConfig(Section):
    """A whole search.

    Attributes
    ----------
    base : the training configuration to begin with, relative to this one
    rounds : most times to go through all groups; a round that changes nothing is the last
    every : candidates are fitted to, and judged by, every so manieth frame of each family
    group : in the order they are gone through
    """

    base: str
    rounds: PositiveInt = 3
    every: PositiveInt = 1
    score: ScoreSection = ScoreSection()
    timing: TimingSection = TimingSection()
    group: dict[str, GroupSection] = Field(min_length=1)
