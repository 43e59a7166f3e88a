"""Files that are whole or not there, and folders that one process at a time writes to."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ase_hmlp.errors import OutputExistsError

try:
    import fcntl
except ImportError:  # Windows: no locks, so two runs on one file are the user's to avoid
    fcntl = None  # type: ignore[assignment]


def write_whole(path: str | Path, content: bytes | str) -> Path:
    """Write a file: all of it, through to the disk, or nothing.

    Parameters
    ----------
    path : str or path
        An existing file is replaced in one step.
    content : bytes, or text to be encoded in UTF-8

    Returns
    -------
    Path
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with unfinished.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(unfinished, path)
    except BaseException as error:
        unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError):  # nobody knows the other name; a full disk has none
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    sync_folder(path.parent)
    return path


def refuse_foreign(folder: Path, names: Iterable[str], sign: str) -> None:
    """Refuse a folder in which files of somebody else's would be replaced.

    Parameters
    ----------
    folder : Path
        It need not be there.
    names : iterable of str
        What is going to be written.
    sign : str
        A file that is there only if an earlier run of the same kind wrote the others.

    Raises
    ------
    OutputExistsError
    """
    there = [name for name in names if (folder / name).exists()]
    if there and not (folder / sign).exists():
        raise OutputExistsError(
            f"{folder / there[0]} is there already, and of no earlier run: give another folder."
        )


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the system can do that."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows
        return
    try:
        os.fsync(handle)
    except OSError:  # some network file systems
        pass
    finally:
        os.close(handle)


def lock(stream, path: str | Path) -> None:
    """Lock an open file for this process, until it is closed or the process ends.

    Raises
    ------
    OutputExistsError
        If another process holds the lock.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutputExistsError(f"{path} is being written by another run.") from None
    except OSError:  # some network file systems have no locks
        pass
