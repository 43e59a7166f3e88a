"""A whole active-learning loop in miniature: data, configuration, and what it leaves."""

from functools import cache
from pathlib import Path

import numpy as np
import tomli_w
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from toy_calculator import SlowToy
from toy_models import hcp

from ase_hmlp.sections import tomllib

TESTS = Path(__file__).parent

CONFIG = """
seed = 2
[explore]
phases = []
files = ["start.extxyz"]
random = 1
atoms = 8
relaxation_steps = 8
pressures = [20, 60]
temperatures = [100, 600]
ramp = 0.01
hold = 0.01
snapshots = 4
[explore.run]
backend = "sequential"
[select]
frames = 6
[label.calculator]
kind = "ase"
module = "toy_calculator"
class = "SlowToy"
arguments = {}
[label.run]
workers = 1
backend = "sequential"
[train.settings]
name = "toy"
data.files = ["toy.extxyz"]
bond.form = "quartic"
split.scheme = "families"
split.test = ["test"]
fit.learning_curve = 1
[train.settings.pair]
gaussians = [0.9, 1.4, 2.2, 3.0]
damped_sines = [[1.5, 1.2]]
cutoff = 4.5
inner = 0.9
outer = 1.2
[train.settings.orientation]
gaussians = [1.6, 2.5]
cutoff = 4.0
inner = 1.1
outer = 1.5
[train.settings.environment]
gaussians = [1.4, 2.0, 2.6, 3.2]
aligned = 2.4
shells = [1.3, 1.6, 1.9, 2.2, 2.5, 2.8, 3.1, 3.4]
shell_width = 0.45
cutoff = 4.2
inner = 1.1
outer = 1.5
representatives = 12
[stop]
rounds = 2
frames = 2
"""


@cache
def cold_frames(n, seed=0):
    """Slightly displaced hcp crystals in a narrow range of volumes, labelled; every fifth of them
    in family "test"."""
    return list(_cold_frames(n, seed))


def _cold_frames(n, seed):
    rng = np.random.default_rng(seed)
    for k in range(n):
        atoms = hcp(rng.uniform(2.6, 3.4), (2, 1, 1), seed=100 * seed + k, bond_spread=0.01)
        atoms.rattle(0.02, rng=rng)
        atoms.calc = SlowToy()
        results = {
            "energy": atoms.get_potential_energy(),
            "forces": atoms.get_forces(),
            "stress": atoms.get_stress(),
        }
        atoms.calc = SinglePointCalculator(atoms, **results)
        atoms.info["group"] = "test" if k % 5 == 0 else "cold"
        yield atoms


def write_loop(folder, changes=None, n=20):
    """Data and configuration in a folder; `changes` as nested dicts."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "toy.extxyz", cold_frames(n))
    write(folder / "start.extxyz", hcp(3.0, (2, 1, 1), seed=5))
    settings = tomllib.loads(CONFIG)
    merge(settings, changes or {})
    (folder / "learn.toml").write_text(tomli_w.dumps(settings))
    return folder / "learn.toml"


class Instead(dict):
    """A table that takes the place of another."""


def merge(settings, changes):
    """Put changes into nested dicts; None takes a key out."""
    for key, value in changes.items():
        old = settings.get(key)
        if value is None:
            settings.pop(key)
        elif isinstance(old, dict) and isinstance(value, dict) and not isinstance(value, Instead):
            merge(old, value)
        else:
            settings[key] = value
