import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import backprop, faults, gradcheck, mlp

DTYPE = jnp.result_type(float)
EPSILON = float(jnp.finfo(DTYPE).eps)


def product(x, y):
    """The lecture's f(x, y) = xy."""
    return x * y


def smooth(tree):
    return sum(jnp.sum(jnp.sin(leaf) * jnp.exp(leaf / 2)) for leaf in jax.tree.leaves(tree))


@pytest.fixture
def tree():
    key = jax.random.key(3)
    return {
        "matrix": jax.random.normal(key, (3, 4), DTYPE),
        "scalar": jnp.asarray(0.7, DTYPE),
        "pair": (jnp.array([10.0, -20.0], DTYPE), jnp.array([0.0], DTYPE)),
    }


@pytest.fixture
def problem(digits):
    """A float64 network of which two layers are square; use it under `jax.enable_x64`."""
    with jax.enable_x64(True):
        params = mlp.init(jax.random.key(0), (64, 16, 16, 10))
        arrays = (jnp.asarray(np.asarray(array[:40], np.float64)) for array in digits.train)
        yield params, *arrays


@pytest.mark.parametrize("scheme", ["central", "forward"])
def test_derivatives_of_the_lectures_product(scheme):
    x, y = jnp.asarray(5.0, DTYPE), jnp.asarray(-2.0, DTYPE)
    along_x = gradcheck.finite_difference(product, x, y, scheme=scheme)
    along_y = gradcheck.finite_difference(product, x, y, argnums=1, scheme=scheme)
    # Linear in each, so that nothing is truncated: round-off, eps |f| / h, is all there is.
    bar = 4 * EPSILON * 10 / gradcheck.default_step(DTYPE, scheme)
    assert float(along_x) == pytest.approx(-2, abs=bar)
    assert float(along_y) == pytest.approx(5, abs=bar)


@pytest.mark.parametrize(("scheme", "power"), [("central", 2 / 3), ("forward", 1 / 2)])
def test_differences_of_a_tree(tree, scheme, power):
    estimate = gradcheck.finite_difference(smooth, tree, scheme=scheme)
    gradient = jax.grad(smooth)(tree)
    assert jax.tree.structure(estimate) == jax.tree.structure(tree)
    for ours, theirs in zip(jax.tree.leaves(estimate), jax.tree.leaves(gradient), strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
    scale = max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(gradient))
    # The step scales with coordinates up to 20, so the error may be 20 times h's power.
    bar = 100 * EPSILON**power * scale
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=bar, rtol=0), estimate, gradient
    )


@pytest.mark.parametrize(("scheme", "order"), [("forward", 1), ("central", 2)])
def test_order_of_convergence_is_the_slides(scheme, order):
    """O(h) and O(h^2): in float64, ten times the step makes 10 and 100 times the error."""
    with jax.enable_x64(True):
        x = jnp.asarray(0.3)
        errors = [
            abs(
                float(gradcheck.finite_difference(jnp.exp, x, scheme=scheme, step=h))
                - math.exp(0.3)
            )
            for h in (1e-2, 1e-3)
        ]
    assert math.log10(errors[0] / errors[1]) == pytest.approx(order, abs=0.01)


@pytest.mark.parametrize("scheme", ["central", "forward"])
def test_default_step_is_near_the_best(scheme):
    """For exp near 0, where f and its derivatives are 1, far smaller or larger steps are worse."""
    with jax.enable_x64(True):
        xs = jnp.linspace(-0.1, 0.1, 201)

        def error(step):
            def difference(x):
                return gradcheck.finite_difference(jnp.exp, x, scheme=scheme, step=step)

            return float(jnp.linalg.norm(jax.vmap(difference)(xs) - jnp.exp(xs)))

        best = gradcheck.default_step(np.float64, scheme)
        assert error(best) < 0.2 * error(100 * best)
        assert error(best) < 0.2 * error(best / 100)


def test_chosen_coordinates_are_those_of_the_full_estimate(tree):
    coordinates = gradcheck.sample_coordinates(jax.random.key(0), tree, 5)
    sizes = jax.tree.map(len, coordinates)
    assert sizes == {"matrix": 5, "scalar": 1, "pair": (2, 1)}
    some = gradcheck.finite_difference_at(smooth, coordinates, tree)
    full = gradcheck.finite_difference(smooth, tree)
    jax.tree.map(
        lambda few, at, all_: np.testing.assert_allclose(few, np.ravel(all_)[at], rtol=1e-5),
        some,
        coordinates,
        full,
    )


def test_sampled_coordinates_are_distinct_and_follow_the_key(tree):
    first = gradcheck.sample_coordinates(jax.random.key(0), tree, 8)["matrix"]
    again = gradcheck.sample_coordinates(jax.random.key(0), tree, 8)["matrix"]
    other = gradcheck.sample_coordinates(jax.random.key(1), tree, 8)["matrix"]
    assert len(set(first.tolist())) == 8
    assert set(first.tolist()) <= set(range(12))
    np.testing.assert_array_equal(first, again)
    assert first.tolist() != other.tolist()
    with pytest.raises(ValueError, match="count must be 1 or more, got 0"):
        gradcheck.sample_coordinates(jax.random.key(0), tree, 0)


def test_blocks_do_not_change_the_estimate(tree, monkeypatch):
    whole = gradcheck.finite_difference(smooth, tree)
    monkeypatch.setattr("jaxnet.gradcheck.differences._BLOCK_ELEMENTS", 40)
    blocks = gradcheck.finite_difference(smooth, tree)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), whole, blocks)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda f, x: gradcheck.finite_difference(f, x, scheme="left"), ValueError, "got 'left'"),
        (lambda f, x: gradcheck.finite_difference(f, x, step=0.0), ValueError, "got 0.0"),
        (lambda f, x: gradcheck.finite_difference(f, x, step=math.nan), ValueError, "got nan"),
        (
            lambda f, x: gradcheck.finite_difference(f, x, argnums=1),
            ValueError,
            "from 0 to 0, got 1",
        ),
        (lambda f, x: gradcheck.finite_difference(jnp.sin, x), ValueError, "scalar, got"),
        (lambda f, x: gradcheck.finite_difference(lambda x: (f(x),), x), ValueError, "scalar, got"),
        (
            lambda f, x: gradcheck.finite_difference(lambda x: f(x) > 0, x),
            TypeError,
            "real floating-point number, got bool",
        ),
        (
            lambda f, x: gradcheck.finite_difference(f, {"n": jnp.arange(3)}),
            TypeError,
            r"args\[0\]\['n'\] must be floating-point, got int",
        ),
        (
            lambda f, x: gradcheck.finite_difference(f, [x, x[:0]]),
            ValueError,
            r"args\[0\]\[1\] must not be empty, got shape \(0,\)",
        ),
        (lambda f, x: gradcheck.finite_difference(f, ()), ValueError, "must hold arrays, got none"),
        (lambda f, x: gradcheck.check(jnp.sin, x), ValueError, "scalar, got"),
        (lambda f, x: gradcheck.check(lambda x: f(x) > 0, x), TypeError, "got bool"),
        (lambda f, x: gradcheck.check(f, x, samples=0), ValueError, "count must be 1 or more"),
        (lambda f, x: gradcheck.check(f, x, tolerance=0.0), ValueError, "positive, got 0.0"),
        (lambda f, x: gradcheck.check(f, x, argnums=2), ValueError, "from 0 to 0, got 2"),
        (
            lambda f, x: gradcheck.check(f, x, gradient=x[:2]),
            ValueError,
            r"gradient must have shape \(3,\), got \(2,\)",
        ),
        (
            lambda f, x: gradcheck.check(f, x, gradient=(x, x)),
            ValueError,
            "structure of its argument",
        ),
        (
            lambda f, x: gradcheck.check(f, x, gradient=x.astype(jnp.float16)),
            TypeError,
            r"gradient must have dtype float\d\d, got float16",
        ),
    ],
)
def test_bad_calls_say_what_was_expected_and_what_came(call, error, message):
    with pytest.raises(error, match=message):
        call(smooth, jnp.ones(3, DTYPE))


def test_right_gradients_pass(tree):
    for gradient in (None, jax.grad(smooth), jax.grad(smooth)(tree)):
        report = gradcheck.check(smooth, tree, gradient=gradient)
        assert report.verdict == "pass"
        report.raise_if_failed()


def test_differences_are_taken_in_float64_and_the_configuration_is_left_alone():
    x = jax.random.normal(jax.random.key(0), (50,), jnp.float32)
    before = jnp.result_type(float)
    report = gradcheck.check(smooth, x)
    # In float32, differences would be off by eps^(2/3), 2e-5; what is left is the gradient's own.
    assert report.leaves[0].difference_error < 2e-6
    assert report.dtype == "float32"
    assert jnp.result_type(float) == before


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_gradients_in_16_bits_pass(dtype):
    x = jax.random.normal(jax.random.key(0), (50,)).astype(dtype)
    report = gradcheck.check(smooth, x)
    assert report.verdict == "pass"
    assert gradcheck.check(smooth, x, gradient=1.2 * jax.grad(smooth)(x)).verdict == "fail"


@pytest.mark.parametrize("leaf", ["matrix", "scalar", "pair"])
@pytest.mark.parametrize("change", [lambda g: g * 1.01, lambda g: -g, lambda g: g * jnp.nan])
def test_a_wrong_leaf_fails_and_is_named(tree, leaf, change):
    gradient = jax.grad(smooth)(tree)
    gradient[leaf] = jax.tree.map(change, gradient[leaf])
    report = gradcheck.check(smooth, tree, gradient=gradient)
    assert report.verdict == "fail"
    assert {each.verdict for each in report.leaves if leaf not in each.path} == {"pass"}
    assert {each.verdict for each in report.leaves if leaf in each.path} == {"fail"}
    with pytest.raises(gradcheck.GradientError, match=leaf):
        report.raise_if_failed()


def test_one_wrong_coordinate_fails_although_differences_may_miss_it():
    x = jax.random.normal(jax.random.key(0), (10_000,), DTYPE)
    gradient = jax.grad(smooth)(x)
    wrong = gradient.at[4321].add(0.1 * jnp.linalg.norm(gradient))
    assert gradcheck.check(smooth, x, gradient=wrong).verdict == "fail"


def test_a_wrong_custom_vjp_fails_by_differences_alone():
    """jax.grad itself is wrong here, so that only the function's values can tell."""

    @jax.custom_vjp
    def square(x):
        return jnp.sum(x**2)

    square.defvjp(lambda x: (square(x), x), lambda x, cotangent: (cotangent * x,))
    report = gradcheck.check(square, jnp.arange(1.0, 4.0, dtype=DTYPE))
    assert report.verdict == "fail"
    assert report.leaves[0].difference_error == pytest.approx(0.5, abs=1e-6)
    assert report.leaves[0].autodiff_error is None


def test_a_function_that_drowns_its_gradient_is_inconclusive():
    """1e12 + x: the differences see nothing, and the verdict does not pretend that they do."""
    with jax.enable_x64(True):
        report = gradcheck.check(lambda x: 1e12 + jnp.sum(x), jnp.ones(3))
        assert report.verdict == "inconclusive"
        with pytest.raises(gradcheck.GradientError, match="inconclusive"):
            report.raise_if_failed()


def test_an_unused_argument_passes_with_a_gradient_of_zero_only():
    def f(tree):
        return jnp.sum(tree["used"] ** 2)

    tree = {"unused": jnp.ones(3, DTYPE), "used": jnp.ones(3, DTYPE)}
    assert gradcheck.check(f, tree).verdict == "pass"
    wrong = {"unused": jnp.full(3, 1e-3, DTYPE), "used": 2 * tree["used"]}
    assert gradcheck.check(f, tree, gradient=wrong).verdict == "fail"


def test_report_is_a_table_and_json(tree):
    report = gradcheck.check(smooth, tree, gradient=jax.grad(smooth))
    text = str(report)
    for leaf in report.leaves:
        assert leaf.path in text
    assert text.splitlines()[-1].startswith("pass: float")
    assert json.loads(report.to_json()) == json.loads(json.dumps(report.to_dict()))
    assert json.loads(report.to_json())["verdict"] == "pass"


def test_the_exchangeable_backward_pass_is_right_before_it_is_spoilt(problem):
    value, gradient = faults._hand_written(*problem)
    expected_value, expected = backprop.value_and_grad(*problem)
    assert float(value) == pytest.approx(float(expected_value), rel=1e-14)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11), gradient, expected)


@pytest.mark.parametrize("name", [name for name in faults.CATALOGUE if name != "bias-not-summed"])
def test_every_planted_fault_fails(problem, name):
    def gradient(*args):
        return faults.CATALOGUE[name](*args)[1]

    report = gradcheck.check(mlp.loss, *problem, gradient=gradient)
    assert report.verdict == "fail"
    # A fault of one leaf is seen in that leaf; one that passes through the layers, below it.
    failed = {leaf.path for leaf in report.leaves if leaf.verdict == "fail"}
    expected = {
        "zero-leaf": {"[0].weight"},
        "bias-of-one-example": {"[0].bias", "[1].bias", "[2].bias"},
        "hidden-sigmoid": {"[0].weight", "[0].bias", "[1].weight", "[1].bias"},
        "transposed-weight": {"[0].weight", "[0].bias"},
    }
    assert failed == expected.get(name, {leaf.path for leaf in report.leaves})


def test_a_bias_left_per_example_is_refused(problem):
    def gradient(*args):
        return faults.CATALOGUE["bias-not-summed"](*args)[1]

    message = r"gradient\[0\]\.bias must have shape \(16,\), got \(40, 16\)"
    with pytest.raises(ValueError, match=message):
        gradcheck.check(mlp.loss, *problem, gradient=gradient)


def test_faults_that_a_network_cannot_have_are_refused(problem):
    params, inputs, targets = problem
    without_biases = tuple(layer._replace(bias=None) for layer in params)
    with pytest.raises(ValueError, match="needs a network that has them"):
        faults.CATALOGUE["bias-not-summed"](without_biases, inputs, targets)
    params = mlp.init(jax.random.key(0), (64, 16, 10))
    with pytest.raises(ValueError, match="needs a square layer"):
        faults.CATALOGUE["transposed-weight"](params, inputs, targets)


def test_a_function_that_changes_its_meaning_is_asked_anew():
    scale = 2.0

    def f(x):
        return scale * jnp.sum(x)

    x = jnp.ones(3, DTYPE)
    assert gradcheck.check(f, x).verdict == "pass"
    scale = 3.0
    assert gradcheck.check(f, x).verdict == "pass"
    np.testing.assert_allclose(gradcheck.finite_difference(f, x), 3, rtol=1e-2)


def random_inside(x):
    return jnp.sum(x * jax.random.normal(jax.random.key(0), x.shape).astype(x.dtype))


def narrow_inside(x):
    return jnp.sum(jnp.sin(x).astype(jnp.float32))


@pytest.mark.parametrize(
    ("f", "x"),
    [
        pytest.param(lambda x: jnp.sum((x - 1) ** 2), 1.0, id="minimum"),
        pytest.param(lambda x: jnp.sum(x**3), 0.0, id="flat"),
        pytest.param(lambda x: jnp.sum(jnp.sin(1e6 * x)), 1e-6, id="faster than the step"),
        pytest.param(narrow_inside, 0.5, id="float32 inside"),
    ],
)
def test_right_gradients_that_differences_cannot_see_do_not_fail(f, x):
    assert gradcheck.check(f, jnp.full(3, x, DTYPE)).verdict in ("pass", "inconclusive")


@pytest.mark.skipif(jnp.float64 == DTYPE, reason="float64 draws the same numbers again")
def test_a_function_that_is_another_in_float64_is_inconclusive():
    report = gradcheck.check(random_inside, jnp.ones(3, DTYPE))
    assert report.verdict == "inconclusive"
    assert "random numbers drawn inside f differ" in str(report)


def test_a_gradient_may_be_a_callable_pytree():
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass
    class Module:
        weight: jax.Array

        def __call__(self, inputs):
            return self.weight @ inputs

    module = Module(jnp.arange(3.0, dtype=DTYPE))

    def f(module, inputs):
        return module(inputs) ** 2

    args = (module, jnp.ones(3, DTYPE))
    assert gradcheck.check(f, *args, gradient=jax.grad(f)(*args)).verdict == "pass"


def test_nan_is_the_worst_leaf_and_json_knows_it(tree):
    gradient = jax.grad(smooth)(tree)
    gradient["matrix"] = 2 * gradient["matrix"]
    gradient["scalar"] = gradient["scalar"] * jnp.nan
    report = gradcheck.check(smooth, tree, gradient=gradient)
    assert report.worst.path == "['scalar']"
    values = json.loads(report.to_json(), parse_constant=pytest.fail)
    assert [leaf["difference_error"] for leaf in values["leaves"]].count("nan") == 1


@pytest.mark.parametrize(
    ("coordinates", "message"),
    [
        (np.array([3]), "coordinates must be from 0 to 2, got 3"),
        (np.array([[0, 1]]), r"\(k,\) integers, got int64 of shape \(1, 2\)"),
        (np.array([0.5]), r"\(k,\) integers, got float64"),
        (np.array([], int), r"\(k,\) integers, got int64 of shape \(0,\)"),
        ((np.array([0]),), "structure of their argument"),
    ],
)
def test_coordinates_that_are_not_there_are_refused(coordinates, message):
    with pytest.raises(ValueError, match=message):
        gradcheck.finite_difference_at(smooth, coordinates, jnp.ones(3, DTYPE))


def test_faults_that_cannot_show_are_refused(problem):
    params, inputs, targets = problem
    with pytest.raises(ValueError, match="needs two examples, got 1"):
        faults.CATALOGUE["bias-of-one-example"](params, inputs[:1], targets[:1])
    with pytest.raises(ValueError, match="hidden layers needs one, got none"):
        faults.CATALOGUE["hidden-sigmoid"](mlp.init(jax.random.key(0), (64, 10)), inputs, targets)


def test_a_function_that_is_nan_is_never_passed():
    x = jnp.full(3, -1.0, DTYPE)
    assert gradcheck.check(lambda x: jnp.sum(jnp.log(x)), x).verdict == "inconclusive"
    assert (
        gradcheck.check(lambda x: jnp.sum(jnp.sqrt(x)), x).verdict == "fail"
    )  # its gradient is NaN
