import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnet import backprop, batches, data, mlp, train

SIZES = (64, 16, 10)
DTYPE = np.dtype(jnp.result_type(float))
EPSILON = float(jnp.finfo(DTYPE).eps)

pytestmark = pytest.mark.usefixtures("optax_dtypes")


@pytest.fixture
def params():
    return mlp.init(jax.random.key(0), SIZES)


def fit(params, split, validation=None, **changes):
    keywords = {
        "key": jax.random.key(1),
        "optimizer": optax.sgd(0.5),
        "batch_size": 32,
        "epochs": 3,
        **changes,
    }
    return train.fit(params, split, validation, **keywords)


def test_training_learns_the_digits(digits):
    params = mlp.init(jax.random.key(0), (64, 64, 10))
    run = fit(
        params, digits.train, optimizer=optax.adam(0.01), epochs=30, validation=digits.validation
    )
    epochs = list(run.epochs)
    assert [epoch.number for epoch in epochs] == list(range(1, 31))
    assert epochs[-1].train_loss < 0.1 * epochs[0].train_loss
    assert epochs[-1].validation_accuracy > 0.93
    expected = mlp.loss(epochs[-1].state.params, *map(jnp.asarray, digits.validation))
    assert epochs[-1].validation_loss == pytest.approx(float(expected), rel=100 * EPSILON)
    assert run.compile_seconds > 0
    assert all(epoch.seconds > 0 for epoch in epochs)


def test_an_epoch_is_the_loop_that_it_stands_for(digits, params):
    """The scan against a Python loop over the minibatches that the key draws."""
    (epoch,) = fit(params, digits.train, epochs=1).epochs
    inputs, targets = map(np.asarray, digits.train)
    losses = []
    for rows in np.asarray(batches.draw(jax.random.key(1), 1, len(inputs), 32)):
        loss, gradient = jax.value_and_grad(mlp.loss)(params, inputs[rows], targets[rows])
        params = jax.tree.map(lambda leaf, slope: leaf - 0.5 * slope, params, gradient)
        losses.append(float(loss))
    assert epoch.train_loss == pytest.approx(np.mean(losses), rel=1000 * EPSILON)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e4 * EPSILON),
        epoch.state.params,
        params,
    )


@pytest.fixture(scope="module")
def compilations():
    """A list that grows by an item with every program that XLA compiles."""
    events = []

    def listen(event, duration, **_):
        if event.endswith("backend_compile_duration"):
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    return events


def test_a_run_compiles_once(digits, params, compilations):
    run = fit(params, digits.train, validation=digits.validation, epochs=4)
    next(run.epochs)
    before = len(compilations)
    assert len(list(run.epochs)) == 3
    assert len(compilations) == before
    jax.jit(lambda x: x + 1)(jnp.zeros(3))  # which the counter would have seen
    assert len(compilations) > before


def test_epochs_move_nothing_between_host_and_device_unasked(digits, params):
    """What is asked for is the epoch's number on the way in, its metrics on the way out."""
    run = fit(params, digits.train, validation=digits.validation)
    with jax.transfer_guard("disallow"):
        assert len(list(run.epochs)) == 3
    with jax.transfer_guard("disallow"), pytest.raises(Exception, match="Disallowed"):
        jax.jit(jnp.sin)(np.ones(3))  # which the guard would have stopped


@pytest.mark.parametrize("batch_size", [32, 1294])
def test_the_dataset_is_an_argument_of_the_program(digits, params, batch_size):
    """Not a constant baked into it: the program's text is small and closes over no array."""
    optimizer = optax.sgd(0.5)
    epoch = train.make_epoch(train.GRADIENTS["hand"], optimizer, batch_size)
    state = train.TrainState(params, optimizer.init(params))
    args = (state, jax.random.key(0), np.uint32(1), *digits.train)
    assert not jax.make_jaxpr(epoch)(*args).consts
    text = epoch.lower(*args).as_text()
    assert len(text) < digits.train.inputs.nbytes / 5
    compiled = epoch.lower(*args).compile()
    assert compiled.memory_analysis().argument_size_in_bytes > digits.train.inputs.nbytes


def test_the_state_is_donated(digits, params):
    optimizer = optax.adam(0.01)
    epoch = train.make_epoch(train.GRADIENTS["hand"], optimizer, 32)
    state = train.TrainState(params, optimizer.init(params))
    memory = epoch.lower(state, jax.random.key(0), np.uint32(1), *digits.train).compile()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state.params))
    assert memory.memory_analysis().alias_size_in_bytes >= 3 * size  # params and Adam's moments


def test_the_given_parameters_survive(digits, params):
    before = jax.tree.map(np.array, params)
    list(fit(params, digits.train).epochs)
    jax.tree.map(np.testing.assert_array_equal, params, before)


def test_the_same_key_draws_the_same_run_and_another_key_another(digits, params):
    first, again, other = (
        [epoch.train_loss for epoch in fit(params, digits.train, key=jax.random.key(seed)).epochs]
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_epochs_see_every_example_once_up_to_the_remainder(digits, params):
    """The minibatches of an epoch are disjoint; which examples are left out changes."""
    order = [np.asarray(batches.draw(jax.random.key(0), number, 100, 32)) for number in (1, 2)]
    for epoch in order:
        assert epoch.shape == (3, 32)
        assert len(np.unique(epoch)) == 96
        assert epoch.max() < 100
    assert set(order[0].ravel()) != set(order[1].ravel())


@pytest.mark.parametrize("optimizer", train.OPTIMIZERS)
def test_hand_and_auto_train_to_the_same_loss(digits, params, optimizer):
    losses = {
        name: [
            epoch.train_loss
            for epoch in fit(
                params,
                digits.train,
                optimizer=train.make_optimizer(optimizer, 0.01),
                value_and_grad=value_and_grad,
                epochs=2,
            ).epochs
        ]
        for name, value_and_grad in train.GRADIENTS.items()
    }
    # Adam divides by the root of squared gradients, so that rounding of the smallest ones counts.
    np.testing.assert_allclose(losses["hand"], losses["auto"], rtol=1e5 * EPSILON)


def test_full_batch_is_gradient_descent_without_a_permutation(digits, params):
    examples = len(digits.train.inputs)
    (epoch,) = fit(params, digits.train, batch_size=examples, epochs=1).epochs
    loss, gradient = jax.value_and_grad(mlp.loss)(params, *map(jnp.asarray, digits.train))
    assert epoch.train_loss == pytest.approx(float(loss), rel=100 * EPSILON)
    expected = jax.tree.map(lambda leaf, slope: leaf - 0.5 * slope, params, gradient)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=100 * EPSILON),
        epoch.state.params,
        expected,
    )


def test_cosine_schedule_ends_at_zero(digits, params):
    steps = train.steps_per_epoch(len(digits.train.inputs), 32)
    optimizer = train.make_optimizer("sgd", 0.5, decay_steps=2 * steps)
    epochs = fit(params, digits.train, optimizer=optimizer, epochs=3).epochs
    after = [jax.tree.map(np.array, epoch.state.params) for epoch in epochs]
    moved = [
        sum(float(np.abs(a - b).sum()) for a, b in zip(*map(jax.tree.leaves, pair), strict=True))
        for pair in itertools.pairwise(after)
    ]
    assert moved[0] > 0
    assert moved[1] == 0  # the third epoch is past the end


def test_evaluate_is_numpy(digits, params):
    evaluation = train.evaluate(params, digits.test)
    outputs = np.asarray(mlp.forward(params, jnp.asarray(digits.test.inputs)), np.float64)
    errors = ((outputs - digits.test.targets) ** 2).sum(axis=1)
    predicted = outputs.argmax(axis=1)
    assert evaluation.loss == pytest.approx(errors.mean())
    assert evaluation.accuracy == np.mean(predicted == digits.test.labels)
    np.testing.assert_array_equal(evaluation.predicted, predicted)
    for true, guess in itertools.product(range(10), repeat=2):
        count = np.sum((digits.test.labels == true) & (predicted == guess))
        assert evaluation.confusion[true, guess] == count
    assert (predicted[evaluation.mistakes] != digits.test.labels[evaluation.mistakes]).all()
    assert len(evaluation.mistakes) == np.sum(predicted != digits.test.labels)
    assert (np.diff(errors[evaluation.mistakes]) <= 0).all()


def test_loss_and_accuracy(digits, params):
    batch = tuple(map(jnp.asarray, digits.validation))
    loss, accuracy = train.loss_and_accuracy(params, *batch)
    assert float(loss) == pytest.approx(float(mlp.loss(params, *batch)), rel=100 * EPSILON)
    assert float(accuracy) == pytest.approx(float(mlp.accuracy(params, *batch)))


@pytest.mark.parametrize(
    ("debug_nans", "message"),
    [
        (False, r"the loss is nan in epoch 1, step \d+ of 40"),
        (True, r"nan.* in dot_general in epoch 1, step \d+, at mlp\.py:\d+: return jnp.matmul"),
    ],
)
def test_divergence_names_epoch_and_step(digits, params, debug_nans, message):
    largest = float(jnp.finfo(DTYPE).max)
    run = fit(params, digits.train, optimizer=optax.adam(largest / 2), debug_nans=debug_nans)
    with pytest.raises(train.DivergedError, match=message):
        list(run.epochs)
    assert not jax.config.jax_debug_nans  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("batch_size", [32, 1294])
def test_debugging_nans_trains_alike(digits, params, batch_size):
    flags = {"batch_size": batch_size}
    usual, debugged = (
        [epoch.train_loss for epoch in fit(params, digits.train, debug_nans=debug, **flags).epochs]
        for debug in (False, True)
    )
    np.testing.assert_allclose(usual, debugged, rtol=1e4 * EPSILON)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size must be from 1 to the 1294 examples .* got 0"),
        ({"batch_size": 1295}, "batch_size must be from 1 to the 1294 examples .* got 1295"),
        ({"epochs": 0}, "epochs must be 1 or more, got 0"),
    ],
)
def test_bad_calls_say_what_was_expected_and_what_came(digits, params, changes, message):
    with pytest.raises(ValueError, match=message):
        fit(params, digits.train, **changes)


def test_an_update_that_no_loss_sees_is_caught(digits, params):
    """The last update of the run makes the parameters infinite; every loss is finite."""
    largest = float(jnp.finfo(DTYPE).max)
    infinite = optax.chain(optax.scale(largest), optax.scale(largest))
    run = fit(params, digits.train, optimizer=infinite, batch_size=1294, epochs=1)
    with pytest.raises(train.DivergedError, match="after the update in epoch 1, step 1 of 1"):
        list(run.epochs)


def test_optimizers_that_keep_the_parameters_or_ask_for_the_loss_train(digits, params):
    for optimizer in (optax.contrib.prodigy(), optax.polyak_sgd(max_learning_rate=1.0)):
        epochs = list(fit(params, digits.train, optimizer=optimizer).epochs)
        assert epochs[-1].train_loss < epochs[0].train_loss


@pytest.mark.parametrize("debug_nans", [False, True])
def test_targets_of_another_length_are_refused(digits, params, debug_nans):
    short = data.Split(digits.train.inputs, digits.train.targets[:50])
    message = r"targets must have shape \(1294, 10\), got \(50, 10\)"
    with pytest.raises(ValueError, match=message):
        fit(params, short, debug_nans=debug_nans)
    with pytest.raises(ValueError, match=message):
        fit(params, digits.train, validation=short, debug_nans=debug_nans)


def test_data_that_does_not_fit_is_refused_before_training(digits, params):
    narrow = data.Split(digits.train.inputs[:, 1:], digits.train.targets)
    with pytest.raises(ValueError, match=r"inputs must have shape \(batch, 64\)"):
        fit(params, narrow)
    with pytest.raises(ValueError, match=r"inputs must have shape \(batch, 64\)"):
        train.evaluate(params, narrow)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("lion", 0.1), "one of sgd, momentum, adam, adamw, got 'lion'"),
        (("sgd", 0.0), "positive and finite, got 0.0"),
        (("sgd", -1.0), "positive and finite, got -1.0"),
        (("sgd", float("nan")), "positive and finite, got nan"),
        (("sgd", float("inf")), "positive and finite, got inf"),
    ],
)
def test_make_optimizer_says_what_it_expected(args, message):
    with pytest.raises(ValueError, match=message):
        train.make_optimizer(*args)


def as_bytes(split):
    """The same examples, stored as bytes."""
    return data.Split(
        np.rint(np.asarray(split.inputs) * 255).astype(np.uint8), split.targets.astype(np.uint8)
    )


def as_floats(split):
    return data.Split(split.inputs.astype(DTYPE) / 255, split.targets.astype(DTYPE))


@pytest.mark.parametrize("batch_size", [32, 1294])
def test_bytes_train_as_the_floats_that_they_stand_for(digits, params, batch_size):
    stored = as_bytes(digits.train)
    found, expected = (
        list(fit(params, split, validation=split, batch_size=batch_size).epochs)[-1]
        for split in (stored, as_floats(stored))
    )
    assert found.train_loss == pytest.approx(expected.train_loss, rel=100 * EPSILON)
    assert found.validation_loss == pytest.approx(expected.validation_loss, rel=100 * EPSILON)
    evaluated = [train.evaluate(found.state.params, split) for split in (stored, as_floats(stored))]
    assert evaluated[0].loss == pytest.approx(evaluated[1].loss, rel=100 * EPSILON)
    assert evaluated[0].predicted.tolist() == evaluated[1].predicted.tolist()


def test_several_epochs_are_one_program_that_trains_as_one_by_one(digits, params):
    gradient, optimizer = backprop.value_and_grad, optax.sgd(0.5)
    one_by_one = [epoch.train_loss for epoch in fit(params, digits.train, epochs=3).epochs]
    state = train.TrainState(params, optimizer.init(params))
    state = jax.tree.map(jnp.array, state)
    epochs = train.make_epochs(gradient, optimizer, 32, count=3)
    _, losses = epochs(state, jax.random.key(1), np.uint32(1), *digits.train)
    np.testing.assert_allclose(losses.mean(axis=1), one_by_one, rtol=100 * EPSILON)


@pytest.mark.parametrize("chunk", [0, 33])
def test_chunk_that_does_not_fit_is_refused(digits, params, chunk):
    with pytest.raises(ValueError, match=f"chunk must be from 1 to the 32 rows .*, got {chunk}"):
        fit(params, digits.train, chunk=chunk)


@pytest.mark.skipif(np.float32 != DTYPE, reason="bfloat16 stands beside float32")
def test_bfloat16_trains_as_far_as_float32(digits):
    params = mlp.init(jax.random.key(0), (64, 64, 10))
    accuracies = []
    for precision in (None, "bfloat16"):
        run = fit(
            params,
            digits.train,
            digits.validation,
            optimizer=optax.adam(0.01),
            value_and_grad=functools.partial(backprop.value_and_grad, precision=precision),
            epochs=30,
        )
        last = list(run.epochs)[-1]
        assert all(leaf.dtype == DTYPE for leaf in jax.tree.leaves(last.state.params))
        accuracies.append(last.validation_accuracy)
    assert accuracies[1] == pytest.approx(accuracies[0], abs=0.03)
