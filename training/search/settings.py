"""Training configurations that differ from a base in a few keys."""

from __future__ import annotations

import os
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase_hmlp.errors import ConfigError
from ase_hmlp.training.config import TrainingConfig, read_config
from ase_hmlp.training.search.config import GroupSection, SearchConfig
from ase_hmlp.training.sections import validate

#: Keys with their tables, and their values where they differ from the base.
Changes = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Base:
    """The training configuration that all others are made from.

    Attributes
    ----------
    settings : dict
        What its file sets.
    config : TrainingConfig
    folder : Path
        That of the file.
    """

    settings: dict[str, Any]
    config: TrainingConfig
    folder: Path

    @classmethod
    def read(cls, path: Path) -> Base:
        """Read a training configuration.

        Raises
        ------
        ConfigError
        """
        config = read_config(path)
        settings = config.model_dump(mode="json", exclude_unset=True, exclude_none=True)
        return cls(settings, config, path.parent)

    @property
    def files(self) -> list[Path]:
        """The data files."""
        names = (file for source in self.config.data.sources for file in source.files)
        return [self.folder / file for file in dict.fromkeys(names)]

    def changed(self, changes: Changes, where: str = "A candidate") -> TrainingConfig:
        """The configuration with other values.

        Parameters
        ----------
        changes : dict
        where : str
            What to call them in a message.

        Raises
        ------
        ConfigError
            If a value is none its key may have.
        """
        return validate(self._settings(changes), TrainingConfig, where)

    def normal(self, changes: Changes, where: str = "A candidate") -> Changes:
        """Changes as the configuration reads them, sorted, without those that change nothing.

        Raises
        ------
        ConfigError
            As `changed`.
        """
        config = self.changed(changes, where)
        values = {key: value_of(config, key) for key in sorted(changes)}
        return {key: v for key, v in values.items() if v != value_of(self.config, key)}

    def toml(self, changes: Changes, folder: Path) -> dict[str, Any]:
        """What a training configuration in another folder says to be the changed one."""
        settings = self._settings(changes)
        data = settings["data"]
        for table in (data, *data.get("source", [])):
            if "files" in table:
                table["files"] = [
                    os.path.relpath((self.folder / file).resolve(), folder.resolve())
                    for file in table["files"]
                ]
        return settings

    def _settings(self, changes: Changes) -> dict[str, Any]:
        settings = deepcopy(self.settings)
        for key, value in changes.items():
            *tables, name = key.split(".")
            place = settings
            for table in tables:
                place = place.setdefault(table, {})
            place[name] = value
        return settings


def value_of(config: TrainingConfig, key: str) -> Any:
    """The value of a key with its tables, as in a file; None in a table that is not there."""
    *tables, name = key.split(".")
    place: Any = config
    for table in tables:
        place = getattr(place, table, None)
    return None if place is None else place.model_dump(mode="json", include={name})[name]


def alternatives(group: GroupSection, base: Base, best: Changes, where: str) -> Iterator[Changes]:
    """What a group tries, the others staying at their best.

    Parameters
    ----------
    group : GroupSection
    base : Base
    best : dict
        What the best candidate so far changes.
    where : str
        What to call the group in a message.

    Raises
    ------
    ConfigError
        If a factor is given for what is no number.
    """
    now = base.changed(best)
    for key, values in group.values.items():
        yield from ({**best, key: value} for value in values)
    for key, factors in group.factors.items():
        value = value_of(now, key)
        for factor in factors:
            try:
                yield {**best, key: _scaled(value, factor)}
            except TypeError:
                raise ConfigError(
                    f"{where}: {key} is {value!r}, neither a number nor a list of numbers to be "
                    "multiplied by a factor."
                ) from None
    yield from ({**best, **keys} for keys in group.together)


def check(search: SearchConfig, base: Base, where: str) -> None:
    """Try every alternative on the base, so that a bad one is not found after hours.

    Raises
    ------
    ConfigError
        Naming the group and the key.
    """
    for name, group in search.group.items():
        here = f"{where}, group {name}"
        for changes in alternatives(group, base, {}, here):
            base.changed(changes, here)


def _scaled(value, factor: float, inside: bool = False):
    """A value times a factor, to four digits: a factor and its inverse lead back to it."""
    if isinstance(value, list) and value and not inside:
        return [_scaled(v, factor, inside=True) for v in value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(value)
    scaled = float(f"{value * factor:.4g}")
    return max(round(scaled), 1) if isinstance(value, int) else scaled
