"""What all commands share: one-line errors, signals, output that nobody reads, device and cache."""

import argparse
import contextlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jax

from jaxnet import files, record

__all__ = [
    "BAD_INPUT",
    "FAILED",
    "Parser",
    "Signals",
    "StopError",
    "catch_signals",
    "check_out",
    "divide_cpu",
    "given",
    "run",
    "say",
    "select_device",
    "use_compilation_cache",
]

FAILED, BAD_INPUT = 1, 2
_DEVICES_PER_CORE, _MOST_DEVICES = 8, 128  # XLA's CPU client deadlocks with some hundred
_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


class StopError(Exception):
    """Ends a command with one line on standard error, called an error if it is bad input."""

    def __init__(self, message: object, status: int = BAD_INPUT):
        super().__init__(" ".join(str(message).split()))
        self.status = status


class Parser(argparse.ArgumentParser):
    """Reports a bad flag in one line, refuses empty values, and returns only what is given."""

    def __init__(self, program: str, description: str | None):
        super().__init__(
            prog=program,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            argument_default=argparse.SUPPRESS,
            allow_abbrev=False,
        )

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # pyright: ignore
        """Parses, once no value is empty: an unset variable of a shell is no choice."""
        args = list(sys.argv[1:] if args is None else args)
        for before, arg in zip(["", *args], args, strict=False):
            name, equals, value = arg.partition("=")
            if not arg.strip():
                self.error(f"argument {before or 'of the command'}: must not be empty")
            if name.startswith("--") and equals and not value.strip():
                self.error(f"argument {name}: must not be empty")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Exits with status 2, without the usage that argparse puts before the message."""
        self.exit(BAD_INPUT, f"{self.prog}: error: {message}\n")


class _EndedError(KeyboardInterrupt):
    """A signal ended the command before it could end by itself."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


def run(program: str, main: Callable[..., int], *args: Any) -> int:
    """Calls a command's main function, and makes a line and an exit status of what stops it."""
    _mend_streams()
    try:
        with _handling({signal.SIGINT: _raise, **dict.fromkeys(_ENDING, _raise)}):
            _check_folder()
            return main(*args)
    except StopError as stop:
        kind = "error: " if stop.status == BAD_INPUT else ""
        return _complain(program, f"{kind}{stop}", stop.status)
    except SystemExit as end:  # argparse, after its line
        return end.code if isinstance(end.code, int) else BAD_INPUT
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return _complain(program, f"error: {what}", BAD_INPUT)
    except MemoryError:
        return _complain(program, "error: there is not enough memory", BAD_INPUT)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return _complain(program, "error: the device has not enough memory", BAD_INPUT)
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, _EndedError) else signal.SIGINT
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # pressed once more, it changes nothing
        how = "interrupted" if number == signal.SIGINT else f"ended by {error}"
        _complain(program, how, 0)
        sys.stdout.flush()
        os._exit(128 + number)  # at once: XLA may be compiling, and does not survive an orderly end


def say(line: object) -> None:
    """Prints at once, so that a pipe shows progress, too; if it cannot, the work goes on."""
    try:
        print(line, flush=True)
    except OSError:  # nobody reads any more, or the disk is full
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(program: str, line: str, status: int) -> int:
    with contextlib.suppress(OSError):
        print(f"{program}: {line}", file=sys.stderr, flush=True)
    return status


def _check_folder() -> None:
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise StopError("the current folder has been removed") from error


def _mend_streams() -> None:
    """Makes streams of those that are closed, and lets all print what their encoding lacks."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, it stays open
        stream: Any = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


class Signals:
    """Which signal asks a loop to end, if any.

    Attributes:
      number: of the signal, or None.
    """

    number: int | None = None

    @property
    def reason(self) -> str | None:
        """Why to end, in words; None as long as there is no reason."""
        if self.number is None:
            return None
        name = signal.Signals(self.number).name
        return f"interrupted by {'Ctrl-C' if name == 'SIGINT' else name}"

    @property
    def status(self) -> int:
        """The exit status that tells of the signal, as shells have it."""
        return 128 + (self.number or 0)


@contextlib.contextmanager
def catch_signals() -> Iterator[Signals]:
    """Yields what Ctrl-C, SIGTERM and SIGHUP are noted in, so that a loop can end between rounds.

    A second Ctrl-C interrupts at once.
    """
    seen = Signals()

    def handle(number: int, frame: Any) -> None:
        if number == signal.SIGINT and seen.number == signal.SIGINT:
            _raise(number, frame)
        seen.number = seen.number or number
        if sys.stderr.isatty():
            os.write(2, b"\nending after this round; press Ctrl-C again to end at once\n")

    with _handling({signal.SIGINT: handle, **dict.fromkeys(_ENDING, handle)}):
        yield seen


def _raise(number: int, frame: Any) -> NoReturn:
    raise _EndedError(number)


@contextlib.contextmanager
def _handling(handlers: dict[Any, Any]) -> Iterator[None]:
    """Handles signals for a while; those that the caller ignores, as `nohup` does, stay ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ignored = {signal.SIG_IGN} if hasattr(signal, "SIGHUP") else set()
    previous = {
        number: signal.signal(number, handler)
        for number, handler in handlers.items()
        if number == signal.SIGINT or signal.getsignal(number) not in ignored
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def check_out(path: Path, what: str | None = None) -> None:
    """Proves that a folder can be written, before there is anything to write.

    Args:
      path: of the folder.
      what: the flag and its value; by default those of ``--out``.

    Raises:
      StopError: if not.
    """
    try:
        files.check_writable(path)
    except OSError as error:
        what, why = what or f"--out {path}", error.strerror or error
        raise StopError(f"{what} cannot be written: {why}") from error


def select_device(platform: str | None, *, x64: bool, devices: int | None = 1) -> None:
    """Configures JAX, before its first use, and proves that the platform is there.

    Args:
      platform: None for the best there is.
      x64: whether arrays have 64 bits.
      devices: how many there must be; a CPU is divided into so many. None makes a device of each of
        its cores, and takes what there is.

    Raises:
      StopError: where it is not; JAX would use another, or fail later.
    """
    if devices != 1:
        cores = record.cpus() or 1
        most = min(_MOST_DEVICES, _DEVICES_PER_CORE * cores)
        if devices and devices > most and platform in (None, "cpu"):
            raise StopError(
                f"argument --devices: must be at most {most} on this machine, "
                f"{_DEVICES_PER_CORE} for each core, got {devices}"
            )
        divide_cpu(devices)
    if x64:
        jax.config.update("jax_enable_x64", True)
    if platform:
        jax.config.update("jax_platforms", platform)
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter for a plugin not installed
        what = (
            f"--platform {platform}: JAX finds no such device" if platform else "JAX has no device"
        )
        raise StopError(f"{what}: {error}" if str(error) else what) from error
    if devices and devices > jax.device_count():
        raise StopError(f"--devices {devices}: JAX finds only {jax.device_count()}")


def divide_cpu(devices: int | None = None) -> None:
    """Makes so many devices of the CPU, by default each of its cores, if JAX does not run yet."""
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", devices or record.cpus() or 1)


def use_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache folder, for the next run to find them there.

    JAX names them by program, device, flags and version, so that runs may share the folder. It is
    ``$JAX_COMPILATION_CACHE_DIR``, where that is set; empty, it turns the cache off. A program that
    cannot be read is compiled anew; where the folder cannot be written, a line says so.
    """
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if chosen == "":
        return
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = Path(chosen or cache / "jaxnet" / f"compiled-{jax.__version__}")
    if "://" not in str(chosen):  # JAX itself writes to other kinds of storage
        try:
            files.check_writable(folder)
        except OSError as error:
            reason = error.strerror or error
            print(f"no compilation cache: {folder} cannot be written: {reason}", file=sys.stderr)
            jax.config.update("jax_enable_compilation_cache", False)
            return
    jax.config.update("jax_compilation_cache_dir", chosen or str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)  # many are short
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    for which in ("reading", "writing"):
        message = f"Error {which} persistent compilation cache"
        warnings.filterwarnings("ignore", message, UserWarning)


def given(parser: Parser, argv: Sequence[str]) -> dict[str, Any]:
    """Returns the options that a command line has, by name."""
    return vars(parser.parse_args(list(argv)))
