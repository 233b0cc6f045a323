import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnet import backprop, data, mlp, train

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


def prepare(params, split, validation=None, **changes):
    keywords = {
        "key": jax.random.key(1),
        "optimizer": optax.sgd(0.5),
        "batch_size": 32,
        **changes,
    }
    return train.prepare(params, split, validation, **keywords)


def losses(run):
    return [metrics.train_loss for metrics in run.history]


def test_training_learns_the_digits(digits):
    params = mlp.init(jax.random.key(0), (64, 64, 10))
    run = fit(
        params, digits.train, optimizer=optax.adam(0.01), epochs=30, validation=digits.validation
    )
    epochs = run.history
    assert [metrics.epoch for metrics in epochs] == list(range(1, 31))
    assert epochs[-1].train_loss < 0.1 * epochs[0].train_loss
    assert epochs[-1].validation_accuracy > 0.93
    expected = mlp.loss(run.params, *map(jnp.asarray, digits.validation))
    assert epochs[-1].validation_loss == pytest.approx(float(expected), rel=100 * EPSILON)
    assert run.compile_seconds > 0
    assert all(metrics.seconds > 0 for metrics in epochs)


def test_an_epoch_is_the_loop_that_it_stands_for(digits, params):
    """The scan against a Python loop over the minibatches that the key draws."""
    found = fit(params, digits.train, epochs=1)
    inputs, targets = map(np.asarray, digits.train)
    losses = []
    for rows in np.asarray(train.draw(jax.random.key(1), 1, len(inputs), 32)):
        loss, gradient = jax.value_and_grad(mlp.loss)(params, inputs[rows], targets[rows])
        params = jax.tree.map(lambda leaf, slope: leaf - 0.5 * slope, params, gradient)
        losses.append(float(loss))
    assert found.history[0].train_loss == pytest.approx(np.mean(losses), rel=1000 * EPSILON)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e4 * EPSILON),
        found.params,
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
    epochs = prepare(params, digits.train, digits.validation).epochs(4)
    next(epochs)
    before = len(compilations)
    assert len(list(epochs)) == 3
    assert len(compilations) == before
    jax.jit(lambda x: x + 1)(jnp.zeros(3))  # which the counter would have seen
    assert len(compilations) > before


def test_epochs_move_nothing_between_host_and_device_unasked(digits, params):
    """What is asked for is the metrics on the way out."""
    trainer = prepare(params, digits.train, digits.validation)
    with jax.transfer_guard("disallow"):
        assert len(list(trainer.epochs(3))) == 3
    with jax.transfer_guard("disallow"), pytest.raises(Exception, match="Disallowed"):
        jax.jit(jnp.sin)(np.ones(3))  # which the guard would have stopped


@pytest.mark.parametrize("batch_size", [32, 1294])
def test_the_dataset_is_an_argument_of_the_program(digits, params, batch_size):
    """Not a constant baked into it: the program's text is small and closes over no array."""
    optimizer = optax.sgd(0.5)
    epoch = train.make_epoch(train.GRADIENTS["hand"], optimizer, batch_size=batch_size)
    args = (train.init_state(params, optimizer, jax.random.key(0)), *digits.train)
    assert not jax.make_jaxpr(epoch)(*args).consts
    text = epoch.lower(*args).as_text()
    assert len(text) < digits.train.inputs.nbytes / 5
    compiled = epoch.lower(*args).compile()
    assert compiled.memory_analysis().argument_size_in_bytes > digits.train.inputs.nbytes


def test_states_live_on(digits, params):
    """None is donated to the next epoch: keep the best, go back, start from any of them."""
    states = [state for state, _ in prepare(params, digits.train).epochs(3)]
    assert [int(state.epoch) for state in states] == [1, 2, 3]
    assert len({float(state.params[0].weight.sum()) for state in states}) == 3


def test_epochs_start_anew_with_each_call(digits, params):
    trainer = prepare(params, digits.train)
    first, again = ([m.train_loss for _, m in trainer.epochs(2)] for _ in range(2))
    assert first == again


def test_fit_goes_on_from_a_state_bit_for_bit(digits, params):
    optimizer = optax.adam(0.01)
    whole = fit(params, digits.train, optimizer=optimizer, epochs=4)
    half = fit(params, digits.train, optimizer=optimizer, epochs=2)
    rest = fit(half.state, digits.train, optimizer=optimizer, epochs=2, key=None)
    assert [metrics.epoch for metrics in rest.history] == [3, 4]
    assert whole.history[2].train_loss == rest.history[0].train_loss
    jax.tree.map(np.testing.assert_array_equal, whole.params, rest.params)
    with pytest.raises(ValueError, match="key must be None with a TrainState"):
        fit(half.state, digits.train, optimizer=optimizer)


def test_fit_gives_back_the_best_and_the_last_state(digits, params):
    seen = []
    run = fit(
        params,
        digits.train,
        digits.validation,
        optimizer=optax.sgd(3.0),
        epochs=6,
        on_epoch=lambda state, metrics: seen.append((state, metrics)),
    )
    accuracies = [metrics.validation_accuracy for metrics in run.history]
    assert [metrics for _, metrics in seen] == list(run.history)
    assert int(run.best.epoch) == 1 + accuracies.index(max(accuracies))
    assert int(run.state.epoch) == 6
    assert run.params is run.state.params
    assert fit(params, digits.train).best.epoch == 3  # without a validation set, the last


def test_the_given_parameters_survive(digits, params):
    before = jax.tree.map(np.array, params)
    fit(params, digits.train)
    jax.tree.map(np.testing.assert_array_equal, params, before)


def test_the_same_key_draws_the_same_run_and_another_key_another(digits, params):
    first, again, other = (
        losses(fit(params, digits.train, key=jax.random.key(seed))) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_epochs_see_every_example_once_up_to_the_remainder(digits, params):
    """The minibatches of an epoch are disjoint; which examples are left out changes."""
    order = [np.asarray(train.draw(jax.random.key(0), number, 100, 32)) for number in (1, 2)]
    for epoch in order:
        assert epoch.shape == (3, 32)
        assert len(np.unique(epoch)) == 96
        assert epoch.max() < 100
    assert set(order[0].ravel()) != set(order[1].ravel())


@pytest.mark.parametrize("optimizer", train.OPTIMIZERS)
def test_hand_and_auto_train_to_the_same_loss(digits, params, optimizer):
    found = {
        name: losses(
            fit(
                params,
                digits.train,
                optimizer=train.make_optimizer(optimizer, 0.01),
                value_and_grad=value_and_grad,
                epochs=2,
            )
        )
        for name, value_and_grad in train.GRADIENTS.items()
    }
    # Adam divides by the root of squared gradients, so that rounding of the smallest ones counts.
    np.testing.assert_allclose(found["hand"], found["auto"], rtol=1e5 * EPSILON)


def test_full_batch_is_gradient_descent_without_a_permutation(digits, params):
    examples = len(digits.train.inputs)
    found = fit(params, digits.train, batch_size=examples, epochs=1)
    loss, gradient = jax.value_and_grad(mlp.loss)(params, *map(jnp.asarray, digits.train))
    assert found.history[0].train_loss == pytest.approx(float(loss), rel=100 * EPSILON)
    expected = jax.tree.map(lambda leaf, slope: leaf - 0.5 * slope, params, gradient)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=100 * EPSILON),
        found.params,
        expected,
    )


def test_cosine_schedule_ends_at_zero(digits, params):
    steps = train.steps_per_epoch(len(digits.train.inputs), 32)
    optimizer = train.make_optimizer("sgd", 0.5, decay_steps=2 * steps)
    trainer = prepare(params, digits.train, optimizer=optimizer)
    after = [state.params for state, _ in trainer.epochs(3)]
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
        (
            True,
            r"nan.* in dot_general in epoch 1, step \d+, at products\.py:\d+: return jnp.matmul",
        ),
    ],
)
def test_divergence_names_epoch_and_step(digits, params, debug_nans, message):
    largest = float(jnp.finfo(DTYPE).max)
    with pytest.raises(train.DivergedError, match=message):
        fit(params, digits.train, optimizer=optax.adam(largest / 2), debug_nans=debug_nans)
    assert not jax.config.jax_debug_nans  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("batch_size", [32, 1294])
def test_debugging_nans_trains_alike(digits, params, batch_size):
    flags = {"batch_size": batch_size}
    usual, debugged = (
        losses(fit(params, digits.train, debug_nans=debug, **flags)) for debug in (False, True)
    )
    np.testing.assert_allclose(usual, debugged, rtol=1e4 * EPSILON)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size must be from 1 to the 1294 examples .* got 0"),
        ({"batch_size": 1295}, "batch_size must be from 1 to the 1294 examples .* got 1295"),
        ({"epochs": 0}, "epochs must be 1 or more, got 0"),
        ({"batch_size": True}, "batch_size must be an integer, got True"),
        ({"batch_size": 32.0}, "batch_size must be an integer, got 32.0"),
        ({"epochs": "3"}, "epochs must be an integer, got '3'"),
        ({"microbatch": False}, "microbatch must be an integer, got False"),
        ({"optimizer": "adam"}, r"optimizer must be an optax transformation, .* got 'adam'"),
        ({"optimizer": None}, "optimizer must be an optax transformation, .* got None"),
        ({"optimizer": optax.adam}, "optimizer must be an optax transformation, .* got <function"),
        ({"key": None}, "key must be a key of jax.random, got NoneType"),
        ({"key": 3}, "key must be a key of jax.random, got int"),
        ({"devices": []}, "devices must divide the 32 rows of a batch, got 0"),
        ({"train": None}, "train must be a data.Split of inputs and targets, got NoneType"),
        ({"train": (1, 2)}, "train must be a data.Split of inputs and targets, got tuple"),
        ({"validation": ()}, "validation must be a data.Split of inputs and targets, got tuple"),
        ({"start": ()}, "params must be a non-empty tuple of Layer, got tuple"),
        ({"start": None}, "params must be a non-empty tuple of Layer, got NoneType"),
    ],
)
def test_bad_calls_say_what_was_expected_and_what_came(digits, params, changes, message):
    arguments = {"start": params, "train": digits.train, "validation": None, **changes}
    places = [arguments.pop(name) for name in ("start", "train", "validation")]
    with pytest.raises((ValueError, TypeError), match=message):
        fit(*places, **arguments)


@pytest.mark.parametrize("rate", [1e10, 1e30])
def test_parameters_that_saturate_every_sigmoid_have_diverged(digits, params, rate):
    """Their loss is finite, and will not change any more."""
    with pytest.raises(train.DivergedError, match=r"a parameter is \S+ in size after the update"):
        fit(params, digits.train, optimizer=optax.adam(rate))


def test_an_update_that_no_loss_sees_is_caught(digits, params):
    """The last update of the run makes the parameters infinite; every loss is finite."""
    largest = float(jnp.finfo(DTYPE).max)
    infinite = optax.chain(optax.scale(largest), optax.scale(largest))
    with pytest.raises(train.DivergedError, match="after the update in epoch 1, step 1 of 1"):
        fit(params, digits.train, optimizer=infinite, batch_size=1294, epochs=1)


def test_optimizers_that_keep_the_parameters_or_ask_for_the_loss_train(digits, params):
    for optimizer in (optax.contrib.prodigy(), optax.polyak_sgd(max_learning_rate=1.0)):
        epochs = fit(params, digits.train, optimizer=optimizer).history
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
        fit(params, split, validation=split, batch_size=batch_size)
        for split in (stored, as_floats(stored))
    )
    last, theirs = found.history[-1], expected.history[-1]
    assert last.train_loss == pytest.approx(theirs.train_loss, rel=100 * EPSILON)
    assert last.validation_loss == pytest.approx(theirs.validation_loss, rel=100 * EPSILON)
    evaluated = [train.evaluate(found.params, split) for split in (stored, as_floats(stored))]
    assert evaluated[0].loss == pytest.approx(evaluated[1].loss, rel=100 * EPSILON)
    assert evaluated[0].predicted.tolist() == evaluated[1].predicted.tolist()


def test_several_epochs_are_one_program_that_trains_as_one_by_one(digits, params):
    gradient, optimizer = backprop.value_and_grad, optax.sgd(0.5)
    one_by_one = fit(params, digits.train, epochs=3)
    epochs = train.make_epochs(gradient, optimizer, batch_size=32, count=3)
    state = train.init_state(params, optimizer, jax.random.key(1))
    state, found = epochs(state, *digits.train)
    assert state.epoch == 3
    np.testing.assert_allclose(found.mean(axis=1), losses(one_by_one), rtol=100 * EPSILON)


@pytest.mark.parametrize("rows", [0, 33])
def test_a_microbatch_that_does_not_fit_is_refused(digits, params, rows):
    message = f"microbatch must be from 1 to the 32 rows .*, got {rows}"
    with pytest.raises(ValueError, match=message):
        fit(params, digits.train, microbatch=rows)


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
        assert all(leaf.dtype == DTYPE for leaf in jax.tree.leaves(run.params))
        accuracies.append(run.history[-1].validation_accuracy)
    assert accuracies[1] == pytest.approx(accuracies[0], abs=0.03)
