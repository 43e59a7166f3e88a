"""The kernel compiled for AVX2 and for any processor: the same numbers."""

import numpy as np
import pytest
from lammps_runs import evaluate
from toy_models import hcp, toy_potential

from ase_hmlp import HMLP
from ase_hmlp.errors import PluginError
from ase_hmlp.lammps import plugin
from ase_hmlp.lammps.export import write_model
from ase_hmlp.model_io import Domain, Model

try:
    plugin.build()
    MISSING = ""
except PluginError as error:
    MISSING = str(error)


@pytest.mark.skipif(bool(MISSING), reason=f"pair style hmlp: {MISSING}")
def test_variants_agree(tmp_path, monkeypatch):
    """LAMMPS with a plugin that has the plain variant only, against the calculator's best one."""
    compiler = " ".join(plugin._compiler())
    monkeypatch.setenv("CXX", f"{compiler} -DHMLP_NO_AVX2")
    monkeypatch.setenv("HMLP_PLUGIN_CACHE", str(tmp_path / "cache"))
    atoms = hcp(2.4, (3, 2, 2), seed=2, bond_spread=0.03)
    atoms.rattle(0.04, seed=2)
    model = Model(toy_potential(), Domain((1, 20), (0, 300), (0.5, 1.1), (0.4, 1.2), 0.6, 0.5))
    path = write_model(model, tmp_path / "toy.hmlp")
    plain = evaluate(tmp_path, {"hot": atoms}, path)["hot"]
    assert list((tmp_path / "cache").rglob(plugin.PLUGIN)), "the plugin was not built afresh"
    atoms.calc = HMLP(model, threads=1)
    # Additions in another order and fused products: round-off of sums of a hundred terms of eV.
    np.testing.assert_allclose(plain.energies, atoms.get_potential_energies(), rtol=0, atol=1e-11)
    np.testing.assert_allclose(plain.forces, atoms.get_forces(), rtol=0, atol=1e-10)
