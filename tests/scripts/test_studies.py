"""The parts of the studies, at small size."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import study
from studies import STUDIES, recipes, tables, tricks
from studies.gradcheck import (
    alarms,
    bfloat16,
    checkers,
    coordinates,
    cost,
    detection,
    functions,
    states,
)
from studies.gradcheck.options import Kept

from jaxnet import backprop, gradcheck, mlp

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True, scope="module")
def _manners_of_users():
    """Lets functions mix dtypes and ranks, as most users' do."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def first_seeds():
    """Returns the first seed of each family of functions."""
    found = {}
    seed = 0
    while len(found) < len(functions.FAMILIES):
        found.setdefault(functions.draw(seed, np.float32).family, seed)
        seed += 1
    return found


def test_every_family_is_drawn_with_a_gradient_that_is_finite_and_not_zero():
    for family, seed in first_seeds().items():
        problem = functions.draw(seed, np.float32)
        again = functions.draw(seed, np.float32)
        assert again.name == problem.name
        jax.tree.map(np.testing.assert_array_equal, again.args, problem.args)
        gradient = jax.jit(jax.grad(problem.f))(*problem.args)
        for leaf in jax.tree.leaves(gradient):
            norm = np.linalg.norm(leaf)
            assert math.isfinite(norm), family
            assert norm > 0, family


def test_float64_functions_need_x64():
    with jax.enable_x64(False), pytest.raises(ValueError, match="needs jax_enable_x64"):
        functions.draw(0, np.float64)


def test_a_right_gradient_of_a_random_function_passes():
    (row,) = alarms.audit([10])
    found = alarms.count_alarms([row])
    assert found["verdicts"]["float64"] == {"pass": 1, "inconclusive": 0, "fail": 0}
    assert found["check_grads"]["functions"] == 1  # seed 10: they are asked of every tenth
    row["float32"] = "fail"
    assert alarms.count_alarms([row])["not passed"] == [row]


def test_check_grads_refuses_a_wrong_gradient():
    args = (jnp.array([0.5, 1.5]), jnp.array([2.0, 3.0]))

    def f(x, weights):
        return jnp.dot(weights, jnp.sin(x))

    def wrong(x, weights):
        return -weights * jnp.cos(x)

    for x64 in (False, True):
        assert checkers.jax_check_grads(f, jax.grad(f), args, x64=x64).passed
        assert checkers.jax_check_grads(f, None, args, x64=x64).passed
        assert not checkers.jax_check_grads(f, wrong, args, x64=x64).passed


@pytest.fixture(scope="module")
def state(digits):
    """A small network after 50 steps."""
    *_, last = states.states(digits, [0], (64, 4, 10), (0, 50))
    return last


def test_states_are_those_of_fifty_steps_of_adam(digits, state):
    inputs, targets = digits.train.inputs, digits.train.targets
    params = mlp.init(jax.random.key(0), (64, 4, 10), scheme=mlp.SCHEMES[-1], dtype=jnp.float32)
    optimizer = optax.adam(1e-3)
    inner = optimizer.init(params)
    rng = np.random.default_rng([0, 1])
    a_pass = len(inputs) // states.BATCH_SIZE
    order = [rng.permutation(len(inputs))[: a_pass * states.BATCH_SIZE] for _ in range(50)]
    for rows in np.reshape(order, (-1, states.BATCH_SIZE))[:50]:
        gradient = jax.grad(mlp.loss)(params, inputs[rows], targets[rows])
        updates, inner = optimizer.update(gradient, inner, params)
        params = optax.apply_updates(params, updates)
    assert state.name == f"{mlp.SCHEMES[-1]}, seed 0, 50 steps"
    assert state.inputs.shape == (states.IMAGES, 64)
    for ours, expected in zip(jax.tree.leaves(state.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(ours, expected, atol=2e-5)


def test_faults_are_detected_and_an_interrupted_measurement_goes_on(digits, tmp_path, monkeypatch):
    def doubled(params, *batch):
        value, gradient = backprop.value_and_grad(params, *batch)
        return value, jax.tree.map(lambda leaf: 2 * leaf, gradient)

    monkeypatch.setattr(detection, "plantable", lambda params: {"doubled": doubled})
    scheme = mlp.SCHEMES[0]
    earlier = {"state": f"{scheme}, seed 0, 0 steps", "fault": "doubled", "size": math.nan}
    earlier |= {"jaxnet": "pass", "jaxnet_s": 1.0, "check_grads float32": "fail"}
    earlier |= {"check_grads float32_s": 1.0, "check_grads float64": "fail"}
    earlier |= {"check_grads float64_s": 1.0}
    Kept(tmp_path, "few").keep(earlier)

    kept = Kept(tmp_path, "few")
    found = detection.detect(digits, kept, [0], sizes=(64, 4, 10), steps=(0,))
    assert len(found["right"]) == len(mlp.SCHEMES)
    assert found["rows"][0] == {**earlier, "size": "nan"}
    assert found["rows"][1]["size"] == pytest.approx(1, rel=1e-3)
    summary = found["summary"]
    assert summary["wrong by 1% of a leaf or more"] == len(mlp.SCHEMES)
    assert summary["jaxnet"]["right that did not pass"] == 0
    assert summary["jaxnet"]["faults that ever passed"] == ["doubled"]  # in the row of before
    assert summary["jaxnet"]["wrong that passed"] == 1
    assert not list(tmp_path.iterdir())


def test_a_wrong_coordinate_is_named(state):
    with_error = checkers.attach(lambda *args: mlp.loss(*args[:3]), coordinates._spoilt)
    checks = {
        "brought along": gradcheck.make_check(with_error),
        "handed over": gradcheck.make_check(mlp.loss),
    }
    rows = coordinates.spoil_each_leaf(checks, state, np.random.default_rng(0))
    assert len(rows) == 8
    for row in rows:
        assert (row["verdict"], row["other leaves"]) == ("fail", ["pass"])
        assert row["named"] == row["coordinate"]
    assert coordinates._summarise(rows)["handed over"]["named"] == 4


def test_bfloat16_gradients_are_told_apart(state):
    audit = gradcheck.make_check(mlp.loss, tolerance=bfloat16.TOLERANCE)
    *wrong, right = bfloat16.audit_state(audit, state)
    assert [row["verdict"] for row in wrong] == ["fail"] * 4
    assert (right["wrong"], right["verdict"]) == (None, "pass")


def test_costs_are_measured(state):
    found = cost.time_exhaustive(state.inputs[:8], state.targets[:8], hidden=1, rounds=1)
    assert found["coordinates"] == 64 + 1 + 10 + 10
    assert len(found["audit, seconds"]) == len(found["loop, seconds, from 2,000 coordinates"]) == 1


def test_recipes_are_compared_on_the_validation_split():
    grids = (("digits", (4,), (0.01, 0.02), (32,), 2),)
    found = recipes.defaults(grids, seeds=2)["recipes"]
    assert [each["learning_rate"] for each in found] == [0.01, 0.02]
    assert all(len(set(each["validation_accuracy"])) == 2 for each in found)
    (fast,) = recipes.fast(((32, 0.01, 2, 0.95),), 1, dataset="digits", hidden=(4,))["recipes"]
    assert fast["beta2"] == 0.95
    assert 0.1 < fast["validation_accuracy"][0] <= 1


@pytest.mark.parametrize(
    ("options", "images"),
    [({"batch_size": 50, "whole": True}, 100), ({"cores": True}, 2_000), ({"floats": True}, 100)],
)
def test_tricks_are_measured_with_and_without(options, images):
    pair = (tricks.Work((784, 4, 10)), tricks.Work((784, 4, 10), **options))
    found = tricks.measure(pair, images, rounds=2)
    assert len(found["with"]) == len(found["without"]) == 6
    medians = np.median(np.reshape([found["with"], found["without"]], (2, 2, 3)), axis=2)
    assert found["times as fast"] == pytest.approx(np.median(medians[1] / medians[0]))


@pytest.mark.parametrize("name", [name for name, pair in tricks.TRICKS.items() if pair[1].replaced])
def test_what_a_trick_replaces_is_used(name):
    _, without = tricks.TRICKS[name]
    module, part, _ = without.replaced

    class Used:
        def _raise(self, *args):
            raise LookupError(part)

        __call__ = __ge__ = __floordiv__ = _raise

    work = without._replace(replaced=(module, part, Used()), batch_size=without.batch_size and 10)
    with pytest.raises(LookupError, match=part):
        tricks._compile(work, *tricks._images(40))


def test_tables_and_measurements_call_tricks_the_same():
    named = [name for _, works in tables._TRICKS.values() for name in works.values()]
    assert sorted(named) == sorted(tricks.TRICKS)


def test_the_study_of_alarms_runs_and_leaves_its_record(run_script, tmp_path):
    flags = ("alarms", "--functions", 1, "--jobs", 1, "--out", tmp_path / "found")
    done = run_script("study.py", "gradcheck", *flags)
    assert (done.returncode, done.stderr) == (0, "")  # no progress bar, as there is no terminal
    found = json.loads((tmp_path / "found" / "alarms.json").read_text())
    assert found["verdicts"]["float64"]["pass"] == 1
    assert [path.name for path in (tmp_path / "found").iterdir()] == ["alarms.json"]


@pytest.mark.parametrize("name", STUDIES)
def test_help_shows_an_example(name, capsys):
    assert study.main([name, "--help"]) == 0
    assert f"\n  python scripts/study.py {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "must be one of gradcheck, exhaustive, recipes, tricks, tables, got nothing"),
        (["sprint"], "must be one of gradcheck, exhaustive, recipes, tricks, tables, got 'sprint'"),
        (["recipes", "slow"], "must be one of defaults, fast, got 'slow'"),
        (["gradcheck", "colours"], "must be one of detection, small,"),
        (["gradcheck", "alarms", "--functions", "0"], "argument --functions: "),
        (["gradcheck", "--out", ""], "argument --out: must not be empty"),
        (["gradcheck", "cost", "--out", "."], "train-images-idx3-ubyte.gz"),
        (["tricks", "--out", "/dev/null/here"], "--out /dev/null/here cannot be written"),
        (["tables", "--quick"], "unrecognized arguments: --quick"),
    ],
)
def test_bad_input_gets_one_line(argv, message, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("JAXNET_MANUAL_DIR", str(tmp_path))
    assert study.main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
