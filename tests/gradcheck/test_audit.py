import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import backprop, faults, gradcheck, mlp
from jaxnet.gradcheck import changes
from jaxnet.gradcheck.thresholds import Thresholds

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


@pytest.fixture(scope="module")
def problem(digits):
    """A float64 network of which two layers are square; use it under `jax.enable_x64`."""
    with jax.enable_x64(True):
        params = mlp.init(jax.random.key(0), (64, 16, 16, 10))
        arrays = (jnp.asarray(np.asarray(array[:40], np.float64)) for array in digits.train)
        return params, *arrays


@pytest.fixture(scope="module")
def audit_network():
    """Audits gradients of the network's loss; compiled once for all tests."""
    return gradcheck.make_check(mlp.loss, control=True)


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
    monkeypatch.setattr(changes, "THRESHOLDS", Thresholds(change_elements=40))
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
        (lambda f, x: gradcheck.check(f, x, directions=0), ValueError, "1 or more, got 0"),
        (lambda f, x: gradcheck.check(f, x, tolerance=0.0), ValueError, "positive, got 0.0"),
        (
            lambda f, x: gradcheck.check(f, x, tolerance=1e-17),
            ValueError,
            r"tolerance must be .* or more, which is what float\d\d resolves, got 1e-17",
        ),
        (lambda f, x: gradcheck.check(f, x, argnums=2), ValueError, "from 0 to 0, got 2"),
        (lambda f, x: gradcheck.check(f, x, argnums=(0, 3)), ValueError, r"got \(0, 3\)"),
        (lambda f, x: gradcheck.check(f, x, argnums=0.5), TypeError, "must be integers, got 0.5"),
        (
            lambda f, x: gradcheck.check(f, {"n": jnp.arange(3), "x": x}),
            TypeError,
            r"tree\['n'\] must be floating-point or complex to be differentiated, got int",
        ),
        (lambda f, x: gradcheck.check(f, [x, x[:0]]), ValueError, r"tree\[1\] must not be empty"),
        (lambda f, x: gradcheck.check(f, ()), ValueError, "tree must hold arrays, got none"),
        (lambda f, x: gradcheck.check(f, "x"), TypeError, "tree must be an array, .*, got str"),
        (
            lambda f, x: gradcheck.check(f, [x, x.at[1].set(jnp.nan)]),
            ValueError,
            r"tree\[1\]\[1\] must be finite, got nan",
        ),
        (
            lambda f, x: gradcheck.check(lambda x: f(x) / 0, x),
            ValueError,
            "f must be finite where its gradient is checked, got inf",
        ),
        (
            lambda f, x: gradcheck.check(f, x, gradient=x[:2]),
            ValueError,
            r"gradient in tree must have shape \(3,\), got \(2,\)",
        ),
        (
            lambda f, x: gradcheck.check(f, x, gradient=np.zeros(3, jax.dtypes.float0)),
            TypeError,
            "got float0, JAX's zero in integers",
        ),
        (
            lambda f, x: gradcheck.check(f, [x, x], gradient=[x, None]),
            ValueError,
            "structure of its argument",
        ),
        (
            lambda f, x: gradcheck.check(f, x, gradient=(x, x)),
            ValueError,
            "structure of its argument",
        ),
        (
            lambda f, x: gradcheck.check(f, x, gradient=x.astype(jnp.float16)),
            TypeError,
            r"gradient in tree must have dtype float\d\d, got float16",
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
    (leaf,) = report.leaves
    assert leaf.interval.high < 2e-6
    assert leaf.bar < 1e-9
    assert (report.dtype, report.reference) == ("float32", "float64")
    assert jnp.result_type(float) == before


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_gradients_in_16_bits_pass(dtype):
    x = jax.random.normal(jax.random.key(0), (50,)).astype(dtype)
    report = gradcheck.check(smooth, x)
    assert report.verdict == "pass"
    assert report.tolerance == 0.02
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


def test_one_wrong_coordinate_fails():
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
    (leaf,) = report.leaves
    assert leaf.error == pytest.approx(0.5, abs=1e-6)
    assert leaf.diagnosis == "a factor of 1/2"
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
    assert text.splitlines()[-1].startswith("pass: gradient in float")
    assert json.loads(report.to_json()) == json.loads(json.dumps(report.to_dict()))
    assert json.loads(report.to_json())["verdict"] == "pass"


@pytest.mark.parametrize("name", [name for name, fault in faults.CATALOGUE.items() if fault.fits])
def test_every_planted_fault_fails_where_it_is(problem, audit_network, name):
    fault = faults.CATALOGUE[name]
    with jax.enable_x64(True):
        report = audit_network(*problem, gradient=lambda *args: fault(*args)[1])
    assert report.verdict == "fail"
    failed = {leaf.path for leaf in report.leaves if leaf.verdict == "fail"}
    assert failed <= {f"params{path}" for path in fault.spoilt(problem[0])}
    others = {leaf.path for leaf in report.leaves if leaf.verdict == "pass"}
    assert others | failed == {leaf.path for leaf in report.leaves}


def test_the_right_gradient_passes_and_its_controls_are_seen(problem, audit_network):
    with jax.enable_x64(True):
        report = audit_network(*problem, gradient=lambda *args: backprop.value_and_grad(*args)[1])
    assert report.verdict == "pass"
    for leaf in report.leaves:
        assert leaf.control is True
        assert leaf.autodiff_error is not None
        assert leaf.autodiff_error < 1e-13
        assert leaf.interval.high < 1e-7
        assert leaf.miss < 1e-12


@pytest.mark.parametrize("name", [n for n, fault in faults.CATALOGUE.items() if not fault.fits])
def test_a_gradient_of_the_wrong_form_is_refused(problem, audit_network, name):
    with (
        jax.enable_x64(True),
        pytest.raises(
            ValueError, match=r"gradient in params\[0\]\.bias must have shape \(16,\), got"
        ),
    ):
        audit_network(*problem, gradient=faults.CATALOGUE[name](*problem)[1])


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
def test_a_function_that_is_another_in_float64_is_measured_in_its_own_dtype():
    x = jnp.linspace(1, 2, 40, dtype=DTYPE)
    report = gradcheck.check(random_inside, x)
    assert report.verdict == "pass"
    assert report.reference == "float32"
    assert "f draws other random numbers in float64" in str(report)
    wrong = 1.02 * jax.grad(random_inside)(x)
    assert gradcheck.check(random_inside, x, gradient=wrong).verdict == "fail"


@pytest.mark.skipif(jnp.float64 == DTYPE, reason="float64 is what it is about")
def test_a_function_that_refuses_float64_is_measured_in_its_own_dtype():
    def f(x):
        carry, _ = jax.lax.scan(lambda c, x: (c + jnp.sin(x), None), np.float32(0), x)
        return carry

    x = jnp.linspace(0, 1, 20, dtype=DTYPE)
    report = gradcheck.check(f, x)
    assert (report.verdict, report.reference) == ("pass", "float32")
    assert "f does not take float64" in str(report)
    assert gradcheck.check(f, x, gradient=1.02 * jax.grad(f)(x)).verdict == "fail"


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
    assert report.worst.path == "tree['scalar']"
    values = json.loads(report.to_json(), parse_constant=pytest.fail)
    assert [leaf["error"] for leaf in values["leaves"]].count("nan") == 1


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


def test_a_gradient_that_is_nan_fails_and_its_place_is_named():
    x = jnp.array([1.0, 0.0, 2.0], DTYPE)
    report = gradcheck.check(lambda x: jnp.sum(jnp.where(x > 0, jnp.sqrt(x), 0.0 * x)), x)
    assert report.verdict == "fail"
    (leaf,) = report.leaves
    assert leaf.diagnosis.startswith("NaN in 1 of 3 places, first at x[1]")


def test_one_wrong_coordinate_of_a_thousandth_is_found_and_named_in_float64():
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (300, 200))
        gradient = jax.grad(smooth)(x)
        wrong = gradient.at[123, 45].add(1e-3 * jnp.linalg.norm(gradient))
        report = gradcheck.check(smooth, x, gradient=wrong)
    (leaf,) = report.leaves
    assert leaf.verdict == "fail"
    assert (leaf.location.off, leaf.location.of) == (1, 60_000)
    assert leaf.location.worst[0].path == "tree[123, 45]"
    with pytest.raises(gradcheck.GradientError, match=r"worst at tree\[123, 45\]"):
        report.raise_if_failed()


def wrong_rule(change):
    """Returns `smooth` with a backward rule whose result is changed: jax.grad has nothing right."""

    @jax.custom_vjp
    def f(x):
        return smooth(x)

    f.defvjp(lambda x: (f(x), x), lambda x, cotangent: (change(cotangent * jax.grad(smooth)(x)),))
    return f


def test_group_testing_finds_coordinates_where_jax_has_none_right():
    places = [(3, 7), (77, 99), (78, 0)]

    def change(gradient):
        for place in places:
            gradient = gradient.at[place].add(0.1 * jnp.linalg.norm(gradient))
        return gradient

    x = jax.random.normal(jax.random.key(1), (100, 100), DTYPE)
    (leaf,) = gradcheck.check(wrong_rule(change), x).leaves
    assert leaf.verdict == "fail"
    assert leaf.location.is_counted
    assert leaf.location.off == 3
    assert {each.path for each in leaf.location.worst} == {f"x[{i}, {j}]" for i, j in places}
    for each in leaf.location.worst:
        assert abs(each.given - each.numerical) > 10 * each.bar


def test_group_testing_estimates_how_many_where_they_are_many():
    x = jax.random.normal(jax.random.key(1), (100, 100), DTYPE)
    half = jnp.arange(100)[:, None] < 50
    (leaf,) = gradcheck.check(wrong_rule(lambda g: jnp.where(half, 1.5 * g, g)), x).leaves
    assert leaf.verdict == "fail"
    assert not leaf.location.is_counted
    assert 2_000 < leaf.location.off < 8_000
    assert int(leaf.location.worst[0].path[2:-1].split(",")[0]) < 50


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda g: -g, "the sign"),
        (lambda g: 0 * g, "zero: the gradient is stopped"),
        (lambda g: g / 2, "a factor of 1/2"),
        (lambda g: g * 24, "a factor of 24, the length of an axis"),
        (lambda g: g / 24, "a factor of 1/24, the length of an axis"),
        (lambda g: 1.3 * g, "a factor of 1.3"),
        (lambda g: g.T, "transposed"),
        (lambda g: g.at[5].multiply(3), "only row 5 is off"),
        (lambda g: g.at[:, 3].set(0), "only column 3 is zero"),
        (lambda g: g + 1, "a constant too many, 1"),
        (lambda g: jnp.clip(g, -2, 2), "clipped at 2"),
        (lambda g: jnp.where(g > 0, g, 0), "zero where it should not be: a mask"),
        (lambda g: g.at[5, 3].set(jnp.inf), "infinite in 1 of 576 places, first at tree[5, 3]"),
    ],
)
def test_diagnosis(audit_smooth, change, words):
    x = jax.random.normal(jax.random.key(0), (24, 24), DTYPE)
    report = audit_smooth(x, gradient=change(jax.grad(smooth)(x)))
    assert report.verdict == "fail"
    assert words in report.leaves[0].diagnosis
    assert words in str(report)


def test_diagnosis_of_a_weight_decay(audit_smooth):
    x = jax.random.normal(jax.random.key(0), (24, 24), DTYPE)
    report = audit_smooth(x, gradient=jax.grad(smooth)(x) + 0.1 * x)
    assert "a term too many, 0.1 times the argument" in report.leaves[0].diagnosis


@pytest.fixture(scope="module")
def audit_smooth():
    return gradcheck.make_check(smooth)


def test_a_factor_is_named_without_a_right_gradient():
    x = jax.random.normal(jax.random.key(1), (100, 100), DTYPE)
    (leaf,) = gradcheck.check(wrong_rule(lambda g: -g), x).leaves
    assert leaf.diagnosis.startswith("the sign")
    assert leaf.error == pytest.approx(2, rel=1e-3)


def test_a_kink_is_inconclusive_and_named():
    x = jnp.array([0.0, 1.0, 2.0], DTYPE)
    (leaf,) = gradcheck.check(lambda x: jnp.sum(jnp.abs(x)), x).leaves
    assert leaf.verdict == "inconclusive"
    assert leaf.diagnosis == "a kink: the slopes on its two sides differ by 2"
    # Between the two slopes any will do, outside of them none.
    assert gradcheck.check(lambda x: jnp.sum(jnp.abs(x)), x, gradient=x + 5).verdict == "fail"


def test_a_function_that_is_not_deterministic_is_inconclusive_and_named():
    generator = np.random.default_rng(0)

    def noisy(x):
        shape = jax.ShapeDtypeStruct((), x.dtype)
        noise = jax.pure_callback(lambda: np.asarray(generator.normal(), x.dtype), shape)
        return smooth(x) + jax.lax.stop_gradient(noise)

    report = gradcheck.check(noisy, jnp.ones(30, DTYPE))
    assert report.verdict == "inconclusive"
    assert "f is not deterministic" in str(report)


def test_an_argument_that_is_not_used_is_named():
    def f(tree):
        return jnp.sum(tree["used"] ** 2)

    report = gradcheck.check(f, {"unused": jnp.ones(30, DTYPE), "used": jnp.ones(3, DTYPE)})
    assert [leaf.diagnosis for leaf in report.leaves] == [
        "zero: f is constant around it, to its last digit",
        "",
    ]


def test_several_arguments_at_once():
    def f(x, n, y):
        return jnp.sum(x**n) * jnp.sin(y)

    args = (jnp.arange(1.0, 4.0, dtype=DTYPE), 3, jnp.asarray(0.5, DTYPE))
    report = gradcheck.check(f, *args, argnums=(0, 2))
    assert report.verdict == "pass"
    assert [leaf.path for leaf in report.leaves] == ["x", "y"]
    gradient = jax.grad(f, (0, 2))(*args)
    assert gradcheck.check(f, *args, argnums=(0, 2), gradient=gradient).verdict == "pass"
    gradient = (gradient[0], 2 * gradient[1])
    assert gradcheck.check(f, *args, argnums=(0, 2), gradient=gradient).worst.path == "y"


def test_complex_arguments():
    dtype = jnp.result_type(complex)
    z = jax.random.normal(jax.random.key(0), (30,), dtype)
    unit = jnp.asarray(1 + 2j, dtype)

    def f(z):
        return jnp.sum(jnp.abs(jnp.sin(z * unit)) ** 2)

    assert gradcheck.check(f, z).verdict == "pass"
    report = gradcheck.check(f, z, gradient=jnp.conj(jax.grad(f)(z)))
    assert report.verdict == "fail"
    assert ".imag" in report.leaves[0].location.worst[0].path


def test_a_gradient_that_only_rounding_spoils_is_not_called_wrong():
    """In float32 the sum loses its last digits; the formula is right, and the report says so."""
    x = jnp.linspace(1, 2, 50, dtype=jnp.float32)

    def f(x):
        big = x * x.dtype.type(1e5)
        return jnp.sum(jnp.sin(big - x * x.dtype.type(99_999)) * x)

    report = gradcheck.check(f, x)
    assert report.verdict == "inconclusive"
    assert "right in float64; rounding in float32" in str(report)


@pytest.mark.parametrize("has_grad", [True, False])
@pytest.mark.parametrize("wrong", [False, True])
def test_exhaustive_audits_rely_on_differences_at_every_coordinate(wrong, has_grad):
    x = {"matrix": jax.random.normal(jax.random.key(0), (7, 9), DTYPE), "v": jnp.ones(3, DTYPE)}
    gradient = jax.grad(smooth)(x)
    if wrong:
        gradient["matrix"] = gradient["matrix"].at[6, 8].multiply(1.1)
    f = smooth if has_grad else without_gradient(smooth)
    audit = gradcheck.make_check(f, exhaustive=True, control=True)
    report = audit(x, gradient=gradient)
    assert report.verdict == ("fail" if wrong else "pass")
    if wrong:
        (worst,) = report.leaves[0].location.worst
        assert worst.path == "tree['matrix'][6, 8]" if has_grad else "args[0]['matrix'][6, 8]"
        assert worst.given == pytest.approx(1.1 * worst.numerical, rel=1e-5)
    else:
        # Directions alone would leave an error as large as the tolerance a chance.
        assert all(leaf.interval.high < leaf.tolerance / 10 for leaf in report.leaves)
        assert all(leaf.miss < 1e-12 and leaf.control for leaf in report.leaves)


def without_gradient(f):
    """Returns f with a derivative that raises: differences have to do without `jax.grad`."""
    wrapped = jax.custom_vjp(f)

    def forward(*args):
        raise NotImplementedError("no derivative")

    wrapped.defvjp(forward, lambda *args: None)
    return lambda *args: wrapped(*args)


def test_an_exhaustive_audit_of_what_cannot_be_vectorised():
    @jax.custom_vjp
    def f(x):
        shape = jax.ShapeDtypeStruct((), x.dtype)
        return jax.pure_callback(
            lambda x: np.sum(np.sin(x), dtype=x.dtype), shape, x, vmap_method=None
        )

    f.defvjp(lambda x: (f(x), x), lambda x, cotangent: (cotangent * jnp.cos(x),))
    x = jnp.linspace(0, 1, 20, dtype=DTYPE)
    report = gradcheck.check(f, x, exhaustive=True)
    assert report.verdict == "pass"
    wrong = jnp.cos(x).at[7].add(1)
    report = gradcheck.check(f, x, gradient=wrong, exhaustive=True)
    assert report.verdict == "fail"
    assert report.leaves[0].location.worst[0].path == "x[7]"


def test_an_audit_compiles_once():
    compiled = []

    def f(x):
        compiled.append(x.dtype)
        return smooth(x)

    audit = gradcheck.make_check(f)
    x = jnp.ones(100, DTYPE)
    assert audit(x).verdict == "pass"
    before = len(compiled)
    assert audit(x + 1, key=jax.random.key(1)).verdict == "pass"
    # Asked for the form of its result, which compiles nothing.
    assert len(compiled) <= before + 1


def test_directions_follow_the_key():
    x = jnp.ones(100, DTYPE)
    audit = gradcheck.make_check(smooth)
    one, again, other = (audit(x, key=jax.random.key(seed)) for seed in (1, 1, 2))
    assert one == again
    assert one.leaves[0].slopes != other.leaves[0].slopes
    assert len(one.leaves[0].slopes) == 8


def test_several_gradients_at_one_point_are_measured_once():
    calls = []

    def counted(x):
        jax.debug.callback(lambda: calls.append(1))
        return smooth(x)

    audit = gradcheck.make_check(counted)
    x = jnp.ones(100, DTYPE)
    assert audit(x, gradient=jax.grad(smooth)(x)).verdict == "pass"
    first = len(calls)
    assert audit(x, gradient=jax.grad(smooth)).verdict == "pass"
    assert len(calls) == first
    assert audit(x, gradient=jax.grad(smooth)(2 * x)).verdict == "fail"
    assert audit(jnp.array(x), gradient=jax.grad(smooth)(x)).verdict == "pass"
    assert len(calls) > 1.5 * first
    mutable = np.ones(100, DTYPE)
    assert audit(mutable, gradient=jax.grad(smooth)(x)).verdict == "pass"
    mutable *= 2
    assert audit(mutable, gradient=jax.grad(smooth)(2 * x)).verdict == "pass"


def test_convergence_has_the_slides_orders_and_the_models_best_steps(problem):
    with jax.enable_x64(True):
        found = gradcheck.convergence(mlp.loss, *problem, leaf=2)
    assert found.path == "params[1].weight"
    assert found.forward.slope == pytest.approx(1, abs=0.02)
    assert found.central.slope == pytest.approx(2, abs=0.04)
    for curve in (found.forward, found.central):
        assert 1 / 3 < curve.best / curve.predicted < 3
        assert curve.errors.min() < 1e-6


class Settings:
    """What is hashable by its identity only."""

    power = 2


def steered(x, mode, n, flag, activation, nothing, settings, key, rate):
    """Python looks at all that is no array; an array of integers and a key are arrays."""
    assert nothing is None
    y = activation(x) if mode == "smooth" and flag is True else x
    for _ in range(n):
        y = y * rate.astype(x.dtype) if hasattr(rate, "dtype") else y * rate
    noise = jax.random.bernoulli(key, 0.5, x.shape).astype(x.dtype)
    return jnp.sum(y ** settings["of"].power * (1 + noise))


def steering():
    return ("smooth", 3, True, jnp.sin, None, {"of": Settings()}, jax.random.key(3), 0.5)


def test_arguments_that_are_no_arrays_reach_the_function_as_they_are():
    x = jnp.linspace(0.5, 1, 5, dtype=DTYPE)
    report = gradcheck.check(steered, x, *steering())
    assert report.verdict == "pass"
    assert report.leaves[0].path == "x"
    called = []

    def gradient(*args):
        called.append(args)
        return 1.1 * jax.grad(steered)(*args)

    others = steering()
    assert gradcheck.check(steered, x, *others, gradient=gradient).verdict == "fail"
    assert all(ours is theirs for ours, theirs in zip(called[0][1:], others, strict=True))
    estimate = gradcheck.finite_difference(steered, x, *others)
    np.testing.assert_allclose(estimate, jax.grad(steered)(x, *others), rtol=1e-2)


def test_static_arguments_of_a_compiled_function():
    f = jax.jit(lambda x, n: jnp.sum(x**n if n > 2 else x), static_argnums=1)
    x = jnp.linspace(0.5, 1, 5, dtype=DTYPE)
    report = gradcheck.check(f, x, 3)
    assert (report.verdict, report.leaves[0].path) == ("pass", "x")
    with jax.enable_x64(True):
        found = gradcheck.convergence(f, jnp.linspace(0.5, 1, 5), np.int64(3))
    assert found.central.slope == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("wrap", [lambda n: n, lambda n: [n, {n}]], ids=["hashable", "not"])
def test_programs_are_kept_while_what_is_no_array_is_the_same(wrap):
    traced = []

    def f(x, n):
        traced.append(n)
        return jnp.sum(jnp.sin(x) ** (n if isinstance(n, int) else n[0]))

    audit = gradcheck.make_check(f)
    x = jnp.linspace(0.5, 1, 20, dtype=DTYPE)
    assert audit(x, wrap(2)).verdict == "pass"
    first = len(traced)
    assert audit(x, wrap(3)).verdict == "pass"
    second = len(traced) - first
    assert second > 1
    assert audit(x + 1, wrap(2)).verdict == "pass"
    # Asked for the form of its result, which compiles nothing.
    assert (len(traced) - first - second <= 1) == isinstance(wrap(2), int)
    assert audit(x, wrap(1)).leaves[0].norm != audit(x, wrap(3)).leaves[0].norm


def test_true_is_not_one():
    def f(x, n):
        return jnp.sum(x) * (2.0 if n is True else 1.0)

    audit = gradcheck.make_check(f)
    x = jnp.ones(4, DTYPE)
    assert audit(x, 1).leaves[0].norm == pytest.approx(2)
    assert audit(x, True).leaves[0].norm == pytest.approx(4)


def test_several_gradients_are_measured_once_beside_what_is_no_array():
    calls = []

    def counted(x, mode):
        jax.debug.callback(lambda: calls.append(1))
        return smooth(x) if mode == "smooth" else jnp.sum(x)

    audit = gradcheck.make_check(counted)
    x = jnp.ones(100, DTYPE)
    assert audit(x, "smooth", gradient=jax.grad(smooth)(x)).verdict == "pass"
    first = len(calls)
    assert audit(x, "smooth", gradient=2 * jax.grad(smooth)(x)).verdict == "fail"
    assert len(calls) < 1.5 * first


def test_a_constant_of_python_is_a_scalar():
    x = jnp.ones(30, DTYPE)
    assert gradcheck.check(lambda x: 1.0, x).verdict == "pass"
    assert gradcheck.check(lambda x: 1.0, x, gradient=x).verdict == "fail"
    assert not np.any(gradcheck.finite_difference(lambda x: 1.0, x))


def test_a_float_of_python_is_an_argument():
    assert gradcheck.check(lambda x: x**2, 3.0).verdict == "pass"


def with_tracer(transform, of_gradient=False):
    def call(x):
        def audited(y):
            point, gradient = (x, y) if of_gradient else (y, None)
            return gradcheck.check(smooth, point, gradient=gradient).leaves[0].norm

        return transform(audited)(x)

    return call


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: gradcheck.check(lambda x: 1, x), TypeError, "floating-point number, got int"),
        (lambda x: gradcheck.check(lambda x: "1", x), TypeError, "must return arrays, got str"),
        (lambda x: gradcheck.check(lambda x: None, x), ValueError, "scalar, got None"),
        (
            lambda x: gradcheck.check(product, x, x, argnums=(0, 0)),
            ValueError,
            r"argnums must be distinct, got \(0, 0\)",
        ),
        (
            lambda x: gradcheck.check(product, x, x, argnums=(0, -1)),
            ValueError,
            r"argnums must be from 0 to 1, got \(0, -1\)",
        ),
        (with_tracer(jax.jit), TypeError, "tree must be of concrete arrays, got a tracer: audit"),
        (with_tracer(jax.grad), TypeError, "got a tracer: audit outside of jit"),
        (with_tracer(jax.vmap), TypeError, "got a tracer: audit outside of jit"),
        (with_tracer(jax.grad, of_gradient=True), TypeError, "the gradient must be of concrete"),
        (
            lambda x: jax.jit(lambda y: gradcheck.check(product, x, y))(x),
            TypeError,
            "y must be of concrete arrays",
        ),
        (
            lambda x: gradcheck.check(smooth, {"a": x, "b": x.astype(jnp.float8_e4m3fn)}),
            TypeError,
            r"tree\['b'\] must have 16 bits or more to be audited, got float8_e4m3fn",
        ),
        (
            lambda x: gradcheck.check(smooth, np.ones(3, np.longdouble)),
            TypeError,
            "tree must be an array, of a dtype of JAX, got (float128|longdouble|float96)",
        ),
        (
            lambda x: gradcheck.check(smooth, x, directions=2.5),
            TypeError,
            "directions must be an integer, got 2.5",
        ),
        (
            lambda x: gradcheck.check(smooth, x, directions=True),
            TypeError,
            "directions must be an integer, got True",
        ),
        (lambda x: gradcheck.check(smooth, x, key=3), TypeError, "key must be a key .*, got int"),
        (
            lambda x: gradcheck.check(smooth, x, key=jnp.ones(2, DTYPE)),
            TypeError,
            "key must be a key of jax.random, got float",
        ),
        (
            lambda x: gradcheck.check(smooth, x, tolerance=math.inf),
            ValueError,
            "tolerance must be below 1, at which 0 passes, got inf",
        ),
        (lambda x: gradcheck.check(smooth, x, tolerance=1.0), ValueError, "below 1, .*, got 1.0"),
        (lambda x: gradcheck.check(smooth, x, tolerance=math.nan), ValueError, "positive, got nan"),
    ],
)
def test_what_no_audit_can_take_is_refused_at_the_door(call, error, message):
    with pytest.raises(error, match=message):
        call(jnp.ones(3, DTYPE))


def test_keys_of_both_kinds_draw_directions():
    x = jnp.ones(30, DTYPE)
    new, old = jax.random.key(1), jax.random.PRNGKey(1)
    assert gradcheck.check(smooth, x, key=new) == gradcheck.check(smooth, x, key=old)


def test_the_form_of_a_call_is_told_in_words():
    with pytest.raises(ValueError, match="must be given the arguments where it is to be audited"):
        gradcheck.check(smooth)
    with pytest.raises(ValueError, match=r"must return a scalar, got an array of shape \(3,\)"):
        gradcheck.check(jnp.sin, jnp.ones(3, DTYPE))
    with pytest.raises(ValueError, match=r"must return a scalar, got \('float\d\d\[\]', 'float"):
        gradcheck.check(lambda x: (x, x), jnp.ones((), DTYPE))


def test_kink_next_to_a_minimum_is_neither_failed_nor_passed():
    with jax.enable_x64(True):
        here = jnp.linspace(-1.0, 1.0, 12)

        def loss(x):
            bowl = 100 * jnp.sum((x - here) ** 2) + 0.01 * jnp.sum(x)
            return bowl + 3e-6 * jax.nn.relu(x[3] - here[3] - 1e-8)

        right = jax.grad(loss)(here)
        wrong = right.at[3].add(1.5e-6)  # 4e-5 of the norm, where 1e-5 is tolerated
        assert gradcheck.check(loss, here).verdict != "fail"
        assert gradcheck.check(loss, here, gradient=wrong).verdict != "pass"
