"""The command line: ``jaxnet train``, ``jaxnet check``, ``jaxnet lecture``.

This module is light: it imports a command's modules when it runs it.
"""

import gc
import importlib
import signal
import sys
import time
from collections.abc import Sequence

__all__ = ["COMMANDS", "START", "main", "run"]

START = time.perf_counter()  # before the imports: whoever waits for a run waits for them, too

COMMANDS = {
    "train": "train the network, and record the run",
    "check": "audit a gradient: the network's, or one of yours",
    "lecture": "walk through the lecture, slide by slide",
}


def run(command: str, argv: Sequence[str] | None = None, *, program: str | None = None) -> int:
    """Runs a command and returns its exit status.

    Args:
      command: one of `COMMANDS`.
      argv: its flags; by default the process's own.
      program: what it is called in messages; by default ``jaxnet`` and the command.

    Example:
      >>> run("train", ["--epochs", "0"])
      2
    """
    # Ctrl-C among the imports ends without a traceback.
    previous = signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.disable()  # garbage collection among the imports would take an eighth of their time
    try:
        module = importlib.import_module(f"jaxnet.cli.{command}")
        from jaxnet.cli import common
    finally:
        gc.freeze()  # modules stay
        gc.enable()
        signal.signal(signal.SIGINT, previous)
    argv = list(sys.argv[1:] if argv is None else argv)
    program = program or f"jaxnet {command}"
    return common.run(program, module.main, program, argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that the first argument names; the console script ``jaxnet``.

    Example:
      >>> main(["--version"])
      jaxnet ...
      0
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv and argv[0] in COMMANDS:
        return run(argv[0], argv[1:])
    if argv == ["--version"]:
        import jaxnet

        print(f"jaxnet {jaxnet.__version__}")
        return 0
    width = max(map(len, COMMANDS))
    usage = ["usage: jaxnet COMMAND ... | --version | --help", ""]
    usage += [f"  jaxnet {name:{width}}  {what}" for name, what in COMMANDS.items()]
    usage += ["", "jaxnet COMMAND --help has the flags of each."]
    if argv in (["--help"], ["-h"]):
        print("\n".join(usage))
        return 0
    got = repr(argv[0]) if argv else "nothing"
    print(f"jaxnet: error: must be one of {', '.join(COMMANDS)}, got {got}", file=sys.stderr)
    return 2
