import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnet import backprop, mlp, optimizers

DTYPE = jnp.result_type(float)
INPUTS = jnp.array([[1, 3, 2], [1, -2, -3]], DTYPE)  # x0 = 1, and the slide's two points
TARGETS = jnp.array([1, 0], DTYPE)
START = jnp.array([-1, 0.5, 0.1], DTYPE)


def linear(w, inputs, targets):
    return jnp.mean((inputs @ w - targets) ** 2)


def sigmoid(w, inputs, targets):
    return jnp.mean((jax.nn.sigmoid(inputs @ w) - targets) ** 2)


def first(w):
    """The slide's (y - t)^2 of its first point."""
    return (INPUTS[0] @ w - 1) ** 2


SEARCHES = {
    "random": optimizers.random_search(guesses=100),
    "coordinate": optimizers.coordinate_descent(),
}
DESCENTS = {
    "gradient": optimizers.gradient_descent(0.05),
    "momentum": optimizers.from_optax(optax.sgd(0.02, momentum=0.9)),
    "adam": optimizers.from_optax(optax.adam(0.1)),
    "lbfgs": optimizers.from_optax(optax.lbfgs()),
}
RUNGS = {
    **{name: (optimizer, lambda loss: loss) for name, optimizer in SEARCHES.items()},
    **{name: (optimizer, jax.value_and_grad) for name, optimizer in DESCENTS.items()},
    "forward": (
        optimizers.gradient_descent(0.05),
        lambda loss: optimizers.numerical(loss, scheme="forward"),
    ),
    "central": (optimizers.gradient_descent(0.05), optimizers.numerical),
}


QUADRATIC = {
    rung: (optimizer, objective_of(lambda *args: quadratic(*args)))
    for rung, (optimizer, objective_of) in RUNGS.items()
}


@pytest.mark.parametrize("loss", [linear, sigmoid])
@pytest.mark.parametrize("rung", RUNGS)
def test_every_rung_solves_the_two_points(rung, loss, optax_dtypes):
    optimizer, objective_of = RUNGS[rung]
    params, history = optimizers.minimize(
        optimizer, objective_of(loss), START, INPUTS, TARGETS, key=jax.random.key(0), steps=400
    )
    assert loss(params, INPUTS, TARGETS) < 0.005
    assert history.values.shape == history.calls.shape == (400,)
    assert np.all(np.diff(history.calls) > 0)


@pytest.mark.parametrize("rung", RUNGS)
def test_every_rung_takes_any_pytree(rung, optax_dtypes):
    params = mlp.init(jax.random.key(0), (3, 2, 1))
    optimizer, objective_of = RUNGS[rung]
    after, history = optimizers.minimize(
        optimizer,
        objective_of(mlp.loss),
        params,
        INPUTS,
        TARGETS[:, None],
        key=jax.random.key(1),
        steps=100,
    )
    assert jax.tree.structure(after) == jax.tree.structure(params)
    assert [leaf.dtype for leaf in jax.tree.leaves(after)] == [DTYPE] * 4
    assert mlp.loss(after, INPUTS, TARGETS[:, None]) < mlp.loss(params, INPUTS, TARGETS[:, None])
    assert np.isfinite(history.values[-1])


@pytest.mark.parametrize("rung", RUNGS)
def test_seeds_are_vectorised(rung, optax_dtypes):
    optimizer, objective_of = RUNGS[rung]

    def search(key):
        return optimizers.minimize(
            optimizer, objective_of(sigmoid), START, INPUTS, TARGETS, key=key, steps=5
        )

    keys = jax.random.split(jax.random.key(0), 2)
    together, alone = jax.vmap(search)(keys), [search(key) for key in keys]
    for i, each in enumerate(alone):
        for ours, theirs in zip(jax.tree.leaves(together), jax.tree.leaves(each), strict=True):
            np.testing.assert_allclose(ours[i], theirs, rtol=1e-4, atol=1e-6)


def test_same_minimisation_is_compiled_once():
    optimizer, traced = optimizers.random_search(guesses=10), []

    def loss(w):
        traced.append(1)
        return jnp.sum(w**2)

    for seed in range(3):
        optimizers.minimize(optimizer, loss, START, key=jax.random.key(seed), steps=5)
    assert len(traced) == 1


def quadratic(w, basis, centre):
    return jnp.sum((basis @ (w - centre)) ** 2) + jnp.sum((w - centre) ** 2)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
@pytest.mark.parametrize("rung", ["random", "coordinate", "gradient", "forward", "central"])
def test_no_step_goes_up_on_convex_quadratics(rung, seed):
    optimizer, objective = QUADRATIC[rung]
    random = np.random.default_rng(seed)
    basis = random.uniform(-1, 1, (3, 3)).astype(DTYPE)  # the curvature is at most 2 * (9 + 1)
    start, centre = random.uniform(-3, 3, (2, 3)).astype(DTYPE)
    params, history = optimizers.minimize(
        optimizer, objective, jnp.asarray(start), basis, centre, key=jax.random.key(seed), steps=60
    )
    before, after = quadratic(start, basis, centre), quadratic(params, basis, centre)
    assert np.all(np.diff(history.values) <= 1e-5 * (before + 1))
    if rung != "random":  # the least curvature is 2, so 60 steps of 0.05 shrink 0.9**120 times
        assert after <= 0.01 * before + 1e-4


# --- Random guessing ------------------------------------------------------------------------------


def test_random_search_keeps_the_best_of_what_it_guessed():
    optimizer, key = optimizers.random_search(guesses=50, scale=2.0), jax.random.key(3)
    seen = []

    def loss(w):
        value = jnp.sum((w - 0.3) ** 2)
        jax.debug.callback(lambda w: seen.append(np.array(w)), w, ordered=False)
        return value

    params, state = optimizer.step(key, loss, START, optimizer.init(START))
    jax.effects_barrier()
    guesses = np.concatenate([np.atleast_2d(each) for each in seen])
    assert guesses.shape == (50, 3)
    best = guesses[np.argmin(np.sum((guesses - 0.3) ** 2, axis=1))]
    np.testing.assert_allclose(params, best, rtol=1e-6)
    assert np.abs(guesses).max() < 2
    assert np.abs(guesses).max() > 1.5
    assert state.calls == 50


def test_random_search_never_gets_worse():
    _, history = optimizers.minimize(
        optimizers.random_search(),
        sigmoid,
        START,
        INPUTS,
        TARGETS,
        key=jax.random.key(0),
        steps=200,
    )
    assert np.all(np.diff(history.values) <= 0)


def test_guess_that_is_nan_is_never_the_best():
    def loss(w):
        return jnp.where(w[0] > 0, jnp.nan, jnp.sum(w**2))

    params, history = optimizers.minimize(
        optimizers.random_search(guesses=20), loss, START, key=jax.random.key(0), steps=5
    )
    assert params[0] <= 0
    assert np.isfinite(history.values).all()


# --- Coordinate descent ---------------------------------------------------------------------------


def test_slides_walk_by_the_optimizer():
    optimizer = optimizers.coordinate_descent()
    reached = set()
    for seed in range(20):
        params, state = optimizer.step(jax.random.key(seed), first, START, optimizer.init(START))
        assert state.value == pytest.approx(0, abs=1e-12)
        reached.add(tuple(np.round(np.asarray(params, float), 4).tolist()))
    assert reached == {(-0.7, 0.5, 0.1), (-1.0, 0.6, 0.1), (-1.0, 0.5, 0.25)}


def test_coordinate_descent_moves_one_coordinate_a_step_and_counts_what_it_asks():
    optimizer, params = optimizers.coordinate_descent(), START
    state, asked = optimizer.init(params), []

    def loss(w):
        jax.debug.callback(lambda w: asked.append(w), w)
        return sigmoid(w, INPUTS, TARGETS)

    for number in range(10):
        before, value = params, state.value
        params, state = jax.jit(optimizer.step, static_argnums=1)(
            jax.random.key(number), loss, params, state
        )
        jax.effects_barrier()
        assert np.sum(np.asarray(before) != np.asarray(params)) <= 1
        assert state.value <= value
        assert state.calls == len(asked)


# --- Gradients ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["central", "forward"])
def test_numerical_gradient_is_jax_grads(scheme):
    params = mlp.init(jax.random.key(0), (3, 4, 1))
    args = (params, INPUTS, TARGETS[:, None])
    value, gradient = jax.jit(optimizers.numerical(mlp.loss, scheme=scheme))(*args)
    right_value, right = jax.value_and_grad(mlp.loss)(*args)
    assert value == right_value
    error = 5 * float(jnp.finfo(DTYPE).eps) ** {"central": 2 / 3, "forward": 1 / 2}[scheme]
    for ours, theirs in zip(jax.tree.leaves(gradient), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=error)


def test_gradient_descent_is_the_slides_update():
    optimizer = optimizers.gradient_descent(0.1)
    params, state = optimizer.step(
        jax.random.key(0), jax.value_and_grad(first), START, optimizer.init(START)
    )
    np.testing.assert_allclose(params, START - 0.1 * jax.grad(first)(START), rtol=1e-6)
    assert (state.value, state.calls) == (first(START), 1)


def test_hand_written_and_automatic_gradients_walk_the_same_way():
    params = mlp.init(jax.random.key(0), (3, 4, 1))
    args = (params, INPUTS, TARGETS[:, None])
    optimizer, key = optimizers.gradient_descent(0.5), jax.random.key(0)
    hand, auto = (
        optimizers.minimize(optimizer, objective, *args, key=key, steps=50)[1].values
        for objective in (backprop.value_and_grad, jax.value_and_grad(mlp.loss))
    )
    np.testing.assert_allclose(hand, auto, rtol=1e-4)


def test_lbfgs_counts_the_calls_of_its_line_search(optax_dtypes):
    optimizer, asked = optimizers.from_optax(optax.lbfgs()), []

    def loss(w):
        return jnp.sum((w**2 - 1) ** 2)

    def counted(w):
        jax.debug.callback(lambda w: asked.append(w), w)
        return jax.value_and_grad(loss)(w)

    _, history = optimizers.minimize(optimizer, counted, START, key=jax.random.key(0), steps=10)
    jax.effects_barrier()
    assert history.calls[-1] == len(asked)
    assert history.calls[-1] > 10
    assert history.values[-1] < 1e-6


@pytest.mark.parametrize(
    ("scheme", "cost"), [("value", 1), ("forward", 22), ("central", 43), ("analytical", 3)]
)
def test_cost_of_a_call_in_losses(scheme, cost):
    params = mlp.init(jax.random.key(0), (3, 4, 1))  # 3 * 4 + 4 + 4 + 1 = 21
    assert optimizers.losses_per_call(scheme, params) == cost


def test_numerical_asks_for_as_many_losses_as_it_says():
    asked = []

    def loss(w):
        jax.debug.callback(lambda w: asked.append(w), w)
        return jnp.sum(w**2)

    for scheme in ("forward", "central"):
        asked.clear()
        jax.jit(optimizers.numerical(loss, scheme=scheme))(START)
        jax.effects_barrier()
        assert len(asked) == optimizers.losses_per_call(scheme, START)


# --- The door -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        (jnp.zeros((0, 3), DTYPE), ValueError, "must have a coordinate"),
        ((), ValueError, "must have a coordinate"),
        (jnp.arange(3), TypeError, "floating-point arrays, got int"),
        ((1.0, 2.0), TypeError, "floating-point arrays, got float"),
    ],
)
def test_parameters_that_cannot_be_optimized_are_refused(rung, params, error, message):
    with pytest.raises(error, match=message):
        RUNGS[rung][0].init(params)


@pytest.mark.parametrize("rung", ["random", "coordinate", "central"])
def test_objective_must_be_a_scalar(rung):
    optimizer, objective_of = RUNGS[rung]
    with pytest.raises(ValueError, match=r"must return a scalar, got shape \(3,\)"):
        optimizers.minimize(
            optimizer, objective_of(lambda w: w), START, key=jax.random.key(0), steps=1
        )


@pytest.mark.parametrize(
    ("optimizer", "objective", "message"),
    [
        (DESCENTS["gradient"], first, "must return its value and gradient"),
        (DESCENTS["gradient"], lambda w: (first(w), (w, w)), "gradient must be a pytree like"),
        (
            SEARCHES["random"],
            jax.value_and_grad(first),
            "objective must return a scalar, got tuple",
        ),
    ],
)
def test_objective_must_return_what_the_optimizer_asks_for(optimizer, objective, message):
    with pytest.raises(TypeError, match=message):
        optimizers.minimize(optimizer, objective, START, key=jax.random.key(0), steps=1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: optimizers.random_search(scale=float("inf")),
        lambda: optimizers.random_search(scale=-1.0),
        lambda: optimizers.coordinate_descent(step=0.0),
        lambda: optimizers.gradient_descent(float("nan")),
        lambda: optimizers.gradient_descent(True),
        lambda: optimizers.numerical(first, step=0.0),
    ],
)
def test_options_must_be_positive(make):
    with pytest.raises(ValueError, match="must be positive and finite, got"):
        make()


def test_unknown_schemes_are_refused():
    with pytest.raises(ValueError, match="scheme must be central or forward, got 'both'"):
        optimizers.numerical(first, scheme="both")
    with pytest.raises(ValueError, match="scheme must be one of value, forward"):
        optimizers.losses_per_call("both", START)


def test_objectives_must_be_functions():
    with pytest.raises(TypeError, match="loss must be a function, got float"):
        optimizers.numerical(1.0)
    with pytest.raises(TypeError, match="objective must be a function, got float"):
        optimizers.minimize(SEARCHES["random"], 1.0, START, key=jax.random.key(0), steps=1)


@pytest.mark.parametrize("guesses", [1.5, "3", True])
def test_counts_must_be_integers(guesses):
    with pytest.raises(TypeError, match="guesses must be an integer, got"):
        optimizers.random_search(guesses=guesses)


def test_gradient_of_another_shape_is_refused():
    def objective(w):
        return jnp.sum(w**2), jnp.mean(2 * w)  # it would broadcast

    with pytest.raises(ValueError, match=r"shapes of params, \(\(3,\),\), got \(\(\),\)"):
        optimizers.minimize(DESCENTS["gradient"], objective, START, key=jax.random.key(0), steps=1)


def test_numerical_gradient_of_several_dtypes_is_refused():
    params = (jnp.ones(2, jnp.float32), jnp.ones(2, jnp.bfloat16))
    with pytest.raises(TypeError, match="of one dtype, got bfloat16 and float32"):
        optimizers.numerical(lambda params: jnp.sum(params[0]))(params)


def test_numerical_step_grows_with_the_coordinate():
    point = jnp.array([2e5, 1.0], DTYPE)
    for scheme, rtol in (("central", 1e-2), ("forward", 1e-1)):
        _, gradient = optimizers.numerical(lambda x: jnp.sum(x**2) / 1e5, scheme=scheme)(point)
        assert gradient[0] == pytest.approx(4, rel=rtol)


@pytest.mark.parametrize("rung", ["random", "coordinate", "gradient", "adam"])
def test_parameters_in_16_bits_are_optimized(rung, optax_dtypes):
    optimizer, objective_of = RUNGS[rung]
    params = mlp.init(jax.random.key(0), (2, 1), dtype=jnp.bfloat16)
    batch = INPUTS[:, 1:].astype(jnp.bfloat16), TARGETS[:, None].astype(jnp.bfloat16)
    after, history = optimizers.minimize(
        optimizer, objective_of(mlp.loss), params, *batch, key=jax.random.key(1), steps=100
    )
    assert after[0].weight.dtype == jnp.bfloat16
    assert history.values.dtype == jnp.float32
    assert history.values[-1] < history.values[0]


def test_coordinate_descent_never_sticks_on_a_convex_function():
    def valley(w):
        return (w[0] + w[1] - 3) ** 2 + 0.1 * (w[0] - w[1]) ** 2

    start = jnp.array([-1.2, 1.0], DTYPE)

    def search(key):
        return optimizers.minimize(SEARCHES["coordinate"], valley, start, key=key, steps=400)[1]

    values = jax.vmap(search)(jax.random.split(jax.random.key(0), 50)).values[:, -1]
    assert values.max() < 1e-6


@pytest.mark.parametrize(("key", "got"), [(0, "int"), (None, "NoneType"), (START, START.dtype)])
def test_what_is_no_key_is_refused(key, got):
    with pytest.raises(TypeError, match=f"key must be a key of jax.random, got {got}"):
        optimizers.minimize(SEARCHES["random"], first, START, key=key, steps=1)


def test_optimizer_of_optax_itself_is_refused():
    with pytest.raises(TypeError, match=r"an Optimizer \(see from_optax\), got Gradient"):
        optimizers.minimize(
            optax.adam(0.1), jax.value_and_grad(first), START, key=jax.random.key(0), steps=1
        )


def test_learning_rate_may_be_a_number_of_numpy():
    optimizer = optimizers.gradient_descent(np.float32(0.1))
    params, _ = optimizer.step(
        jax.random.key(0), lambda w: (first(w), w), START, optimizer.init(START)
    )
    np.testing.assert_allclose(params, 0.9 * START, rtol=1e-6)


def test_steps_must_be_positive():
    with pytest.raises(ValueError, match="steps must be 1 or more, got 0"):
        optimizers.minimize(SEARCHES["random"], first, START, key=jax.random.key(0), steps=0)


def test_transformation_that_was_not_made_is_refused():
    with pytest.raises(TypeError, match=r"an optax.GradientTransformation, got adam"):
        optimizers.from_optax(optax.adam)


@pytest.mark.parametrize(
    "objective",
    [
        lambda w: float(w[0]),
        lambda w: w[0] if w[0] > 0 else w[1],
        lambda w: np.linalg.norm(w),
    ],
)
def test_objective_that_cannot_be_traced_gets_one_line(objective):
    search = optimizers.random_search()
    with pytest.raises(TypeError) as caught:
        optimizers.minimize(search, objective, jnp.ones(2), key=jax.random.key(0), steps=1)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("the objective must be a function that JAX can trace: ")


@pytest.mark.parametrize(
    ("objective", "got"),
    [(lambda w: jnp.sum(w).astype(int), "int"), (lambda w: jnp.sum(w).astype(complex), "complex")],
)
def test_objective_that_is_not_real_is_refused(objective, got):
    for optimizer, f in (
        (optimizers.coordinate_descent(), objective),
        (optimizers.gradient_descent(0.1), optimizers.numerical(objective)),
    ):
        with pytest.raises(TypeError, match=f"must return a floating-point scalar, got {got}"):
            optimizers.minimize(optimizer, f, jnp.ones(2), key=jax.random.key(0), steps=1)
