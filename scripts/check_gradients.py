"""Compares three gradients of the network, leaf by leaf: by hand, by jax.grad and by differences.

  python scripts/check_gradients.py                          64-32-32-10 on the embedded digits
  python scripts/check_gradients.py --dataset mnist --hidden 256,128 --epochs 3
  python scripts/check_gradients.py --fault hidden-sigmoid   a wrong backward pass, to see it caught

Exit status: 0 if they agree, 1 if not or if differences cannot tell, 2 for bad input.
"""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C among the imports ends without a traceback

import argparse
import sys
from pathlib import Path

import cli
import jax

from jaxnet import backprop, data, faults, gradcheck, mlp, record, train


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Parses the command line; exits with status 2 and one line if it is wrong."""
    parser = cli.Parser(__doc__)
    cli.add_data_flags(parser)
    cli.add_network_flags(parser)
    add = parser.add_argument
    add("--batch-size", type=cli.positive_integer, help="images that the loss is taken of (256)")
    add("--epochs", type=cli.natural_number, help="of training with Adam before the check (0)")
    add("--float32", dest="x64", action="store_false", help="check float32 gradients, not float64")
    add("--samples", type=cli.positive_integer, help="coordinates of a leaf for differences (64)")
    add("--tolerance", type=cli.positive_number, help="relative error that passes")
    add("--fault", choices=tuple(faults.CATALOGUE), help="check a wrong backward pass instead")
    add("--json", type=Path, help="file to write the report to")
    parser.set_defaults(
        dataset="digits",
        hidden=(32, 32),
        init="glorot",
        seed=0,
        batch_size=256,
        epochs=0,
        samples=64,
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Runs the script and returns its exit status."""
    flags = parse(argv)
    cli.select_device(flags.platform, x64=flags.x64)
    try:
        dataset = data.load(
            flags.dataset,
            data_dir=flags.data_dir,
            manual_dir=flags.manual_dir,
        )
        examples = dataset.train
        train.steps_per_epoch(len(examples.inputs), flags.batch_size)
        if flags.json:
            if flags.json.is_dir():
                raise IsADirectoryError("it is a folder")
            record.check_writable(flags.json.parent)
    except ValueError as error:
        raise cli.StopError(error) from error
    except OSError as error:
        raise cli.StopError(
            f"--json {flags.json} cannot be written: {error.strerror or error}"
        ) from error

    key = jax.random.key(flags.seed)
    init_key, order_key, check_key = (jax.random.fold_in(key, purpose) for purpose in range(3))
    sizes = (examples.inputs.shape[1], *flags.hidden, examples.targets.shape[1])
    params = mlp.init(init_key, sizes, scheme=flags.init, bias=flags.bias)
    if flags.epochs:
        batch_size = min(32, len(examples.inputs))
        optimizer = train.make_optimizer("adam", 0.01)
        run = train.fit(
            params,
            examples,
            key=order_key,
            optimizer=optimizer,
            batch_size=batch_size,
            epochs=flags.epochs,
        )
        for epoch in run.epochs:
            params = epoch.state.params

    value_and_grad = faults.CATALOGUE[flags.fault] if flags.fault else backprop.value_and_grad
    inputs, targets = (array[: flags.batch_size] for array in examples)
    print(
        f"{'-'.join(map(str, sizes))} after {flags.epochs} epochs, "
        f"on {flags.batch_size} images of {dataset.name}"
        + (f", with the fault {flags.fault}" if flags.fault else "")
    )
    try:
        _, gradient = value_and_grad(params, inputs, targets)
    except ValueError as error:  # a fault that this network cannot have
        raise cli.StopError(error) from error
    try:
        report = gradcheck.check(
            mlp.loss,
            params,
            inputs,
            targets,
            gradient=gradient,
            key=check_key,
            samples=flags.samples,
            tolerance=flags.tolerance,
        )
    except (ValueError, TypeError) as error:  # a gradient that is not even of the right form
        raise cli.StopError(error, cli.FAILED) from error
    print(f"\n{report}")
    if flags.json:
        flags.json.parent.mkdir(parents=True, exist_ok=True)
        record.write_json(flags.json, report.to_dict())
    try:
        report.raise_if_failed()
    except gradcheck.GradientError as error:
        raise cli.StopError(str(error).splitlines()[0], cli.FAILED) from error
    return 0


if __name__ == "__main__":
    sys.exit(cli.run("check_gradients.py", main))
