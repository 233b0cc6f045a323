"""What the scripts share: flags that explain themselves, errors of one line, a polite Ctrl-C."""

import argparse
import contextlib
import gc
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import jax
import numpy as np

from jaxnet import mlp, record

if TYPE_CHECKING:
    from jaxnet import gradcheck  # slow to import, and not needed by all scripts

_LARGEST = float(np.finfo(np.float32).max)
FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130


class StopError(Exception):
    """Ends a script with one line on standard error, called an error if it is bad input."""

    def __init__(self, message: object, status: int = BAD_INPUT):
        super().__init__(" ".join(str(message).split()))
        self.status = status


class Parser(argparse.ArgumentParser):
    """Reports a bad flag in one line."""

    def __init__(self, description: str | None, **options):
        layout = argparse.RawDescriptionHelpFormatter
        super().__init__(
            description=description, formatter_class=layout, allow_abbrev=False, **options
        )

    def error(self, message: str) -> NoReturn:
        """Exits with status 2, without the usage that argparse puts before the message."""
        self.exit(BAD_INPUT, f"{self.prog}: error: {message}\n")


def add_data_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say which data to load, and where it lies."""
    add = parser.add_argument
    add("--dataset", help="digits (default), mnist, fashion_mnist or the path of a .npz file")
    add("--data-dir", type=Path, help="where prepared data is kept ($JAXNET_DATA_DIR)")
    add("--manual-dir", type=Path, help="folder with downloaded archives ($JAXNET_MANUAL_DIR)")


def add_network_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say which network to make, from which seed, and on which device."""
    add = parser.add_argument
    add("--hidden", type=widths, metavar="WIDTHS", help="of the hidden layers: 256,128; or none")
    add("--no-bias", dest="bias", action="store_false", help="layers without biases")
    add("--init", choices=mlp.SCHEMES, help="distribution of the first parameters")
    add("--seed", type=natural_number, help="of all that is drawn at random (0)")
    add("--platform", choices=("cpu", "cuda", "tpu"), help="by default the best there is")


def run(program: str, main, *args) -> int:
    """Calls a script's main function and turns what stops it into a line and an exit status."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    collect_garbage()
    try:
        return main(*args)
    except StopError as stop:
        kind = "error: " if stop.status == BAD_INPUT else ""
        print(f"{program}: {kind}{stop}", file=sys.stderr)
        return stop.status
    except BrokenPipeError:  # whoever read the output has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(INTERRUPTED)  # at once: XLA may be compiling, and does not survive an orderly end


def collect_garbage() -> None:
    """Turns Python's garbage collector on, for those that turn it off while modules load."""
    gc.freeze()  # modules stay
    gc.enable()


def describe(report: "gradcheck.Report") -> str:
    """Returns in one line which leaf of a gradient does not pass; the report says why."""
    if report.verdict == "pass":
        return f"the {report.subject} passes"
    others = sum(leaf.verdict == report.verdict for leaf in report.leaves) - 1
    leaves = report.worst.path + (f" and {others} more" if others else "")
    if report.verdict == "fail":
        return f"the {report.subject} does not pass: {leaves}"
    return f"differences cannot tell whether the {report.subject} is right: {leaves}"


def positive_integer(text: str) -> int:
    """Parses 1, 2, 3, ..."""
    return _number(text, int, lambda value: value > 0, "a positive integer")


def natural_number(text: str) -> int:
    """Parses 0, 1, 2, ... up to what a key of `jax.random` takes on every configuration."""
    return _number(text, int, lambda value: 0 <= value < 2**31, "an integer from 0 to 2147483647")


def positive_number(text: str) -> float:
    """Parses a positive number that float32 can hold."""
    return _number(text, float, lambda value: 0 < value <= _LARGEST, "a positive number")


def share(text: str) -> float:
    """Parses a number in [0, 1)."""
    return _number(text, float, lambda value: 0 <= value < 1, "a number in [0, 1)")


def widths(text: str) -> tuple[int, ...]:
    """Parses widths of hidden layers, ``256,128``; ``none`` for a network without any."""
    if text == "none":
        return ()
    return tuple(positive_integer(each) for each in text.split(","))


@contextmanager
def polite_interrupt() -> Iterator[list[int]]:
    """Yields a list that fills when Ctrl-C is pressed, so that a loop can end between its turns.

    Pressed once more, Ctrl-C interrupts as usual.
    """
    pressed: list[int] = []

    def handle(number, frame):
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, previous)


def select_device(platform: str | None, x64: bool, devices: int | None = 1) -> None:
    """Configures JAX, before its first use, and proves that the platform is there.

    Args:
      platform: None for the best there is.
      x64: whether arrays are of 64 bits.
      devices: how many there must be; a CPU is made to have so many. None makes each of its cores
        one, and takes what there is.

    Raises:
      StopError: where it is not; JAX would fall back on another, or fail later.
    """
    if devices != 1:
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
    try:
        record.check_writable(folder)
    except OSError as error:
        reason = error.strerror or error
        print(f"no compilation cache: {folder} cannot be written: {reason}", file=sys.stderr)
        jax.config.update("jax_enable_compilation_cache", False)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)  # many are short
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    warnings.filterwarnings("ignore", "Error reading persistent compilation cache", UserWarning)


def _number(text, kind, valid, expected):
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not valid(value):
        raise argparse.ArgumentTypeError(f"must be {expected}, got {text!r}")
    return value
