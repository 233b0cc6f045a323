import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import backprop, faults, mlp
from jaxnet.faults import network

LEAST = 0.01  # the relative error of the worst leaf, at least
SMALLER = {"wrong-coordinate": 0.0019, "bfloat16-products": 0.001, "bfloat16-sum": 0.005}
NOT_OF_THE_FORM = {"bias-not-summed", "bias-over-outputs"}


@pytest.fixture
def problem(digits):
    """A float64 network of which two layers are square; use it under `jax.enable_x64`."""
    with jax.enable_x64(True):
        params = mlp.init(jax.random.key(0), (64, 16, 16, 10))
        arrays = (jnp.asarray(np.asarray(array[:40], np.float64)) for array in digits.train)
        yield params, *arrays


def shapes(*sizes, examples=40, bias=True, dtype=jnp.float32):
    """The arguments of a backward pass, without values."""
    struct = functools.partial(jax.ShapeDtypeStruct, dtype=dtype)
    params = tuple(
        mlp.Layer(struct((rows, outputs)), struct((outputs,)) if bias else None)
        for rows, outputs in itertools.pairwise(sizes)
    )
    return params, struct((examples, sizes[0])), struct((examples, sizes[-1]))


def form(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


def errors(gradient, expected):
    """The relative error of each leaf by its path; infinite where shapes differ or NaN is in it."""
    assert jax.tree.structure(gradient) == jax.tree.structure(expected)
    leaves = zip(
        jax.tree_util.tree_leaves_with_path(expected), jax.tree.leaves(gradient), strict=True
    )
    return {jax.tree_util.keystr(path): error(leaf, right) for (path, right), leaf in leaves}


def error(leaf, right):
    if leaf.shape != right.shape or np.isnan(leaf).any():
        return np.inf
    return np.linalg.norm(np.subtract(leaf, right)) / np.linalg.norm(right)


# --- The network's backward passes ----------------------------------------------------------------


def test_the_right_pass_is_right_before_a_part_is_exchanged(problem):
    value, gradient = network.value_and_grad(*problem)
    expected_value, expected = jax.jit(jax.value_and_grad(mlp.loss))(*problem)
    assert float(value) == pytest.approx(float(expected_value), rel=1e-14)
    assert max(errors(gradient, expected).values()) < 1e-12


@pytest.mark.parametrize("name", faults.CATALOGUE)
def test_a_fault_makes_wrong_the_leaves_that_it_names_and_no_other(problem, name):
    fault = faults.CATALOGUE[name]
    value, gradient = fault(*problem)
    expected_value, expected = backprop.value_and_grad(*problem)
    assert float(value) == pytest.approx(float(expected_value), rel=1e-14)
    found = errors(gradient, expected)
    assert {path for path, each in found.items() if each > 1e-12} == fault.wrong_leaves(problem[0])
    assert max(found.values()) >= SMALLER.get(name, LEAST)
    if name in SMALLER:
        assert max(found.values()) < LEAST


@pytest.mark.parametrize("name", ["bfloat16-products", "bfloat16-sum"])
def test_low_precision_stays_low_in_a_compiled_program(problem, name):
    """XLA may compute in more than it was asked for."""
    problem = jax.tree.map(lambda array: np.asarray(array, np.float32), problem)
    _, gradient = jax.jit(faults.CATALOGUE[name])(*problem)
    _, expected = backprop.value_and_grad(*problem)
    assert SMALLER[name] <= max(errors(gradient, expected).values()) < LEAST


@pytest.mark.parametrize(
    "network", [{"dtype": jnp.float32}, {"dtype": jnp.float16}, {"bias": False}], ids=str
)
@pytest.mark.parametrize("name", faults.CATALOGUE)
def test_a_fault_has_the_form_of_a_gradient_or_lacks_it_on_purpose(name, network):
    fault = faults.CATALOGUE[name]
    assert fault.fits == (name not in NOT_OF_THE_FORM)
    args = shapes(64, 16, 16, 10, **network)
    if fault.wrong_leaves(args[0]):
        _, gradient = jax.eval_shape(fault, *args)
        assert (form(gradient) == form(args[0])) == fault.fits


def test_wrong_leaves_follow_the_network():
    params, *_ = shapes(64, 16, 16, 20, 20, 10)
    below = {f"[{index}].{field}" for index in range(3) for field in ("weight", "bias")}
    assert faults.CATALOGUE["transposed-weight"].wrong_leaves(params) == below
    here = {"[3].weight", "[3].bias"}
    assert faults.CATALOGUE["slope-of-layer-below"].wrong_leaves(params) == below | here
    assert faults.CATALOGUE["transposed-gradient"].wrong_leaves(params) == {
        "[1].weight",
        "[3].weight",
    }


REFUSALS = {
    "biases": "a fault in the biases needs a network that has them",
    "below the top": "a fault in the hidden layers needs one, got none",
    "square weights": r"a transposed gradient needs a square layer, got \(64, 1\)",
    "up to a square layer": r"a slope of the layer below needs a square layer, got \(64, 1\)",
    "below a square layer": r"needs a square layer above the first, got \(64, 1\)",
    "examples": "a fault of the batch needs two examples, got 1",
    "outputs": "a fault of the outputs needs two of them, got 1",
    "precision": "a fault of bfloat16 needs a dtype of more precision, got bfloat16",
}


@pytest.mark.parametrize("name", faults.CATALOGUE)
def test_a_fault_that_cannot_show_is_refused(name):
    """In the least network there is: one layer, one output, no biases, one example, bfloat16."""
    fault = faults.CATALOGUE[name]
    least = shapes(64, 1, examples=1, bias=False, dtype=jnp.bfloat16)
    messages = [REFUSALS[each] for each in (fault.leaves, *fault.needs) if each in REFUSALS]
    if messages:
        with pytest.raises(ValueError, match=messages[0]):
            jax.eval_shape(fault, *least)
    else:
        jax.eval_shape(fault, *least)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("bias-averaged", shapes(64, 10, examples=1), REFUSALS["examples"]),
        ("bias-over-everything", shapes(64, 1), REFUSALS["outputs"]),
        ("transposed-weight", shapes(64, 64, 10), r"above the first, got \(64, 64, 10\)"),
        ("sign", (*shapes(64, 10)[:2], shapes(64, 9)[2]), r"targets must have shape \(40, 10\)"),
    ],
)
def test_other_refusals(name, args, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(faults.CATALOGUE[name], *args)


# --- Functions of any kind ------------------------------------------------------------------------

STEP = float(np.cbrt(3 * np.finfo(np.float64).eps))  # of central differences


@pytest.mark.parametrize("name", faults.FUNCTIONS)
def test_the_arguments_are_of_the_dtype_and_so_are_the_gradients(name):
    right, wrong, arguments = faults.FUNCTIONS[name]
    for dtype in (np.float32, np.float64):
        with jax.enable_x64(jax.config.jax_enable_x64 or dtype == np.float64):
            args = jax.eval_shape(lambda dtype=dtype: arguments(jax.random.key(0), dtype))
            for leaf in jax.tree.leaves(args):
                assert np.finfo(leaf.dtype).dtype == dtype
            for f in (right, wrong):
                value, gradient = jax.eval_shape(jax.value_and_grad(f), *args)
                assert form(value) == ((), dtype)
                assert form(gradient) == form(args[0])


@pytest.mark.parametrize("name", faults.FUNCTIONS)
def test_a_function_is_right_and_its_double_wrong(name):
    right, wrong, arguments = faults.FUNCTIONS[name]

    @jax.jit  # one program for both dtypes, because compiling is most of the work
    def evaluate(*batch):
        return [[jax.value_and_grad(f)(*args) for f in (right, wrong)] for args in batch]

    with jax.enable_x64(True):
        narrow = arguments(jax.random.key(0), np.float32)
        wide = jax.tree.map(lambda x: np.asarray(x, np.promote_types(x.dtype, np.float64)), narrow)
        found = evaluate(narrow, wide)
        slopes = []
        for seed in range(3):
            x, *others = wide
            direction = draw(seed, x)
            ends = [
                float(evaluate(narrow, (move(x, direction, step), *others))[1][0][0])
                for step in (STEP, -STEP)
            ]
            slopes.append((direction, (ends[0] - ends[1]) / (2 * STEP)))
    for (value, gradient), (same, wrong_gradient) in found:
        epsilon = float(np.finfo(value.dtype).eps)
        assert float(value) == pytest.approx(float(same), rel=10 * epsilon)
        assert max(errors(wrong_gradient, gradient).values()) >= LEAST
        norm = float(np.sqrt(inner(gradient, jax.tree.map(np.conj, gradient))))
        for direction, slope in slopes:
            bar = norm * max(100 * epsilon, 1e-8)
            assert inner(gradient, direction) == pytest.approx(slope, abs=bar)


def draw(seed, tree):
    """A random direction, which in the complex plane is neither the real nor the imaginary one."""
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: random.standard_normal(leaf.shape) * (1 + 2j if np.iscomplexobj(leaf) else 1),
        tree,
    )


def move(tree, direction, step):
    return jax.tree.map(lambda x, v: x + step * v, tree, direction)


def inner(gradient, direction):
    """The slope along a direction: JAX does not conjugate a complex gradient."""
    leaves = zip(*map(jax.tree.leaves, (gradient, direction)), strict=True)
    return sum(float(np.sum(np.asarray(g) * np.asarray(v)).real) for g, v in leaves)
