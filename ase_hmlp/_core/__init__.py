"""Compiled core: the kernel header, its one declaration file and the Cython loops around it."""

from importlib.util import find_spec

if find_spec("ase_hmlp._core.evaluate") is None:
    raise ImportError(
        f"The compiled core is missing from {__path__[0]}. This is the source folder: run Python "
        "in another folder to use the installed package, or install with `pip install -e .`."
    )
