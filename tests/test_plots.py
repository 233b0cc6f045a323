"""Pictures of audits; those of a run are in test_record."""

import jax.numpy as jnp
import numpy as np

from jaxnet import gradcheck, plots

DTYPE = jnp.result_type(float)


def test_slopes_are_drawn_with_their_bars():
    x = {"a": jnp.ones(20, DTYPE), "b": jnp.ones(3, DTYPE)}
    report = gradcheck.check(lambda x: jnp.sum(jnp.sin(x["a"])) + jnp.sum(x["b"] ** 2), x)
    both, apart = plots.slopes(report.to_dict()).axes
    points = [line for line in both.lines if len(line.get_xdata()) in (3, 8)]
    assert [len(line.get_xdata()) for line in points] == [8, 3]
    assert both.get_legend().get_texts()[0].get_text() == "x['a']: pass"
    assert len(apart.containers) == 2


def test_an_error_shows_in_its_row():
    right = np.random.default_rng(0).normal(size=(300, 20))
    given = right * (1 + 1e-9)
    given[150] *= 1.1
    figure = plots.error_map(given, right, "w")
    (image,) = figure.axes[0].images
    rows = np.asarray(image.get_array()).max(axis=1)
    assert len(rows) == 150  # of more than 256 rows, each shows the worst of two
    assert np.argmax(rows) == 75
    assert np.sum(rows > 1e-3) == 1


def curve(order):
    steps = np.logspace(0, -12, 25)
    errors = steps**order + 1e-16 / steps
    return {
        "order": order,
        "errors": errors.tolist(),
        "truncation": 1.0,
        "round_off": 1e-16,
        "slope": float(order),
        "best": 1e-8,
        "predicted": 1e-8,
    }


def test_convergence_shows_both_schemes_and_their_models():
    curves = {
        "path": "w",
        "dtype": "float64",
        "steps": np.logspace(0, -12, 25).tolist(),
        "forward": curve(1),
        "central": curve(2),
        "chosen": 1e-5,
    }
    (axes,) = plots.convergence(curves).axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[:2] == ["forward: slope 1.000", "central: slope 2.000"]
    assert axes.get_xscale() == axes.get_yscale() == "log"


def test_detection_shows_who_let_what_pass():
    rows = [
        {"fault": fault, "size": 1.0, "ours": "fail", "theirs": theirs}
        for fault, theirs in (("sign", "pass"), ("sign", "fail"), ("zero", "fail"))
    ]
    (axes,) = plots.detection(rows, {"right": 3, "ours": {}, "theirs": {}}).axes
    (image,) = axes.images
    np.testing.assert_array_equal(image.get_array(), [[0, 0.5], [0, 0]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["sign", "zero"]
    assert [text.get_text() for text in axes.texts] == ["50%"]


def test_the_gradients_error_is_drawn_beside_the_loss():
    metrics = [
        {
            "epoch": i,
            "train_loss": 1 / i,
            "validation_loss": None,
            "validation_accuracy": None,
            **({"gradient": {"errors": {"w": 1e-7 * i, "b": "nan"}}} if i % 2 else {}),
        }
        for i in range(1, 6)
    ]
    loss, errors = plots.training(metrics, {"test_accuracy": 0.9, "test_loss": 0.1}).axes
    assert loss.get_title().startswith("Squared error")
    assert [line.get_label() for line in errors.lines] == ["w", "b"]
    assert errors.lines[0].get_xdata().tolist() == [1, 3, 5]
