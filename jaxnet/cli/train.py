"""Trains the sigmoid network by a backward pass written by hand, and records the run.

  %(prog)s                                    the embedded digits, in seconds
  %(prog)s --dataset mnist                    784-256-128-10 on MNIST
  %(prog)s --preset fast                      98%% of MNIST in seconds
  %(prog)s --preset lecture                   the lecture's program, in 15 minutes
  %(prog)s --preset lecture --iterations 100  its beginning

Exit status: 0 after a run; 1 if the gradient is wrong or training diverges; 2 for bad input; 130
after Ctrl-C and 143 after SIGTERM, which end the epoch and keep the record of what was done.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxnet import cli, data, files, record
from jaxnet.cli.common import (
    FAILED,
    Parser,
    StopError,
    catch_signals,
    check_out,
    given,
    say,
    select_device,
    use_compilation_cache,
)
from jaxnet.train import loop
from jaxnet.train.config import PRESETS, Config, check_config, resolve
from jaxnet.train.options import add_flags, positive_integer
from jaxnet.train.writers import RecordWriter, Terminal, describe_stop

__all__ = ["main", "parse"]


def parse(program: str, argv: Sequence[str]) -> Config:
    """Returns the configuration that flags and preset make, open where the data decides.

    Exits with status 2 and one line on standard error if the command line is wrong.
    """
    parser = Parser(program, __doc__)
    add_flags(parser, Config)
    parser.add_argument(
        "--iterations", type=positive_integer, metavar="N", help="how many of the lecture's (5000)"
    )
    flags = given(parser, argv)
    if "iterations" in flags:
        if flags.get("preset") != "lecture":
            parser.error("argument --iterations: needs --preset lecture; or use --epochs")
        if "epochs" in flags:
            parser.error("argument --iterations: not allowed with argument --epochs")
        flags["epochs"] = flags.pop("iterations")
    config = dataclasses.replace(PRESETS[flags.get("preset")], **flags)
    try:
        check_config(config)
    except ValueError as error:
        parser.error(str(error))
    return config


def load(config: Config) -> tuple[Config, data.Dataset]:
    """Returns the dataset, and the configuration resolved for it, once both are known to be good.

    Raises:
      StopError: if one is not.
    """
    try:
        dataset = data.load(
            config.dataset,
            validation_split=config.validation_split,
            data_dir=config.data_dir,
            manual_dir=config.manual_dir,
            dtype=np.uint8,  # a quarter of the memory; the step scales what it reads
        )
        config = resolve(config, dataset)
    except ValueError as error:
        raise StopError(error) from error
    check_out(config.out)
    return config, dataset


def main(program: str, argv: Sequence[str]) -> int:
    """Runs the command and returns its exit status."""
    config = parse(program, argv)
    select_device(config.platform, x64=config.x64, devices=config.devices)
    use_compilation_cache()
    config, dataset = load(config)
    # Signals are caught until all is written, so that Ctrl-C in the last moments costs nothing.
    with _open(config) as opened, catch_signals() as signals:
        where = f"record and pictures in {config.out}"
        terminal = Terminal(config, say=say, began=cli.START, where=where)
        writers = (RecordWriter(opened, began=cli.START, draw=draw), terminal)
        end = None
        with terminal:
            for event in loop.run(config, dataset, stop=lambda: signals.reason):
                for write in writers:
                    write(event)
                end = event
    if not isinstance(end, loop.Finished) or end.status == "finished":
        return 0
    if end.status == "wrong gradient" and not end.epochs:
        raise StopError(end.message, FAILED)
    status = signals.status if end.status == "interrupted" else FAILED
    raise StopError(f"{describe_stop(config, end)}; the record is in {config.out}", status)


def _open(config: Config) -> record.Record:
    try:
        return record.Record(config.out, config.to_dict())
    except files.BusyError as error:
        raise StopError(f"--out {config.out} is {error.strerror}: another run") from error


def draw(opened: record.Record) -> None:
    """Draws the pictures of a run."""
    from jaxnet import plots  # here, so that nobody waits for matplotlib before training

    plots.draw_run(opened.directory)
