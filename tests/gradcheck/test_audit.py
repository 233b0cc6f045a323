import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import backprop, faults, gradcheck, mlp

from .common import DTYPE, smooth


@pytest.fixture(scope="module")
def audit_network():
    """Audits gradients of the network's loss; compiled once for all tests."""
    return gradcheck.make_check(mlp.loss, control=True)


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


@pytest.mark.parametrize("name", [name for name, fault in faults.CATALOGUE.items() if fault.fits])
def test_every_planted_fault_fails_where_it_is(problem, audit_network, name):
    fault = faults.CATALOGUE[name]
    with jax.enable_x64(True):
        report = audit_network(*problem, gradient=lambda *args: fault(*args)[1])
    assert report.verdict == "fail"
    failed = {leaf.path for leaf in report.leaves if leaf.verdict == "fail"}
    assert failed <= {f"params{path}" for path in fault.wrong_leaves(problem[0])}
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
