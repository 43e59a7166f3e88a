"""Builds the Cython core; everything else is in pyproject.toml."""

import os
import platform
import sys

from Cython.Build import cythonize
from setuptools import Extension, setup

MODULES = ("neighbor_search", "levels", "evaluate", "rows")

# HMLP_BOUNDS_CHECK=1 builds a slow core that checks every index, for hunting errors.
CHECKED = os.environ.get("HMLP_BOUNDS_CHECK", "0") == "1"

# Apple's compiler has no OpenMP run time: the core then runs on one thread.
OPENMP = [] if sys.platform == "darwin" else ["-fopenmp"]
COMPILE = ["-O3", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", *OPENMP]
if platform.system() == "Windows":
    COMPILE, OPENMP = ["/O2", "/std:c++17", "/openmp"], []

extensions = [
    Extension(
        f"ase_hmlp._core.{name}",
        [f"ase_hmlp/_core/{name}.pyx"],
        language="c++",
        include_dirs=["ase_hmlp/_core"],
        depends=[
            "ase_hmlp/_core/hmlp_kernel.h",
            "ase_hmlp/_core/hmlp_passes.h",
            "ase_hmlp/_core/hmlp_overlap.h",
        ],
        extra_compile_args=COMPILE,
        extra_link_args=OPENMP,
    )
    for name in MODULES
]

setup(
    ext_modules=cythonize(
        extensions,
        language_level=3,
        compiler_directives={
            "boundscheck": CHECKED,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": CHECKED,
            "embedsignature": True,
        },
    )
)
