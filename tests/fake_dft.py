"""Calculators that a labelling run meets: slow, failing, unconverged, deadly."""

import os
import signal
import time
from pathlib import Path

import numpy as np
from ase.calculators.calculator import Calculator, all_changes


class FakeDFT(Calculator):
    """Springs to the centre of mass, with whatever `info`-free trouble the keywords ask for.

    Trouble comes to structures with an x of the first atom above `trouble_above` (Å).
    """

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, log=None, seconds=0.0, trouble="", trouble_above=0.0, version="7"):
        super().__init__()
        self.log, self.seconds = log, seconds
        self.trouble, self.trouble_above = trouble, trouble_above
        self.version = version
        self.converged = True

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if self.log:
            with open(self.log, "a") as stream:
                stream.write(f"{os.getpid()} {self.directory}\n")
        time.sleep(self.seconds)
        x = atoms.positions - atoms.positions.mean(axis=0)
        stress = np.full(6, -0.01)
        self.results = {"energy": 0.5 * (x**2).sum(), "forces": -x, "stress": stress}
        if atoms.positions[0, 0] <= self.trouble_above:
            return
        if self.trouble == "raise":
            (Path(self.directory) / "fake.out").write_text("a diary")
            raise RuntimeError("three\nunforeseen  things")
        if self.trouble == "unconverged":
            self.converged = False
        if self.trouble == "nan":
            self.results["forces"][0, 0] = np.nan
        if self.trouble == "push":
            self.results["forces"][:, 1] += 0.02
        if self.trouble == "no stress":
            del self.results["stress"]
        if self.trouble == "shape":
            self.results["forces"] = -x[:3]
        if self.trouble == "die":
            os.kill(os.getpid(), signal.SIGKILL)


class SmearedDFT(FakeDFT):
    """Its ``energy`` is extrapolated to no smearing; forces belong to the free energy."""

    implemented_properties = ("energy", "free_energy", "forces", "stress")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results["free_energy"] = self.results["energy"]
        self.results["energy"] += 0.25


class AskedDFT(SmearedDFT):
    """Keeps its results to itself, until asked; counts its calculations."""

    calculations = 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        type(self).calculations += 1
        self.hidden = self.results.pop("free_energy")

    def get_property(self, name, atoms=None, allow_calculation=True):
        if name == "free_energy":
            return self.hidden
        return super().get_property(name, atoms, allow_calculation)


def without_stress():
    """A calculator that does not know stress at all."""
    calculator = FakeDFT()
    calculator.implemented_properties = ("energy", "forces")
    return calculator
