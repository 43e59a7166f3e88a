"""A model and calculators around the toy potential, with a domain of round numbers."""

import dataclasses

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
