import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.flatten_util import ravel_pytree

from jaxnet import mlp, products
from jaxnet.gradcheck import changes
from jaxnet.gradcheck.thresholds import Thresholds

DTYPE = jnp.result_type(float)
EPSILON = float(jnp.finfo(DTYPE).eps)


@pytest.fixture
def always_slices(monkeypatch):
    """Functions as small as these are not worth it otherwise."""
    monkeypatch.setattr(changes, "THRESHOLDS", Thresholds(change_work=-np.inf))


def normal(*shape, dtype=DTYPE):
    generator = np.random.default_rng([*shape, 7])
    return jnp.asarray(np.asarray(generator.normal(size=shape)), dtype)


def network(*sizes, bias=True, dtype=DTYPE):
    """Drawn by NumPy, which has nothing to compile."""
    return tuple(
        mlp.Layer(normal(*pair, dtype=dtype), normal(pair[1], dtype=dtype) if bias else None)
        for pair in itertools.pairwise(sizes)
    )


def points(array, seed=0):
    """All coordinates, and for each of them a near value and one far away."""
    flat = np.asarray(array).ravel()
    shifts = np.random.default_rng(seed).normal(size=(flat.size, 2)) * [1e-2, 1]
    if np.iscomplexobj(flat):
        shifts = shifts * (1 + 2j)
    return np.arange(flat.size), (flat[:, None] + shifts.astype(flat.dtype)).astype(flat.dtype)


compiled = functools.cache(jax.jit)


def brute_force(f, args, leaf, coordinates, values, argnums=0):
    """As the module does not do it: f, over and over."""
    leaves, treedef = jax.tree.flatten(args[argnums])
    results = []
    for coordinate, row in zip(coordinates, values, strict=True):
        for value in row:
            changed = np.array(leaves[leaf])
            changed.flat[coordinate] = value
            x = treedef.unflatten([*leaves[:leaf], changed, *leaves[leaf + 1 :]])
            results.append(compiled(f)(*args[:argnums], x, *args[argnums + 1 :]))
    return np.reshape(jax.device_get(results), values.shape)


def follow(f, args, *change, argnums=0):
    """What following changes alone comes to, and whether it is to be trusted."""
    near, _ = changes.make_neighbourhoods(f, argnums)
    return jax.jit(lambda args, leaf, *at: near(args)(leaf, *at), static_argnums=1)(args, *change)


def assert_close(ours, theirs, epsilon=EPSILON):
    scale = np.max(np.abs(np.nan_to_num(np.asarray(theirs, np.complex128))), initial=1e-3)
    np.testing.assert_allclose(
        np.asarray(ours, np.complex128),
        np.asarray(theirs, np.complex128),
        atol=100 * epsilon * scale,
        rtol=0,
    )


@jax.custom_vjp
def custom_sine(x):
    return jnp.sin(x)


custom_sine.defvjp(lambda x: (custom_sine(x), x), lambda x, cotangent: (2 * cotangent,))


def with_cond(x):
    return lax.cond(x[0, 0] > 0, lambda: jnp.sum(x), lambda: jnp.sum(x**2))


def with_scan(x):
    step = jnp.tanh
    return jnp.sum(lax.scan(lambda carry, row: (step(carry * row + 1), row), x[0], x)[0])


def with_while(x):
    return lax.while_loop(lambda s: s < 99, lambda s: 2 * s + jnp.sum(x**2), jnp.ones((), x.dtype))


def with_every_reduction(x):
    y = x @ normal(4, 3)
    ranks = jnp.argmax(y, axis=0) + jnp.any(x > 1, axis=1).sum(dtype=int)
    extremes = jnp.max(y, axis=1) * jnp.min(x, axis=1) + jnp.prod(x)
    return jnp.sum(extremes) + jnp.sum(ranks.astype(x.dtype))


def with_windows(x):
    parts = jnp.split(x, [1, 3], axis=1)
    return sum(jnp.sum(jnp.sin(part) ** (n + 1)) for n, part in enumerate(parts)) + jnp.sum(
        jnp.exp(x[1:3, 2:]) * x[:2, :2] + x[:1, 1:2] + x[::2, :2]
    )


def with_reshapes(x):  # (3, 4), (6, 2), (2, 6), (12,), (1, 4, 1, 3)
    y = jnp.sin(x.reshape(6, 2)).T.reshape(12) * jnp.arange(12, dtype=x.dtype)
    tiles = (normal(5, 3) @ x).reshape(1, 10, 2)[0] @ normal(2, 2)
    return jnp.sum(y.reshape(1, 4, 1, 3)[0, :, 0] @ normal(3, 2)) + jnp.sum(tiles**2)


def with_convolution(x):
    kernel = x.reshape(2, 2, 3, 1)
    images = normal(2, 2, 5, 5)
    return jnp.sum(jnp.tanh(lax.conv_general_dilated(images, kernel, (1, 1), "SAME")))


def with_integers(x):
    return jnp.sum((4 * x).astype(int) * jnp.arange(4)[None, :]).astype(x.dtype)


def with_random_numbers(x):
    return jnp.sum(x * jax.random.normal(jax.random.key(0), x.shape, x.dtype))


def with_empty_parts(x):
    return jnp.sum(x[:, :0]) + jnp.sum(x[1:1] @ x.T) + jnp.sum(x)


def with_attention(x):
    y = normal(5, 3) @ x
    return jnp.sum(jax.nn.softmax(y @ y.T, axis=-1) @ y)


def with_complex_numbers(x):
    return jnp.sum(jnp.exp(lax.complex(jnp.zeros_like(x), x)).real)


# Of (3, 4) arrays. The first lot has rules, the second is given whole arrays somewhere.
FUNCTIONS = {
    "product": lambda x: jnp.sum((normal(5, 3) @ x) ** 2),
    "product from the right": lambda x: jnp.sum(jnp.tanh(x @ normal(4, 2))),
    "product with a batch": lambda x: jnp.sum(
        jnp.sin(jnp.einsum("bij,bj->bi", normal(3, 2, 4), x))
    ),
    "product over two axes": lambda x: jnp.sin(jnp.tensordot(x, normal(3, 4), 2)),
    "product of all": lambda x: jnp.sum(jnp.einsum("ij,kj,k->i", x, normal(5, 4), normal(5)) ** 2),
    "both operands": lambda x: jnp.sum(x * x * jnp.exp(x)),
    "two slices": lambda x: jnp.sum(jnp.sin(x[:3, :3] + x[:3, :3].T)),
    "product with itself": lambda x: jnp.sum(jnp.sin(x @ x.T)),
    "custom derivative": lambda x: jnp.sum(custom_sine(x)),
    "checkpoint": lambda x: jnp.sum(jax.checkpoint(lambda x: jnp.sin(jnp.cos(x)))(x)),
    "gradient": lambda x: jnp.sum(jax.grad(lambda x: jnp.sum(jnp.sin(x) ** 2))(x)),
    "vmap": lambda x: jnp.sum(jax.vmap(lambda row: jnp.sin(row) @ normal(4, 2))(x) ** 2),
    "activations": lambda x: jnp.sum(jax.nn.relu(x) * jax.nn.gelu(x) + jax.nn.softplus(x)),
    "where": lambda x: jnp.sum(jnp.where(x > 0, jnp.log(jnp.abs(x)), jnp.clip(x, -0.5, 0.5))),
    "logsumexp": lambda x: jnp.sum(jax.nn.logsumexp(normal(5, 3) @ x, axis=1)),
    "cross-entropy": lambda x: jnp.sum(jax.nn.log_softmax(normal(5, 3) @ x) * normal(5, 4)),
    "normalisation": lambda x: jnp.sum(jax.nn.standardize(x, axis=-1) * normal(3, 4)),
    "norm": jnp.linalg.norm,
    "masked": lambda x: jnp.sum(jnp.exp(jnp.where(x > 0, x, -jnp.inf))),
    "broadcast": lambda x: jnp.sum(jnp.sin(x[None, :, None, :1] * normal(2, 1, 2, 1))),
    "transpose": lambda x: jnp.sum(jnp.sin(x[None].transpose(2, 0, 1) @ normal(4, 3, 2))),
    "reductions": with_every_reduction,
    "windows": with_windows,
    "reshapes": with_reshapes,
    "integers": with_integers,
    "random numbers": with_random_numbers,
    "empty parts": with_empty_parts,
    "unused": lambda x: jnp.ones((), x.dtype),
    "constant": lambda x: 3.0,
    "one coordinate": lambda x: x[1, 2],
    "scan": with_scan,
    "cond": with_cond,
    "while": with_while,
    "sort": lambda x: jnp.sum(jnp.sort(x, axis=1) * jnp.arange(4, dtype=x.dtype)[None, :]),
    "gather": lambda x: jnp.sum(jnp.sin(x[jnp.array([0, 2, 2])])),
    "scatter": lambda x: jnp.sum(jnp.zeros_like(x).at[jnp.array([0, 0, 2])].add(x) ** 2),
    "solve": lambda x: jnp.sum(jnp.linalg.solve(x[:, :3], x[:, 3])),
    "convolution": with_convolution,
    "cumulative sum": lambda x: jnp.sum(jnp.cumsum(x, axis=1) ** 2),
    "concatenation": lambda x: jnp.sum(jnp.sin(jnp.concatenate([x, 2 * x, x[:1]]))),
    "attention": with_attention,
    "complex numbers": with_complex_numbers,
    "products of truth values": lambda x: jnp.sum(((x > 0) @ (x > 0).T).astype(x.dtype)),
}


@pytest.mark.usefixtures("always_slices")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_are_those_of_the_function(name):
    x = normal(3, 4)
    coordinates, values = points(x)
    result, trusted = follow(FUNCTIONS[name], (x,), 0, coordinates, values)
    assert trusted
    assert_close(result, brute_force(FUNCTIONS[name], (x,), 0, coordinates, values))


@pytest.mark.usefixtures("always_slices")
@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (1, 4), (3, 1), (2, 1, 3)])
def test_axes_of_size_one(shape):
    def f(x):
        wide = jnp.broadcast_to(x, (2, *x.shape[:-1], 3) if x.shape[-1:] == (1,) else x.shape)
        return jnp.sum(jnp.sin(wide)) + jnp.sum(jnp.squeeze(x) ** 2) + jnp.exp(x.reshape(-1)[0])

    x = normal(*shape)
    coordinates, values = points(x)
    result, _ = follow(f, (x,), 0, coordinates, values)
    assert_close(result, brute_force(f, (x,), 0, coordinates, values))


@pytest.mark.usefixtures("always_slices")
@pytest.mark.parametrize(
    ("sizes", "bias", "dtype"),
    [
        ((4, 3), True, DTYPE),
        ((4, 3), False, DTYPE),
        ((4, 3, 2), True, DTYPE),
        ((4, 3, 2), False, DTYPE),
        ((4, 3, 2, 3), True, DTYPE),
        ((4, 3, 2, 3), False, DTYPE),
        ((4, 3, 2), True, jnp.bfloat16),
        ((4, 3, 2), True, jnp.float16),
    ],
)
def test_networks(sizes, bias, dtype):
    args = (
        network(*sizes, bias=bias, dtype=dtype),
        normal(6, 4, dtype=dtype),
        normal(6, sizes[-1], dtype=dtype),
    )
    chosen = [points(leaf) for leaf in jax.tree.leaves(args[0])]
    near, _ = changes.make_neighbourhoods(mlp.loss, 0)

    @jax.jit
    def all_leaves(args, chosen):
        evaluate = near(args)
        return [evaluate(leaf, *pair)[0] for leaf, pair in enumerate(chosen)]

    for leaf, (ours, pair) in enumerate(zip(all_leaves(args, chosen), chosen, strict=True)):
        assert ours.dtype == products.sum_dtype(dtype)
        # Hidden layers are rounded to 16 bits, either way from values that differ by rounding.
        epsilon = float(jnp.finfo(dtype).eps) / (1 if dtype == DTYPE else 10)
        assert_close(ours, brute_force(mlp.loss, args, leaf, *pair), epsilon)


@pytest.mark.usefixtures("always_slices")
def test_parameters_may_be_one_long_vector():
    flat, unravel = ravel_pytree(network(4, 3, 2))
    inputs, targets = normal(6, 4), normal(6, 2)

    def f(flat):
        return mlp.loss(unravel(flat), inputs, targets)

    coordinates, values = points(flat)
    result, _ = follow(f, (flat,), 0, coordinates, values)
    assert_close(result, brute_force(f, (flat,), 0, coordinates, values))


@pytest.mark.usefixtures("always_slices")
def test_trees_of_many_kinds():
    def f(first, tree, key):
        noise = jax.random.uniform(key, (2,), DTYPE)
        rotated = jnp.sum(jnp.exp(tree["complex"]) * tree["unit"]).imag
        return rotated + tree["scalar"] * jnp.sum(noise) * first + jnp.sum(tree["integers"])

    tree = {
        "complex": lax.complex(normal(3), normal(3)),
        "integers": jnp.arange(3, dtype=DTYPE),
        "scalar": normal(),
        "unit": 1j,
        "unused": normal(2),
    }
    args = (2, tree, jax.random.key(0))
    with jax.numpy_dtype_promotion("standard"):
        for leaf, name in enumerate(sorted(tree)):
            if name == "unit":  # a Python number, which has no dtype
                continue
            coordinates, values = points(tree[name])
            ours, _ = follow(f, args, leaf, coordinates, values, argnums=1)
            assert_close(ours, brute_force(f, args, leaf, coordinates, values, argnums=1))


def harmonic_mean(x):
    return 1 / jnp.sum(1 / x)


@pytest.mark.usefixtures("always_slices")
@pytest.mark.parametrize("jit", [False, True])
def test_what_adds_to_an_infinite_sum_is_evaluated_anew(jit):
    x = jnp.array([0.0, 1.0, 2.0], DTYPE)
    coordinates, values = points(x)
    _, trusted = follow(harmonic_mean, (x,), 0, coordinates, values)
    assert not trusted

    def evaluate(x, values):
        return changes.make_evaluator(harmonic_mean, 0)((x,), 0, coordinates, values)

    result = (jax.jit(evaluate) if jit else evaluate)(x, values)
    assert_close(result, brute_force(harmonic_mean, (x,), 0, coordinates, values))


@pytest.mark.usefixtures("always_slices")
def test_evaluators_can_be_vectorised():
    f, xs = FUNCTIONS["cross-entropy"], normal(2, 3, 4)
    xs = jnp.concatenate([xs, xs[:1] * jnp.inf])  # of which one alone is not to be trusted
    coordinates, values = points(xs[0])
    evaluate = changes.make_evaluator(f, 0)
    results = jax.vmap(lambda x: evaluate((x,), 0, coordinates, values))(xs)
    for x, result in zip(xs, results, strict=True):
        assert_close(result, brute_force(f, (x,), 0, coordinates, values))


@pytest.mark.usefixtures("always_slices")
@pytest.mark.parametrize("block", [1, 60, 500, 2**24])
def test_blocks_do_not_change_the_values(monkeypatch, block):
    blocks = Thresholds(change_work=-np.inf, change_elements=block)
    monkeypatch.setattr(changes, "THRESHOLDS", blocks)
    f, x = FUNCTIONS["product"], normal(3, 4)
    coordinates, values = points(x)
    expected = brute_force(f, (x,), 0, coordinates, values)
    evaluate = changes.make_evaluator(f, 0)
    assert_close(evaluate((x,), 0, coordinates, values), expected)
    assert_close(evaluate((x,), 0, coordinates[:7], values[:7, 1]), expected[:7, 1])


def test_a_leaf_is_compiled_once():
    traces = []

    def f(tree):
        traces.append(tree)
        return jnp.sum(tree[0] ** 2) + jnp.sum(tree[1])

    evaluate = changes.make_evaluator(f, 0)
    for shift in (0.0, 1.0):
        for leaf in (0, 1):
            tree = (normal(3, 4) + shift, normal(2))
            evaluate((tree,), leaf, *points(tree[leaf]))
    assert len(traces) == 2


@pytest.fixture(scope="module")
def lecture():
    """The network 784-30-10 and 256 images."""
    return network(784, 30, 10), normal(256, 784), normal(256, 10)


def operations(f, *args):
    return jax.jit(f).lower(*args).cost_analysis()["flops"]


def test_a_change_of_a_network_takes_a_hundredth_of_its_operations(lecture):
    coordinates = np.arange(0, 784 * 30, 100)
    values = np.ones((len(coordinates), 2), DTYPE)
    near, _ = changes.make_neighbourhoods(mlp.loss, 0)
    ours = operations(lambda args, *at: near(args)(0, *at)[0], lecture, coordinates, values)
    theirs = operations(mlp.loss, *lecture)
    assert ours < theirs * (1 + values.size / 100)


def test_what_is_cheap_anyhow_is_not_cut_into_slices(lecture):
    coordinates, values = points(lecture[0][1].bias)
    fast, slow = (
        jax.jit(lambda args, near=near: near(args)(3, coordinates, values)[0]).lower(lecture)
        for near in changes.make_neighbourhoods(mlp.loss, 0)
    )
    assert fast.as_text() == slow.as_text()


def test_whole_arrays_are_the_same_function(lecture):
    coordinates = np.arange(0, 784 * 30, 5000)
    values = np.asarray(np.ravel(lecture[0][0].weight)[coordinates, None] + np.ones((1, 2), DTYPE))
    results = [
        jax.jit(lambda args, near=near: near(args)(0, coordinates, values)[0])(lecture)
        for near in changes.make_neighbourhoods(mlp.loss, 0)
    ]
    for result in results:
        assert_close(result, brute_force(mlp.loss, lecture, 0, coordinates, values))
