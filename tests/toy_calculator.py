"""A model and calculators around the toy potential, with a domain of round numbers."""

import dataclasses
import time

from ase.calculators.calculator import all_changes
from toy_models import toy_potential

from ase_hmlp import HMLP
from ase_hmlp.model_io import Domain, Model

DOMAIN = Domain(
    volume=(1.5, 6.0),
    pressure=(0.0, 200.0),
    bond_length=(0.60, 0.95),
    bond_limits=(0.50, 1.10),
    contact=0.90,
    contact_limit=0.60,
)


def toy_model(potential=None, **domain):
    """The toy potential with `DOMAIN`, or with fields of it replaced."""
    return Model(
        toy_potential() if potential is None else potential,
        dataclasses.replace(DOMAIN, **domain),
        name="toy",
        training={"frames": 12, "files": [{"path": "a.xyz", "sha256": "00"}]},
        errors={"energy": {"hcp": 0.5}},
    )


def toy_calculator(bonds=None, threads=1, **domain):
    """A calculator on `toy_model`."""
    return HMLP(toy_model(**domain), bonds=bonds, threads=threads)


class SlowToy(HMLP):
    """The toy potential as a labeller: accepts any structure, takes its time, keeps a log."""

    def __init__(self, log=None, seconds=0.0, fails_above=None):
        super().__init__(
            toy_model(
                toy_potential(stretch_width=0.0),
                volume=(0.5, 60.0),
                bond_length=(0.40, 1.20),
                bond_limits=(0.30, 1.30),
                contact=0.2,
                contact_limit=0.1,
            ),
            threads=1,
        )
        self.log, self.seconds, self.fails_above = log, seconds, fails_above

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if self.log:
            with open(self.log, "a") as stream:
                stream.write(f"{atoms.positions.sum():.6f}\n")
        time.sleep(self.seconds)
        if self.fails_above is not None and atoms.get_volume() / len(atoms) > self.fails_above:
            raise RuntimeError("too large")
