"""Files that are written whole or not at all, locks that die with their process, and `.npz`."""

import contextlib
import errno
import glob
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

__all__ = [
    "BusyError",
    "available_memory",
    "check_writable",
    "lock",
    "npz_names",
    "read_npz",
    "replacing",
    "write_json",
]

_PARTIAL = ".partial"
_LONGEST = 200  # bytes of a file's name that the name of its partial file repeats; 255 are allowed
_DEFLATE_RATIO = 1032  # at most, by its format


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
    if not path.name:
        raise IsADirectoryError(errno.EISDIR, "it must name a file", str(path))
    _remove_leftovers(path)
    partial = path.with_name(f"{_prefix(path)}{secrets.token_hex(8)}{_PARTIAL}")
    try:
        # Another writer may take it for a leftover before it is locked: then it is made anew.
        file = _open_locked(partial, wait=True)
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
        if error.errno is None or error.filename not in (None, str(partial)):
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
        with contextlib.suppress(OSError):  # a full disk: the lock holds, but names no holder
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}".encode())
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
    for path in (directory, *directory.parents):
        if path.is_symlink() and not path.exists():
            raise FileNotFoundError(errno.ENOENT, f"{path} is a link to nothing", str(directory))
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    if not existing.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"{existing} is not a folder", str(directory))
    with tempfile.TemporaryFile(dir=existing):
        pass


def available_memory() -> int:
    """Returns the free memory in bytes, or the limit of the control group if that is less.

    Where the system tells neither, it is what 64 bits address.

    Example:
      >>> available_memory() > 0
      True
    """
    found = [2**63]
    with contextlib.suppress(OSError, ValueError, IndexError):
        line = Path("/proc/meminfo").read_text().partition("MemAvailable:")[2]
        found.append(int(line.split()[0]) * 1024)
    for limit in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # no such control group, or no limit
            found.append(int(Path("/sys/fs/cgroup", limit).read_text()))
    return min(found)


def npz_names(path: str | os.PathLike) -> list[str]:
    """Returns the names of the arrays in an `.npz` file, without reading them.

    Args:
      path: of the file.

    Raises:
      OSError: a file that is missing or may not be read.
      ValueError: a file that is not an `.npz` archive; the message names ``path``.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp(), "x.npz")
      >>> np.savez(path, x=np.arange(3), y=np.arange(9))
      >>> npz_names(path)
      ['x', 'y']
    """
    with _open_npz(Path(path)) as archive:
        return list(dict.fromkeys(_stem(info.filename) for info in archive.infolist()))


def read_npz(
    path: str | os.PathLike, names: Collection[str] | None = None
) -> dict[str, np.ndarray]:
    """Reads arrays from an `.npz` file, after comparing the sizes it claims with what is there.

    Args:
      path: of the file.
      names: which arrays to read, those that it has; None means all.

    Raises:
      OSError: a file that is missing or may not be read.
      ValueError: a file that is not an `.npz` archive, is damaged, holds pickled objects or an
        array twice, claims more than it holds, or needs more memory than is free; the message
        names ``path``.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp(), "x.npz")
      >>> np.savez(path, x=np.arange(3), y=np.arange(9))
      >>> read_npz(path, ["x"])
      {'x': array([0, 1, 2])}
    """
    with _open_npz(Path(path)) as archive:
        members: dict[str, zipfile.ZipInfo] = {}
        for info in archive.infolist():
            name = _stem(info.filename)
            if names is not None and name not in names:
                continue
            if name in members:
                raise ValueError(f"it holds {name} twice")
            members[name] = info
        needed, available = sum(info.file_size for info in members.values()), available_memory()
        if needed > available:
            raise ValueError(
                f"its arrays need {needed / 1e9:,.1f} GB, and {available / 1e9:,.1f} GB are free"
            )
        return {name: _read_member(archive, info) for name, info in members.items()}


@contextlib.contextmanager
def _open_npz(path: Path) -> Iterator[zipfile.ZipFile]:
    """Opens an archive; whatever fails while it is read becomes a ValueError that names it."""
    if not stat.S_ISREG(path.stat().st_mode):  # opening a FIFO would wait for ever
        raise ValueError(f"{path} is not a regular file")
    with path.open("rb") as opened:
        try:
            if not zipfile.is_zipfile(opened):  # np.load would take it for a pickle
                raise _NotAnArchive
            with zipfile.ZipFile(opened) as archive:
                yield archive
        except _NotAnArchive:
            raise ValueError(f"{path} is not an .npz archive") from None
        except MemoryError as error:
            raise ValueError(f"{path} holds more than memory does") from error
        except Exception as error:  # damaged files provoke all kinds, zlib's and struct's too
            raise ValueError(f"{path} cannot be read as .npz: {text.first_line(error)}") from error


class _NotAnArchive(Exception):
    pass


def _stem(name: str) -> str:
    return name.removesuffix(".npy")


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    formats: Any = np.lib.format
    # What the file's directory claims is compared with the bytes that are there.
    ratio = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: _DEFLATE_RATIO}.get(info.compress_type)
    if ratio is None:
        raise ValueError(f"{info.filename} must be stored or deflated, as NumPy writes it")
    if info.file_size > ratio * info.compress_size:
        raise ValueError(
            f"{info.filename} claims {info.file_size:,} bytes, more than "
            f"{info.compress_size:,} can hold"
        )
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
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | (os.O_EXCL if fresh else 0)
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
    for leftover in path.parent.glob(f"{glob.escape(_prefix(path))}*{_PARTIAL}"):
        with contextlib.suppress(OSError):
            if not leftover.is_file() or leftover.is_symlink():
                continue
            with leftover.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _leads_to(leftover, file):  # otherwise it is another writer's by now
                    leftover.unlink()


def _prefix(path: Path) -> str:
    return f".{os.fsdecode(os.fsencode(path.name)[:_LONGEST])}."
