"""Audits a gradient: of the network, of any function of yours, or of all planted faults.

  python scripts/check_gradients.py                          64-32-32-10 on the embedded digits
  python scripts/check_gradients.py --dataset mnist --hidden 256,128 --epochs 3
  python scripts/check_gradients.py --fault hidden-sigmoid   a wrong backward pass, to see it caught
  python scripts/check_gradients.py --self-test              every fault that there is
  python scripts/check_gradients.py --target mymodule:loss --arguments mymodule:example

The target is a function with a real scalar result; the arguments are a tuple, or a function that
returns one. Modules are looked for in the current folder first.

Exit status: 0 if the gradient passes, 1 if it does not or if differences cannot tell, 2 for bad
input. A gradient that has not even the shapes of its argument is bad input of --target, and a
fault that is caught, 1, of --fault.
"""

import gc
import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C among the imports ends without a traceback
gc.disable()  # until they are there: nothing of them is garbage, and the search takes an eighth

import argparse
import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cli
import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import tqdm

import jaxnet
from jaxnet import backprop, data, faults, gradcheck, mlp, record, train

LIBRARIES = [Path(module.__path__[0]) for module in (jax, jaxlib, jaxnet, np)]
TARGET = ("arguments", "gradient", "argnums")  # flags that belong to --target
WORDS = {  # what the self-test says of a verdict, by the one that it expects
    ("fail", "fail"): "caught",
    ("fail", "inconclusive"): "INCONCLUSIVE",
    ("fail", "pass"): "MISSED",
    ("pass", "pass"): "pass",
    ("pass", "inconclusive"): "INCONCLUSIVE",
    ("pass", "fail"): "FALSE ALARM",
}
NETWORK: dict[str, Any] = {
    "dataset": "digits",
    "data_dir": None,
    "manual_dir": None,
    "hidden": (32, 32),
    "bias": True,
    "init": "glorot",
    "batch_size": 256,
    "epochs": 0,
    "fault": None,
    "x64": True,
}
OTHERS: dict[str, Any] = {
    "target": None,
    "arguments": None,
    "gradient": None,
    "argnums": (0,),
    "self_test": False,
    "list_faults": False,
    "seed": 0,
    "platform": None,
    "directions": 8,
    "tolerance": None,
    "exhaustive": False,
    "control": False,
    "json": None,
}


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Parses the command line; exits with status 2 and one line if it is wrong."""
    parser = cli.Parser(__doc__, argument_default=argparse.SUPPRESS)  # only what is given
    cli.add_data_flags(parser)
    cli.add_network_flags(parser)
    add = parser.add_argument
    add("--batch-size", type=cli.positive_integer, help="images that the loss is taken of (256)")
    add("--epochs", type=cli.natural_number, help="of training with Adam before the audit (0)")
    add("--float32", dest="x64", action="store_false", help="audit a float32 gradient, not float64")
    add("--fault", type=fault, metavar="NAME", help="audit a wrong backward pass instead")
    add("--list-faults", action="store_true", help="say what wrong backward passes there are")
    add("--target", metavar="MODULE:FUNCTION", help="audit a function of yours instead")
    add("--arguments", metavar="MODULE:NAME", help="what to call it with")
    add("--gradient", metavar="MODULE:FUNCTION", help="its gradient; by default jax.grad's")
    add("--argnums", type=indices, help="which arguments to differentiate in: 0 (default) or 0,2")
    add("--self-test", action="store_true", help="plant every fault in turn, and catch it")
    add("--directions", type=cli.positive_integer, help="random directions in every leaf (8)")
    add("--tolerance", type=cli.positive_number, help="relative error that passes")
    add("--exhaustive", action="store_true", help="measure every coordinate")
    add(
        "--control", action="store_true", help="plant an error in every leaf, and see that it shows"
    )
    add("--json", type=Path, help="file to write the report to")
    given = vars(parser.parse_args(argv))
    if "target" in given:
        if "arguments" not in given:
            parser.error("argument --target: needs --arguments")
        refuse(parser, given, NETWORK, "--target")
    elif misplaced := [name for name in TARGET if name in given]:
        parser.error(f"argument --{misplaced[0]}: needs --target")
    if "self_test" in given:
        refuse(parser, given, NETWORK | {"target": None, "exhaustive": False}, "--self-test")
    return argparse.Namespace(**(NETWORK | OTHERS | given))


def refuse(parser: cli.Parser, given: dict[str, Any], names: dict[str, Any], flag: str) -> None:
    """Exits if a flag was given that another makes meaningless."""
    spelling = {"x64": "float32", "bias": "no-bias"}
    for name in names:
        if name in given:
            wrong = spelling.get(name, name).replace("_", "-")
            of_arguments = name == "x64" and flag == "--target"
            why = ", whose dtype is that of its arguments" if of_arguments else ""
            parser.error(f"argument --{wrong}: not allowed with argument {flag}{why}")


def indices(text: str) -> tuple[int, ...]:
    """Parses 0 or 0,2."""
    try:
        return tuple(cli.natural_number(each) for each in text.split(","))
    except argparse.ArgumentTypeError as error:
        message = f"must be the number of an argument, or several, 0,2; got {text!r}"
        raise argparse.ArgumentTypeError(message) from error


def fault(text: str) -> str:
    """Parses the name of a wrong backward pass."""
    if text in faults.CATALOGUE:
        return text
    close = difflib.get_close_matches(text, faults.CATALOGUE, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise argparse.ArgumentTypeError(f"there is no {text!r}{hint} (--list-faults lists them)")


def list_faults() -> None:
    """Prints each fault with the sentence that tells it."""
    network = {name: each.mistake for name, each in faults.CATALOGUE.items()}
    functions = {name: each.wrong for name, each in faults.FUNCTIONS.items()}
    width = max(map(len, network | functions))
    for title, catalogue in (
        ("Wrong backward passes of the network, for --fault:", network),
        ("\nFunctions with a wrong derivative, in --self-test only:", functions),
    ):
        print(title)
        for name, mistake in catalogue.items():
            print(f"  {name:{width}}  {' '.join((mistake.__doc__ or '').split())}".rstrip())


def main(argv: list[str] | None = None) -> int:
    """Runs the script and returns its exit status."""
    flags = parse(argv)
    if flags.list_faults:
        list_faults()
        return 0
    of_network = not (flags.target or flags.self_test)
    cli.select_device(flags.platform, x64=flags.x64 and of_network)
    check_json(flags.json)
    if flags.self_test:
        return self_test(flags)
    report = audit_target(flags) if flags.target else audit_network(flags)
    print(f"\n{report}", *([controls(report)] if flags.control else []), sep="\n", flush=True)
    write_json(flags.json, report.to_dict())
    if report.verdict != "pass":
        raise cli.StopError(cli.describe(report), cli.FAILED)
    return 0


def controls(report: gradcheck.Report) -> str:
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


def audit_network(flags: argparse.Namespace) -> gradcheck.Report:
    """Audits the hand-written gradient, or one with a fault, on real images."""
    try:
        dataset = data.load(
            flags.dataset,
            data_dir=flags.data_dir,
            manual_dir=flags.manual_dir,
        )
        examples = dataset.train
        train.steps_per_epoch(len(examples.inputs), flags.batch_size)
    except ValueError as error:
        raise cli.StopError(error) from error
    init_key, order_key, check_key = keys(flags)
    sizes = (examples.inputs.shape[1], *flags.hidden, examples.targets.shape[1])
    params = mlp.init(init_key, sizes, scheme=flags.init, bias=flags.bias)
    if flags.epochs:
        run = train.fit(
            params,
            examples,
            key=order_key,
            optimizer=train.make_optimizer("adam", 0.01),
            batch_size=min(32, len(examples.inputs)),
            epochs=flags.epochs,
        )
        print(f"training for {flags.epochs} epochs on {dataset.name} ...", flush=True)
        quiet = not sys.stderr.isatty()
        for epoch in tqdm.tqdm(
            run.epochs, total=flags.epochs, unit="epoch", disable=quiet, dynamic_ncols=True
        ):
            params = epoch.state.params

    value_and_grad = faults.CATALOGUE[flags.fault] if flags.fault else backprop.value_and_grad
    inputs, targets = (jnp.asarray(array[: flags.batch_size]) for array in examples)
    print(
        f"{'-'.join(map(str, sizes))} after {flags.epochs} epochs, "
        f"on {flags.batch_size} images of {dataset.name}"
        + (f", with the fault {flags.fault}" if flags.fault else ""),
        flush=True,
    )
    try:
        _, gradient = value_and_grad(params, inputs, targets)
    except ValueError as error:  # a fault that this network cannot have
        raise cli.StopError(error) from error
    try:
        return audit(flags, mlp.loss, (params, inputs, targets), gradient, 0, check_key)
    except (ValueError, TypeError) as error:
        if str(error).startswith("tolerance"):
            raise cli.StopError(error) from error
        # A fault that spoils even the shapes is caught by them.
        raise cli.StopError(f"the gradient does not pass: {error}", cli.FAILED) from error


def audit_target(flags: argparse.Namespace) -> gradcheck.Report:
    """Audits a function that is named on the command line."""
    sys.path.insert(0, os.getcwd())
    target = find("--target", flags.target)
    arguments = find("--arguments", flags.arguments)
    gradient = find("--gradient", flags.gradient) if flags.gradient else None
    for flag, found in (("--target", target), ("--gradient", gradient)):
        if found is not None and not callable(found):
            raise cli.StopError(f"{flag} must name a function, got a {type(found).__name__}")
    if callable(arguments):
        with refusing(f"--arguments {flags.arguments}"):
            arguments = arguments()
    if not isinstance(arguments, tuple):
        raise cli.StopError(
            f"--arguments {flags.arguments} must give a tuple, (x,) for a single argument, "
            f"got {'an array' if hasattr(arguments, 'dtype') else type(arguments).__name__}"
        )
    argnums = flags.argnums if len(flags.argnums) > 1 else flags.argnums[0]
    print(f"{flags.target} at {flags.arguments}", flush=True)
    with refusing(f"--target {flags.target}"):
        return audit(flags, target, arguments, gradient, argnums, keys(flags)[2])


def audit(flags, f, args, gradient, argnums, key) -> gradcheck.Report:
    """Calls the checker with what the flags say."""
    return gradcheck.check(
        f,
        *args,
        gradient=gradient,
        argnums=argnums,
        key=key,
        directions=flags.directions,
        tolerance=flags.tolerance,
        exhaustive=flags.exhaustive,
        control=flags.control,
    )


def self_test(flags: argparse.Namespace) -> int:
    """Plants every fault in turn: each must fail, and what is right must pass."""
    init_key, _, check_key = keys(flags)
    examples = data.load("digits").train
    params = mlp.init(init_key, (64, 32, 32, 10))
    batch = tuple(jnp.asarray(array[: NETWORK["batch_size"]]) for array in examples)
    options = {"directions": flags.directions, "tolerance": flags.tolerance, "control": True}
    network = gradcheck.make_check(mlp.loss, **options)

    def of_network(value_and_grad):
        return network(
            params, *batch, gradient=lambda *args: value_and_grad(*args)[1], key=check_key
        )

    def of_function(f, arguments):
        return gradcheck.check(f, *arguments, key=check_key, **options)

    dtype = jnp.result_type(float)
    trials: list[tuple[str, str, Callable[[], gradcheck.Report]]] = [
        ("the network, by hand", "pass", lambda: of_network(backprop.value_and_grad))
    ]
    for name, fault in faults.CATALOGUE.items():
        trials.append((name, "fail", lambda fault=fault: of_network(fault)))
    for name, pair in faults.FUNCTIONS.items():
        arguments = pair.arguments(check_key, dtype)
        trials.append(
            (f"{name}, right", "pass", lambda p=pair, a=arguments: of_function(p.right, a))
        )
        trials.append((name, "fail", lambda p=pair, a=arguments: of_function(p.wrong, a)))

    rows = []
    layout = f"{{:{max(len(name) for name, *_ in trials)}}}  {{:12}}  {{:20}}  {{}}"
    print(layout.format("fault", "verdict", "leaf", "cause as diagnosed"), flush=True)
    bar = tqdm.tqdm(trials, unit="audit", disable=not sys.stderr.isatty(), dynamic_ncols=True)
    for name, expected, run in bar:
        try:
            report = run()
            verdict, leaf = report.verdict, report.worst.path
            cause = report.worst.diagnosis if verdict != "pass" else ""
        except (ValueError, TypeError) as error:  # of the wrong form: refused at the door
            verdict, leaf, cause = "fail", "", str(error)
        rows.append(
            {
                "name": name,
                "expected": expected,
                "verdict": verdict,
                "leaf": leaf,
                "diagnosis": cause,
            }
        )
        bar.clear()
        shown = leaf if verdict != "pass" else ""
        print(layout.format(name, WORDS[expected, verdict], shown, cause).rstrip(), flush=True)
    write_json(flags.json, {"dtype": str(dtype), "trials": rows})
    wrong = [row["name"] for row in rows if row["verdict"] != row["expected"]]
    caught, passed = (
        [row["verdict"] == expected for row in rows if row["expected"] == expected]
        for expected in ("fail", "pass")
    )
    print(
        f"\n{sum(caught)} of {len(caught)} faults caught; "
        f"{sum(passed)} of {len(passed)} right gradients passed, in {dtype}",
        flush=True,
    )
    if wrong:
        raise cli.StopError(f"not as expected: {', '.join(wrong)}", cli.FAILED)
    return 0


def keys(flags: argparse.Namespace) -> list[jax.Array]:
    """Returns a key for each of what is drawn at random: parameters, order, directions."""
    key = jax.random.key(flags.seed)
    return [jax.random.fold_in(key, purpose) for purpose in range(3)]


def find(flag: str, name: str) -> Any:
    """Returns what ``module:name`` names."""
    module, separator, path = name.partition(":")
    if not separator or not module or not path:
        raise cli.StopError(f"{flag} must be MODULE:NAME, got {name!r}")
    with refusing(f"{flag} {name}"):
        found = importlib.import_module(module)
        for part in path.split("."):
            if not hasattr(found, part):
                raise cli.StopError(f"{flag} {name}: {module} has no {path}")
            found = getattr(found, part)
        return found


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Turns whatever a user's code raises into one line that names it: it is bad input."""
    try:
        yield
    except (cli.StopError, KeyboardInterrupt):
        raise
    except BaseException as error:  # SystemExit too: its status would be taken for a verdict
        reason = [type(error).__name__, *str(error).strip().splitlines()[:1]]
        if isinstance(error, jax.errors.TracerArrayConversionError):
            reason.insert(0, "must be JAX code, of jax.numpy where it calls NumPy")
        raise cli.StopError(f"{what}: {': '.join(reason)}{place_of(error)}") from error


def place_of(error: BaseException) -> str:
    """Returns where in a user's code an exception arose; empty if it did not arise there."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        path = Path(frame.f_code.co_filename).absolute()
        is_ours = frame.f_globals is globals() or any(map(path.is_relative_to, LIBRARIES))
        if path.is_file() and not is_ours:  # what Python has frozen is no file
            shown = os.path.relpath(path) if path.is_relative_to(Path.cwd()) else path
            return f" ({shown}:{line} in {frame.f_code.co_name})"
    return ""


def check_json(path: Path | None) -> None:
    """Proves that the report can be written, before there is one."""
    if path is None:
        return
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        if not path.parent.exists():
            raise FileNotFoundError(f"there is no folder {path.parent}")
        record.check_writable(path.parent)
    except OSError as error:
        raise cli.StopError(
            f"--json {path} cannot be written: {error.strerror or error}"
        ) from error


def write_json(path: Path | None, values: Any) -> None:
    """Writes the report, if that was asked for."""
    if path:
        record.write_json(path, values)


if __name__ == "__main__":
    sys.exit(cli.run("check_gradients.py", main))
