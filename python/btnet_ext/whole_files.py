"""Files and directories that are written whole or not at all, and folders that one process has to itself."""

import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from btnet_ext.errors import reason


def discard_parts(path: Path) -> None:
    """Remove what is left of a process that was killed while it wrote `path`. Nobody else may be writing it."""
    for part in path.parent.glob(f".{path.name}.*"):
        part.unlink()


@contextmanager
def locked(folder: Path, busy: Callable[[], None]) -> Iterator[None]:
    """Make a folder, and have it to oneself, among the processes of this machine that ask for it in this way.

    busy: called where another one has it, before that is waited for; what it raises comes out.
    """
    handle = _open_folder(folder)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            busy()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _open_folder(folder: Path) -> int:
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # one that had it to itself has just removed it
            return os.open(folder, os.O_RDONLY)


@contextmanager
def whole_file(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Yield a function that appends bytes to a new file, which becomes `path` at the end, flushed to the disk.

    After an error nothing is left of it, and what was there before stays. Raises OSError that names `path`.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")

    def append(content: bytes) -> None:
        with naming(path):
            write_all(file, content)

    with naming(path):
        # Not buffered: then closing the file writes nothing, and cannot hide the error of a full disk.
        file = part.open("xb", buffering=0)
    try:
        with file:
            yield append
            with naming(path):
                os.fsync(file.fileno())
        with naming(path):
            part.rename(path)
    finally:
        part.unlink(missing_ok=True)


def write_all(file: FileIO, content: bytes) -> None:
    """Write to a file that is not buffered, which may take a part at a time. Raises OSError."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


@contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """Yield a new directory to write files into, which takes the place of `path` at the end, flushed to the disk.

    After an error nothing is left of it, and what was there before stays. Raises OSError that names `path` where no
    directory can be made beside it.
    """
    replaces = path.exists()
    mark = f".{path.name}.{uuid.uuid4().hex}"
    folder, old = path.parent / f"{mark}.new", path.parent / f"{mark}.old"
    with naming(path):
        folder.mkdir()
    try:
        yield folder
        for written in (*folder.iterdir(), folder):
            _sync(written)
        if replaces:
            path.rename(old)
        folder.rename(path)
        _sync(path.parent)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if replaces:
        shutil.rmtree(old)


def _sync(path: Path) -> None:
    """Flush a file or directory to the disk, so that the rename cannot overtake what was written."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have errors say which file it was for, and whether there is still the one before."""
    try:
        yield
    except OSError as error:
        rest = "; what was there before is intact" if path.exists() else ""
        raise OSError(error.errno, f"{path} cannot be saved ({reason(error)}){rest}") from error
