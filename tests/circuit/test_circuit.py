import collections

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend import core

from jaxnet import backprop, circuit, gradcheck, mlp
from jaxnet.circuit import ADD, EXP, MULTIPLY, RECIPROCAL, SIGMOID, scale, shift


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


# --- The slides' circuits -------------------------------------------------------------------------

COMPOUND = circuit.build(["x", "y", "z"], ("q", ADD, "x", "y"), ("f", MULTIPLY, "q", "z"))
DOT = (
    ("w1x1", MULTIPLY, "w1", "x1"),
    ("w2x2", MULTIPLY, "w2", "x2"),
    ("sum", ADD, "w1x1", "w2x2"),
    ("s", ADD, "sum", "w0"),
)
WIRES = ["w0", "w1", "x1", "w2", "x2"]
NEURON = circuit.build(
    WIRES,
    *DOT,
    ("-s", scale(-1), "s"),
    ("e", EXP, "-s"),
    ("1 + e", shift(1), "e"),
    ("f", RECIPROCAL, "1 + e"),
)
FOLDED = circuit.build(WIRES, *DOT, ("f", SIGMOID, "s"))
POINT = {"w0": -3.0, "w1": 2.0, "x1": -1.0, "w2": -3.0, "x2": -2.0}


def test_compound_expression_is_the_slides(x64):
    values = circuit.forward(COMPOUND, {"x": -2, "y": 5, "z": -4})
    assert {name: float(value) for name, value in values.items()} == {
        "x": -2,
        "y": 5,
        "z": -4,
        "q": 3,
        "f": -12,
    }
    gradients = circuit.backward(COMPOUND, values)
    assert {name: float(value) for name, value in gradients.items()} == {
        "x": -4,
        "y": -4,
        "z": 3,
        "q": -4,
        "f": 1,
    }


@pytest.mark.parametrize("neuron", [NEURON, FOLDED])
def test_sigmoid_neuron_is_the_slides_exactly(neuron, x64):
    trace = circuit.run(neuron, POINT)
    sigmoid = 1 / (1 + np.exp(-1.0))
    slope = sigmoid * (1 - sigmoid)
    np.testing.assert_allclose(trace.value, sigmoid, rtol=1e-15)
    expected = {"w1": -1, "x1": 2, "w2": -2, "x2": -3, "w0": 1}
    for name, factor in expected.items():
        np.testing.assert_allclose(trace.gradient[name], factor * slope, rtol=1e-12)
    rounded = [round(float(trace.gradient[name]), 4) for name in expected]
    assert rounded == [-0.1966, 0.3932, -0.3932, -0.5898, 0.1966]


def test_slides_digits_come_from_rounding_at_every_gate(x64):
    trace = circuit.run(NEURON, POINT, decimals=2)
    shown = {name: (float(wire.value), float(wire.gradient)) for name, wire in trace.wires.items()}
    assert shown == {
        "w0": (-3.0, 0.2),
        "w1": (2.0, -0.2),
        "x1": (-1.0, 0.4),
        "w2": (-3.0, -0.4),
        "x2": (-2.0, -0.6),
        "w1x1": (-2.0, 0.2),
        "w2x2": (6.0, 0.2),
        "sum": (4.0, 0.2),
        "s": (1.0, 0.2),
        "-s": (-1.0, -0.2),
        "e": (0.37, -0.53),
        "1 + e": (1.37, -0.53),
        "f": (0.73, 1.0),
    }


@pytest.mark.parametrize("made", [COMPOUND, NEURON, FOLDED])
def test_backward_agrees_with_jax_and_with_differences(made, x64):
    inputs = {
        name: jnp.array(value)
        for name, value in zip(made.inputs, (0.3, -1.2, 0.7, 2.1, -0.4), strict=False)
    }
    ours = circuit.run(made, inputs).gradient
    theirs = jax.grad(lambda inputs: made(**inputs))(inputs)
    report = gradcheck.check(lambda inputs: made(**inputs), inputs, gradient=ours)
    assert report.verdict == "pass", str(report)
    for name in made.inputs:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-12)


@pytest.mark.parametrize("gate", [ADD, MULTIPLY, RECIPROCAL, EXP, SIGMOID, scale(-3), shift(2)])
def test_local_derivatives_are_those_of_the_gates(gate, x64):
    inputs = [jnp.array(0.7), jnp.array(-1.3)]
    if gate not in (ADD, MULTIPLY):
        inputs = inputs[:1]
    local = gate.local(gate.forward(*inputs), *inputs)
    expected = jax.grad(gate.forward, tuple(range(len(inputs))))(*inputs)
    np.testing.assert_allclose(local, expected, rtol=1e-12)


def test_what_comes_back_on_several_ways_is_added(x64):
    square = circuit.build(["x"], ("y", MULTIPLY, "x", "x"), ("f", ADD, "y", "x"))
    assert circuit.run(square, {"x": 5}).gradient == {"x": 11}


@pytest.mark.parametrize(
    ("inputs", "nodes", "message"),
    [
        ([], [], "must have a gate"),
        (["x", "x"], [("f", EXP, "x")], "used once, got 'x' twice"),
        (["x"], [("x", EXP, "x")], "used once, got 'x' twice"),
        (["x"], [("f", EXP, "y")], "'f' needs a wire 'y', got only x"),
        (["x"], [("f", ADD, "x")], r"\+ has 2 inputs, got 1"),
    ],
)
def test_circuit_that_does_not_fit_is_refused(inputs, nodes, message):
    with pytest.raises(ValueError, match=message):
        circuit.build(inputs, *nodes)


def test_node_of_another_form_is_refused():
    with pytest.raises(TypeError, match="must be a tuple"):
        circuit.build(["x"], ("f", "exp", "x"))


@pytest.mark.parametrize("inputs", [{}, {"x": 1, "y": 2}, {"x": 1, "y": 2, "z": 3, "t": 4}])
def test_missing_or_unknown_inputs_are_named(inputs):
    with pytest.raises(ValueError, match="inputs are x, y, z, got"):
        circuit.forward(COMPOUND, inputs)


def test_inputs_of_several_shapes_are_refused():
    with pytest.raises(ValueError, match="must be of one shape"):
        circuit.run(COMPOUND, {"x": jnp.arange(3.0), "y": 2.0, "z": 1.0})


def test_text_shows_each_gate_with_value_and_gradient(x64):
    lines = str(circuit.run(COMPOUND, {"x": -2, "y": 5, "z": -4})).splitlines()
    assert lines[-2:] == ["q     + x y  3      -4", "f     * q z  -12    1"]


# --- Any function ---------------------------------------------------------------------------------

UNARY = {
    "sin": jnp.sin,
    "cos": jnp.cos,
    "tan": lambda x: jnp.tan(jnp.tanh(x)),
    "tanh": jnp.tanh,
    "asin": lambda x: jnp.arcsin(0.9 * jnp.sin(x)),
    "acos": lambda x: jnp.arccos(0.9 * jnp.sin(x)),
    "atan": jnp.arctan,
    "sinh": lambda x: jnp.sinh(jnp.sin(x)),
    "cosh": lambda x: jnp.cosh(jnp.sin(x)),
    "asinh": jnp.arcsinh,
    "acosh": lambda x: jnp.arccosh(1.5 + x**2),
    "atanh": lambda x: jnp.arctanh(0.9 * jnp.sin(x)),
    "exp": lambda x: jnp.exp(jnp.sin(x)),
    "exp2": lambda x: jnp.exp2(jnp.sin(x)),
    "expm1": lambda x: jnp.expm1(jnp.sin(x)),
    "log": lambda x: jnp.log(1.1 + jnp.sin(x)),
    "log1p": lambda x: jnp.log1p(x**2),
    "sqrt": lambda x: jnp.sqrt(0.5 + x**2),
    "rsqrt": lambda x: lax.rsqrt(0.5 + x**2),
    "cbrt": lambda x: jnp.cbrt(0.5 + x**2),
    "logistic": jax.nn.sigmoid,
    "erf": lax.erf,
    "erfc": lax.erfc,
    "erf_inv": lambda x: lax.erf_inv(0.9 * jnp.sin(x)),
    "lgamma": lambda x: lax.lgamma(0.5 + x**2),
    "digamma": lambda x: lax.digamma(0.5 + x**2),
    "abs": jnp.abs,
    "sign": lambda x: x * jnp.sign(x),
    "floor": lambda x: x + jnp.floor(x),
    "neg": lambda x: -x,
    "square": lax.square,
    "cumsum": jnp.cumsum,
    "cumprod": lambda x: jnp.cumprod(jnp.sin(x)),
    "cummax": lax.cummax,
    "cumlogsumexp": lax.cumlogsumexp,
    "sort": jnp.sort,
    "rev": lambda x: x[::-1],
    "transpose": lambda x: (x[:, None] * jnp.ones((1, 2), x.dtype)).T.sum(axis=0),
    "concatenate": lambda x: jnp.concatenate([x[1:], x[:1]]),
    "pad": lambda x: jnp.pad(x, 1)[:3],
    "gather": lambda x: x[jnp.array([2, 0, 2])],
    "scatter-add": lambda x: x.at[jnp.array([0, 0])].add(x[1:]),
    "dynamic_slice": lambda x: lax.dynamic_slice(jnp.tile(x, 2), (1,), (3,)),
    "clamp": lambda x: lax.clamp(jnp.array(-0.8, x.dtype), x, jnp.array(0.8, x.dtype)),
    "softmax": jax.nn.softmax,
    "logsumexp": lambda x: x - jax.nn.logsumexp(x),
    "norm": lambda x: x / jnp.sqrt(1 + jnp.vdot(x, x)),
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "scan": lambda x: lax.scan(lambda c, v: (jnp.sin(c * v), c + v), x[0], x)[1],
    "reverse scan": lambda x: lax.scan(lambda c, v: (c + v, c * v), x[1], x, reverse=True)[1],
    "cond": lambda x: lax.cond(x[0] > 0, jnp.sin, lambda x: x**3, x),
    "switch": lambda x: lax.switch(jnp.argmax(x), [jnp.cos, jnp.tanh, lambda x: x**2], x),
    "checkpoint": jax.checkpoint(lambda x: jnp.sin(jnp.cos(x))),
    "jit": jax.jit(lambda x: x * jnp.tanh(x)),
    "vmap": jax.vmap(lambda x: lax.cond(x > 0, jnp.sin, jnp.cos, x)),
}
BINARY = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / (1 + y**2),
    "pow": lambda x, y: (0.5 + x**2) ** jnp.sin(y),
    "max": jnp.maximum,
    "min": jnp.minimum,
    "atan2": jnp.arctan2,
    "rem": lambda x, y: x + lax.rem(x, 1.5 + y**2),
    "where": lambda x, y: jnp.where(x > y, x, jnp.sin(y)),
    "outer": lambda x, y: jnp.outer(x, y) @ x,
    "logaddexp": jnp.logaddexp,
}
REDUCTIONS = {
    "sum": jnp.sum,
    "max": jnp.max,
    "min": jnp.min,
    "prod": jnp.prod,
    "norm": lambda x: jnp.sqrt(jnp.sum(x**2) + 1e-3),
}
OPERATIONS = st.one_of(
    st.tuples(st.sampled_from(sorted(UNARY)), st.integers(0, 9)),
    st.tuples(st.sampled_from(sorted(BINARY)), st.integers(0, 9), st.integers(0, 9)),
)
NUMBERS = st.integers(-200, 200).map(lambda n: n / 100 + 0.003)


def compose(operations, reduction):
    """Returns the function of two vectors that applies operations to what there is."""

    def f(x, y):
        known = [x, y]
        for name, *at in operations:
            operands = [known[i % len(known)] for i in at]
            known.append((UNARY if len(at) == 1 else BINARY)[name](*operands))
        # Earlier ones too: what goes to several gates comes back on several ways.
        return REDUCTIONS[reduction](known[-1]) + 0.1 * jnp.sum(jnp.sin(known[len(known) // 2]))

    return f


def primitives(jaxpr):
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for each in jax.tree.leaves(
            list(equation.params.values()),
            is_leaf=lambda leaf: isinstance(leaf, core.Jaxpr | core.ClosedJaxpr),
        ):
            if isinstance(each, core.Jaxpr | core.ClosedJaxpr):
                yield from primitives(getattr(each, "jaxpr", each))


@pytest.mark.parametrize("examples", [60, pytest.param(300, marks=pytest.mark.slow)])
def test_gradients_of_random_functions_are_jax_grads(x64, examples):
    met, worst = collections.Counter(), []

    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(
        st.lists(OPERATIONS, min_size=1, max_size=6),
        st.sampled_from(sorted(REDUCTIONS)),
        st.lists(NUMBERS, min_size=6, max_size=6, unique=True),
    )
    def check(operations, reduction, numbers):
        f = compose(operations, reduction)
        x, y = jnp.array(numbers[:3]), jnp.array(numbers[3:])
        trace = circuit.trace(f, argnums=(0, 1))(x, y)
        right = jax.grad(f, argnums=(0, 1))(x, y)
        met.update(set(primitives(jax.make_jaxpr(f)(x, y).jaxpr)))
        ours, theirs = (np.concatenate(each) for each in (trace.gradient, right))
        np.testing.assert_allclose(trace.value, f(x, y), rtol=1e-12)
        if np.isfinite(theirs).all():
            worst.append(np.linalg.norm(ours - theirs) / max(np.linalg.norm(theirs), 1e-300))
            assert worst[-1] <= 1e-12

    check()
    print(f"{len(worst)} functions of {len(met)} primitives, worst {max(worst):.1e}")
    assert len(worst) >= 0.95 * examples
    assert len(met) >= 40


@pytest.mark.parametrize("loss", [mlp.loss, backprop.loss])
def test_networks_gradient_is_jax_grads(loss, x64):
    params = mlp.init(jax.random.key(0), (5, 4, 3))
    inputs = jax.random.uniform(jax.random.key(1), (6, 5))
    targets = jax.nn.one_hot(jnp.arange(6) % 3, 3)
    trace = circuit.trace(loss)(params, inputs, targets)
    right = jax.grad(loss)(params, inputs, targets)
    for ours, theirs in zip(jax.tree.leaves(trace.gradient), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert trace.inputs[0] == "params[0].weight"


def test_boxes_open_down_to_the_last_gate(x64):
    trace = circuit.trace(mlp.loss)(
        mlp.init(jax.random.key(0), (5, 3)), jnp.ones((2, 5)), jnp.ones((2, 3))
    )
    (loss,) = trace.boxes
    assert loss.name == "loss"
    names = [box.name for box in loss.inside.boxes]
    assert names[:4] == ["@", "broadcast_in_dim", "+", "σ"]
    assert "σ" in str(trace)


def test_last_turn_of_a_loop_can_be_seen(x64):
    def f(x):
        return lax.scan(lambda c, v: (c * v, None), x, jnp.array([2.0, 3.0, 5.0]))[0]

    (scan,) = circuit.trace(f)(jnp.array(7.0)).boxes
    turn = scan.inside
    assert scan.name == "scan of 3"
    assert [float(turn.wires[name].value) for name in turn.inputs] == [42, 5]
    assert float(turn.wires[turn.inputs[0]].gradient) == 5


def test_wrong_custom_vjp_shows_outside_what_it_says_and_inside_what_its_gates_say(x64):
    @jax.custom_vjp
    def square(x):
        return x**2

    square.defvjp(lambda x: (x**2, x), lambda x, g: (g * x,))  # the factor 2 is missing
    trace = circuit.trace(square)(jnp.array(3.0))
    assert trace.gradient == 3
    assert trace.boxes[0].inside.wires["x"].gradient == 6


def test_rule_that_stands_for_what_has_none_is_followed(x64):
    @jax.custom_vjp
    def double(x):
        return lax.while_loop(lambda y: y < 2 * x, lambda y: y + x, 0 * x)

    double.defvjp(lambda x: (double(x), None), lambda _, g: (2 * g,))
    trace = circuit.trace(lambda x: jnp.sin(double(x)))(jnp.array(1.5))
    np.testing.assert_allclose(trace.gradient, 2 * np.cos(3.0), rtol=1e-12)
    assert trace.boxes[0].inside is None


def test_donated_arguments_can_still_be_looked_at():
    double = jax.jit(lambda y: y * 2, donate_argnums=0)
    trace = circuit.trace(lambda x: jnp.sum(double(x * 3)))(jnp.ones(3))
    np.testing.assert_array_equal(trace.gradient, [6, 6, 6])
    str(trace)


def test_names_that_meet_are_told_apart():
    def f(args, *rest):
        return args[1] ** 2 + 3 * rest[0]

    args = ([jnp.array(1.0), jnp.array(2.0)], jnp.array(5.0))
    trace = circuit.trace(f, argnums=(0, 1))(*args)
    assert trace.gradient == jax.grad(f, argnums=(0, 1))(*args)


def test_constant_result_is_a_value():
    trace = circuit.trace(lambda x: jnp.sum(jnp.ones(2, x.dtype)))(jnp.ones(()))
    assert trace.value == 2
    assert trace.gradient == 0


def test_what_a_function_says_of_its_arguments_is_passed_on():
    params = mlp.init(jax.random.key(0), (5, 3))
    with pytest.raises(ValueError, match="inputs must have shape"):
        circuit.trace(mlp.loss)(params, jnp.ones((2, 4)), jnp.ones((2, 3)))


def test_what_is_not_differentiated_may_be_anything():
    def f(x, index, key):
        return x[index] * jax.random.normal(key, (), x.dtype)

    args = jnp.ones(3), jnp.array(1), jax.random.key(0)
    trace = circuit.trace(f)(*args)
    np.testing.assert_array_equal(trace.gradient, jax.grad(f)(*args))
    str(trace)


def test_closed_over_array_is_a_constant():
    matrix = jnp.arange(6.0).reshape(2, 3)
    trace = circuit.trace(lambda x: jnp.sum(matrix @ x))(jnp.ones(3))
    np.testing.assert_array_equal(trace.gradient, [3, 5, 7])
    assert "[2×3]" in str(trace)


@pytest.mark.parametrize(
    ("f", "arg", "error", "message"),
    [
        (lambda x: x * jnp.ones(3), 1.0, ValueError, r"must return a scalar, got shape \(3,\)"),
        (lambda x: (x, x), 1.0, ValueError, "must return a scalar, got 2 results"),
        (lambda x: jnp.argmax(x), jnp.ones(3), TypeError, "floating-point scalar, got int"),
        (lambda x: float(x), 1.0, TypeError, "that JAX can trace, got: Abstract tracer"),
        (lambda x: jnp.sin(x), 1, TypeError, "must be floating-point to be differentiated"),
        (
            lambda x: lax.while_loop(lambda x: x < 9, lambda x: 2 * x, x),
            1.0,
            NotImplementedError,
            "while has no gradient",
        ),
    ],
)
def test_bad_input_gets_one_clear_error(f, arg, error, message):
    with pytest.raises(error, match=message):
        circuit.trace(f)(jnp.asarray(arg))


def test_argument_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="argnums must be among 1 arguments, got 3"):
        circuit.trace(jnp.sin, argnums=3)(1.0)
