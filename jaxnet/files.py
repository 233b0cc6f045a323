"""Files that are written whole or not at all, locks that die with their process, and `.npz`."""

import contextlib
import errno
import math
import os
import secrets
import socket
import stat
import tempfile
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from jaxnet import text

try:
    import fcntl
except ImportError:  # on Windows: nothing is locked, and leftovers stay
    fcntl = None

__all__ = ["BusyError", "check_writable", "lock", "read_npz", "replacing", "write_json"]

_PARTIAL = ".partial"


class BusyError(OSError):
    """A file that another process holds; the message says which process."""


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    """Opens a file that takes the place of another once it is complete.

    Readers see the old content or the new, never a part: what is written goes to a file of a unique
    name in the same folder, which is renamed when the block ends and removed when it raises. What
    processes that were killed left behind is removed on the way.

    Args:
      path: of the file; its folder must exist.

    Raises:
      OSError: that names ``path``, if it cannot be written: a full disk, say.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp(), "digits.txt")
      >>> with replacing(path) as file:
      ...     _ = file.write(b"0123456789")
      >>> path.read_text()
      '0123456789'
    """
    path = Path(path)
    _remove_leftovers(path)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}{_PARTIAL}")
    try:
        file = _open_locked(partial)
        try:
            with file:
                yield file
                file.flush()
                if fcntl is None:
                    file.close()  # Windows renames no open file
                partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        if error.filename not in (None, str(partial)):
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes a JSON file, whole or not at all; see `text.plain` for what it can hold.

    Raises:
      OSError: a file that cannot be written.
      TypeError: what JSON cannot hold.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp(), "summary.json")
      >>> write_json(path, {"accuracy": 0.98})
      >>> print(path.read_text().strip())
      {
        "accuracy": 0.98
      }
    """
    content = text.dumps(value, indent=True) + "\n"
    with replacing(path) as file:
        file.write(content.encode())


@contextlib.contextmanager
def lock(path: str | os.PathLike, *, wait: bool = False) -> Iterator[None]:
    """Holds a lock file: one process at a time. The lock of a process that dies is free.

    Args:
      path: of the lock file, which exists as long as it is held.
      wait: whether to wait for another process, or raise.

    Raises:
      BusyError: another process holds it.
      OSError: a file that cannot be made.

    Example:
      >>> import tempfile
      >>> with lock(Path(tempfile.mkdtemp(), "run.lock")):
      ...     pass  # nobody else is here
    """
    path = Path(path)
    with _open_locked(path, wait=wait, fresh=False) as file:
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # while it is held: `_open_locked` looks for that


def check_writable(directory: str | os.PathLike) -> None:
    """Proves that a folder can be written, or made, and leaves no trace.

    Raises:
      OSError: if not.

    Example:
      >>> check_writable("/proc/nothing")
      Traceback (most recent call last):
      FileNotFoundError: ...
    """
    directory = Path(directory).absolute()
    if directory.is_symlink() and not directory.exists():
        raise FileNotFoundError(errno.ENOENT, "it is a link to nothing", str(directory))
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    if not existing.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"{existing} is not a folder", str(directory))
    with tempfile.TemporaryFile(dir=existing):
        pass


def read_npz(
    path: str | os.PathLike, names: Collection[str] | None = None
) -> dict[str, np.ndarray]:
    """Reads arrays from an `.npz` file, after comparing the sizes it claims with what is there.

    Args:
      path: of the file.
      names: which arrays to read, those that it has; None means all.

    Raises:
      OSError: a file that is missing or may not be read.
      ValueError: a file that is not an `.npz` archive, is damaged, holds pickled objects, or claims
        more than it holds; the message names ``path``.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp(), "x.npz")
      >>> np.savez(path, x=np.arange(3), y=np.arange(9))
      >>> read_npz(path, ["x"])
      {'x': array([0, 1, 2])}
    """
    path = Path(path)
    if not stat.S_ISREG(path.stat().st_mode):  # opening a FIFO would wait for ever
        raise ValueError(f"{path} is not a regular file")
    with path.open("rb") as opened:
        if not zipfile.is_zipfile(opened):  # np.load would take it for a pickle
            raise ValueError(f"{path} is not an .npz archive")
        try:
            with zipfile.ZipFile(opened) as archive:
                members = {_stem(info.filename): info for info in archive.infolist()}
                chosen = members if names is None else [n for n in names if n in members]
                return {name: _read_member(archive, members[name]) for name in chosen}
        except MemoryError as error:
            raise ValueError(f"{path} holds more than memory does") from error
        except Exception as error:  # damaged files provoke all kinds, zlib's and struct's too
            raise ValueError(f"{path} cannot be read as .npz: {text.first_line(error)}") from error


def _stem(name: str) -> str:
    return name.removesuffix(".npy")


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    formats: Any = np.lib.format
    with archive.open(info) as member:
        if not info.filename.endswith(".npy"):
            raise ValueError(f"{info.filename} is not an array, .npy")
        version = formats.read_magic(member)
        read_header = {
            (1, 0): formats.read_array_header_1_0,
            (2, 0): formats.read_array_header_2_0,
        }.get(version)
        if read_header is None:
            raise ValueError(f"{info.filename} is of version {version} of the format .npy")
        shape, _, dtype = read_header(member)
        claimed = member.tell() + math.prod(shape) * dtype.itemsize
        if dtype.hasobject:
            raise ValueError(f"{info.filename} holds Python objects, which are never loaded")
        if claimed != info.file_size:
            raise ValueError(
                f"{info.filename} claims shape {shape} of {dtype}, {claimed:,} bytes with its "
                f"header, and has {info.file_size:,}"
            )
    with archive.open(info) as member:
        return formats.read_array(member, allow_pickle=False)


def _open_locked(path: Path, *, wait: bool = False, fresh: bool = True) -> IO[bytes]:
    """Opens a file for writing and locks it.

    Whoever holds the lock may remove the file. So, once it is locked, the path must still lead to
    it; otherwise all begins anew.
    """
    flags = os.O_RDWR | os.O_CREAT | (os.O_EXCL if fresh else 0)
    while True:
        file = os.fdopen(os.open(path, flags, 0o666), "r+b")
        if fcntl is None:
            return file
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = file.read().decode(errors="replace")
            file.close()
            raise BusyError(errno.EBUSY, f"in use by {holder or 'another process'}") from error
        except OSError:  # a file system without locks
            return file
        if _leads_to(path, file):
            return file
        file.close()


def _leads_to(path: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _remove_leftovers(path: Path) -> None:
    """Removes the partial files of writers that have died: their locks are free."""
    if fcntl is None:
        return
    for leftover in path.parent.glob(f".{_escape(path.name)}.*{_PARTIAL}"):
        with contextlib.suppress(OSError), leftover.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftover.unlink()


def _escape(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
