"""The checker's own test: every planted fault must fail, and what is right must pass."""

import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import tqdm

from jaxnet import backprop, data, faults, gradcheck, mlp, text
from jaxnet.cli.common import FAILED, StopError, say

__all__ = ["list_faults", "run_self_test"]

_BATCH = 256
_WORDS = {  # what is said of a verdict, by the one that is expected
    ("fail", "fail"): "caught",
    ("fail", "inconclusive"): "INCONCLUSIVE",
    ("fail", "pass"): "MISSED",
    ("pass", "pass"): "pass",
    ("pass", "inconclusive"): "INCONCLUSIVE",
    ("pass", "fail"): "FALSE ALARM",
}
_Trial = tuple[str, str, Callable[[], gradcheck.Report]]  # name, expected verdict, audit


def list_faults() -> None:
    """Prints each fault with the sentence that describes it."""
    network = {name: each.mistake for name, each in faults.CATALOGUE.items()}
    functions = {name: each.wrong for name, each in faults.FUNCTIONS.items()}
    width = max(map(len, network | functions))
    for title, catalogue in (
        ("Wrong backward passes of the network, for --fault:", network),
        ("\nFunctions with a wrong derivative, in --self-test only:", functions),
    ):
        say(title)
        for name, mistake in catalogue.items():
            say(f"  {name:{width}}  {' '.join((mistake.__doc__ or '').split())}".rstrip())


def run_self_test(
    init_key: jax.Array, check_key: jax.Array, *, directions: int, tolerance: float | None
) -> dict[str, Any]:
    """Plants every fault in turn, prints a line for each, and returns all verdicts.

    Args:
      init_key: draws the network's parameters.
      check_key: draws the directions of audits.
      directions: as in `gradcheck.check`.
      tolerance: as in `gradcheck.check`.
    """
    options = {"directions": directions, "tolerance": tolerance, "control": True}
    trials = [*_of_network(init_key, check_key, options), *_of_functions(check_key, options)]
    rows, width = [], max(len(name) for name, *_ in trials)
    layout = f"{{:{width}}}  {{:12}}  {{:20}}  {{}}"
    say(layout.format("fault", "verdict", "leaf", "cause as diagnosed"))
    bar = tqdm.tqdm(trials, unit="audit", disable=not sys.stderr.isatty(), dynamic_ncols=True)
    for name, expected, audit in bar:
        try:
            report = audit()
            verdict, leaf = report.verdict, report.worst.path
            cause = report.worst.diagnosis if verdict != "pass" else ""
        except (ValueError, TypeError) as error:  # of another structure, shape or dtype
            verdict, leaf, cause = "fail", "", text.first_line(error)
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
        say(layout.format(name, _WORDS[expected, verdict], shown, cause).rstrip())
    return {"dtype": str(jnp.result_type(float)), "trials": rows}


def conclude(found: dict[str, Any]) -> None:
    """Prints how many verdicts are as expected.

    Raises:
      StopError: not all are.
    """
    rows = found["trials"]
    caught, passed = (
        [row["verdict"] == expected for row in rows if row["expected"] == expected]
        for expected in ("fail", "pass")
    )
    say(
        f"\n{sum(caught)} of {len(caught)} faults caught; "
        f"{sum(passed)} of {len(passed)} right gradients passed, in {found['dtype']}"
    )
    if wrong := [row["name"] for row in rows if row["verdict"] != row["expected"]]:
        raise StopError(f"not as expected: {', '.join(wrong)}", FAILED)


def _of_network(init_key: jax.Array, check_key: jax.Array, options: dict) -> list[_Trial]:
    examples = data.load("digits").train
    params = mlp.init(init_key, (64, 32, 32, 10))
    batch = tuple(jnp.asarray(array[:_BATCH]) for array in examples)
    check = gradcheck.make_check(mlp.loss, **options)

    def audit(value_and_grad):
        return check(params, *batch, gradient=lambda *a: value_and_grad(*a)[1], key=check_key)

    right: _Trial = ("the network, by hand", "pass", lambda: audit(backprop.value_and_grad))
    return [
        right,
        *((n, "fail", lambda fault=f: audit(fault)) for n, f in faults.CATALOGUE.items()),
    ]


def _of_functions(key: jax.Array, options: dict) -> list[_Trial]:
    trials: list[_Trial] = []
    for name, pair in faults.FUNCTIONS.items():
        arguments = pair.arguments(key, jnp.result_type(float))

        def audit(f, arguments=arguments):
            return gradcheck.check(f, *arguments, key=key, **options)

        trials.append((f"{name}, right", "pass", lambda f=pair.right, a=audit: a(f)))
        trials.append((name, "fail", lambda f=pair.wrong, a=audit: a(f)))
    return trials
