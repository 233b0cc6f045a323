"""Audits a gradient: of the network, of any function of yours, or of all planted faults.

  %(prog)s                                            64-32-32-10 on the embedded digits
  %(prog)s --dataset mnist --hidden 256,128 --epochs 3
  %(prog)s --fault hidden-sigmoid                     a wrong backward pass, to see it caught
  %(prog)s --self-test                                every fault that there is
  %(prog)s --target mymodule:loss --arguments mymodule:example

The target is a function with a real scalar result; the arguments are a tuple, or a function that
returns one. Modules are looked for in the current folder first.

Exit status: 0 if the gradient passes, 1 if it does not or if differences cannot tell, 2 for bad
input. A gradient that has not even the shapes of its argument is bad input of --target, and a
fault that is caught, 1, of --fault.
"""

import dataclasses
import difflib
import sys
from argparse import ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tqdm

from jaxnet import backprop, data, faults, files, gradcheck, mlp, train
from jaxnet.cli.common import FAILED, Parser, StopError, check_out, given, say, select_device
from jaxnet.cli.self_test import conclude, list_faults, run_self_test
from jaxnet.cli.target import load_target, refusing
from jaxnet.train.config import MOST_STEPS, NetworkOptions
from jaxnet.train.loop import describe
from jaxnet.train.memory import check_memory
from jaxnet.train.options import (
    Kind,
    add_flags,
    flag,
    indices,
    name,
    natural_number,
    option,
    path,
    positive_integer,
    positive_number,
    widths,
)
from jaxnet.types import Params

__all__ = ["Options", "main", "parse"]


def _fault(name: str) -> str:
    """Parses the name of a wrong backward pass."""
    if name in faults.CATALOGUE:
        return name
    close = difflib.get_close_matches(name, faults.CATALOGUE, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise ArgumentTypeError(f"there is no {name!r}{hint} (--list-faults lists them)")


_MOST_DIRECTIONS = 10_000
_fault_name = Kind("the name of a fault", _fault, lambda v: v in faults.CATALOGUE, metavar="NAME")


@dataclasses.dataclass(frozen=True)
class Options(NetworkOptions):
    """What to audit, and how."""

    hidden: tuple[int, ...] = option((32, 32), widths, "of the hidden layers: 32,32; or none")
    batch_size: int = option(256, positive_integer, "images that the loss is taken of (256)")
    epochs: int = option(0, natural_number, "of training with Adam before the audit (0)")
    x64: bool = option(True, None, "audit a float32 gradient, not float64", ("--float32",))
    fault: str | None = option(None, _fault_name, "audit a wrong backward pass instead")
    list_faults: bool = option(False, None, "say what wrong backward passes there are")
    target: str | None = option(None, name, "audit a function of yours instead, MODULE:FUNCTION")
    arguments: str | None = option(None, name, "what to call it with, MODULE:NAME")
    gradient: str | None = option(
        None, name, "its gradient, MODULE:FUNCTION; by default jax.grad's"
    )
    argnums: tuple[int, ...] = option(
        (0,), indices, "arguments to differentiate in: 0 (default) or 0,2"
    )
    self_test: bool = option(False, None, "plant every fault in turn, and catch it")
    directions: int = option(8, positive_integer, "random directions in every leaf (8)")
    tolerance: float | None = option(None, positive_number, "relative error that passes")
    exhaustive: bool = option(False, None, "measure every coordinate")
    control: bool = option(False, None, "plant an error in every leaf, and see that it shows")
    json: Path | None = option(None, path, "file to write the report to")


# Flags of the network, which mean nothing for a --target or the --self-test.
_OF_NETWORK = (
    "dataset",
    "data_dir",
    "manual_dir",
    "hidden",
    "bias",
    "init",
    "batch_size",
    "epochs",
    "fault",
    "x64",
)
_OF_TARGET = ("arguments", "gradient", "argnums")


def parse(program: str, argv: Sequence[str]) -> Options:
    """Parses the command line; exits with status 2 and one line if it is wrong."""
    parser = Parser(program, __doc__)
    add_flags(parser, Options)
    flags = given(parser, argv)
    if "list_faults" in flags:
        refuse(parser, flags, [each for each in flags if each != "list_faults"], "--list-faults")
    if "target" in flags:
        if "arguments" not in flags:
            parser.error("argument --target: needs --arguments")
        refuse(parser, flags, _OF_NETWORK, "--target")
    elif misplaced := [each for each in _OF_TARGET if each in flags]:
        parser.error(f"argument {flag(misplaced[0])}: needs --target")
    if flags.get("directions", 1) > _MOST_DIRECTIONS:
        parser.error(
            f"argument --directions: must be at most {_MOST_DIRECTIONS:,}, "
            f"got {flags['directions']}"
        )
    if "self_test" in flags:
        refuse(parser, flags, (*_OF_NETWORK, "target", "exhaustive"), "--self-test")
    return Options(**flags)


def refuse(parser: Parser, flags: dict[str, Any], names: Sequence[str], other: str) -> None:
    """Exits if a flag was given that another makes meaningless."""
    spelling = {"x64": "--float32", "bias": "--no-bias"}
    for each in names:
        if each in flags:
            of_arguments = each == "x64" and other == "--target"
            why = ", whose dtype is that of its arguments" if of_arguments else ""
            wrong = spelling.get(each, flag(each))
            parser.error(f"argument {wrong}: not allowed with argument {other}{why}")


def main(program: str, argv: Sequence[str]) -> int:
    """Runs the command and returns its exit status."""
    options = parse(program, argv)
    if options.list_faults:
        list_faults()
        return 0
    of_network = not (options.target or options.self_test)
    select_device(options.platform, x64=options.x64 and of_network)
    _check_json(options.json)
    init_key, order_key, check_key = (
        jax.random.fold_in(jax.random.key(options.seed), purpose) for purpose in range(3)
    )
    if options.self_test:
        found = run_self_test(
            init_key, check_key, directions=options.directions, tolerance=options.tolerance
        )
        _write_json(options.json, found)
        conclude(found)
        return 0
    if options.target:
        report = _audit_target(options, check_key)
    else:
        report = _audit_network(options, init_key, order_key, check_key)
    say(f"\n{report}" + (f"\n{_controls(report)}" if options.control else ""))
    _write_json(options.json, report.to_dict())
    if report.verdict != "pass":
        raise StopError(describe(report), FAILED)
    return 0


def _audit_network(
    options: Options, init_key: jax.Array, order_key: jax.Array, check_key: jax.Array
) -> gradcheck.Report:
    """Audits the hand-written gradient, or one with a fault, on real images."""
    try:
        dataset = data.load(
            options.dataset, data_dir=options.data_dir, manual_dir=options.manual_dir
        )
        examples = dataset.train
        train.steps_per_epoch(len(examples.inputs), options.batch_size)
        sizes = (examples.inputs.shape[1], *options.hidden, examples.targets.shape[1])
        itemsize = jnp.result_type(float).itemsize
        check_memory(sizes, rows=options.batch_size, audited=True, itemsize=itemsize)
    except ValueError as error:
        raise StopError(error) from error
    params = mlp.init(init_key, sizes, scheme=options.init, bias=options.bias)
    if options.epochs:
        say(f"training for {options.epochs} epochs on {dataset.name} ...")
        params = _train(params, examples, options.epochs, order_key)
    value_and_grad = faults.CATALOGUE[options.fault] if options.fault else backprop.value_and_grad
    inputs, targets = (jnp.asarray(array[: options.batch_size]) for array in examples)
    say(
        f"{'-'.join(map(str, sizes))} after {options.epochs} epochs, "
        f"on {options.batch_size} images of {dataset.name}"
        + (f", with the fault {options.fault}" if options.fault else "")
    )
    try:
        _, gradient = value_and_grad(params, inputs, targets)
    except ValueError as error:  # a fault that this network cannot have
        raise StopError(error) from error
    try:
        return _audit(options, mlp.loss, (params, inputs, targets), gradient, 0, check_key)
    except (ValueError, TypeError) as error:
        if str(error).startswith("tolerance"):
            raise StopError(error) from error
        # A fault that spoils even the shapes is caught by them.
        raise StopError(f"the gradient does not pass: {error}", FAILED) from error


def _train(params: Params, examples: data.Split, epochs: int, key: jax.Array) -> Params:
    batch_size = min(32, len(examples.inputs))
    steps = train.steps_per_epoch(len(examples.inputs), batch_size)
    if epochs * steps > MOST_STEPS:
        raise StopError(f"argument --epochs: must be at most {MOST_STEPS // steps:,}, got {epochs}")
    bar = tqdm.tqdm(total=epochs, unit="epoch", disable=not sys.stderr.isatty(), dynamic_ncols=True)
    with bar:
        return train.fit(
            params,
            examples,
            key=key,
            optimizer=train.make_optimizer("adam", 0.01),
            batch_size=batch_size,
            epochs=epochs,
            on_epoch=lambda *_: bar.update(),
        ).params


def _audit_target(options: Options, key: jax.Array) -> gradcheck.Report:
    """Audits a function that is named on the command line."""
    f, args, gradient = load_target(options.target or "", options.arguments or "", options.gradient)
    argnums = options.argnums if len(options.argnums) > 1 else min(options.argnums)
    say(f"{options.target} at {options.arguments}")
    with refusing(f"--target {options.target}"):
        return _audit(options, f, args, gradient, argnums, key)


def _audit(options: Options, f, args, gradient, argnums, key) -> gradcheck.Report:
    return gradcheck.check(
        f,
        *args,
        gradient=gradient,
        argnums=argnums,
        key=key,
        directions=options.directions,
        tolerance=options.tolerance,
        exhaustive=options.exhaustive,
        control=options.control,
    )


def _controls(report: gradcheck.Report) -> str:
    """Returns in a line which planted errors were seen; the report has those that were not."""
    sizes = sorted(leaf.sees for leaf in report.leaves if leaf.control)
    without = [leaf.path for leaf in report.leaves if leaf.control is None]
    found = []
    if sizes:
        low, high = (f"{size:.1e}" for size in (sizes[0], sizes[-1]))
        size = low if low == high else f"{low} to {high}"
        count = "1 leaf" if len(sizes) == 1 else f"each of {len(sizes)} leaves"
        found = [f"an error of {size} of the norm was planted in {count}, and seen"]
    if without:  # a leaf that does not pass, or in which nothing would certainly be seen
        found.append(f"nothing was planted in {', '.join(without)}")
    return f"control: {'; '.join(found) or 'no planted error was seen'}"


def _check_json(path: Path | None) -> None:
    """Proves that the report can be written, before there is one."""
    if path is None:
        return
    if path.is_dir():
        raise StopError(f"--json {path} cannot be written: it is a folder")
    if not path.parent.exists():
        raise StopError(f"--json {path} cannot be written: there is no folder {path.parent}")
    check_out(path.parent, f"--json {path}")


def _write_json(path: Path | None, value: Any) -> None:
    if path is not None:
        files.write_json(path, value)
