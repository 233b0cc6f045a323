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
    assert labels[:4:2] == ["forward: slope 1.000", "central: slope 2.000"]
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


def tolerances_of(axes):
    return [line for line in axes.lines if str(line.get_label()).startswith("tolerance")]


def test_the_tolerance_is_drawn_where_it_is_seen():
    report = gradcheck.check(lambda x: jnp.sum(jnp.sin(x)), jnp.ones(20, DTYPE))
    _, apart = plots.slopes(report.to_dict()).axes
    low, high = apart.get_ylim()
    assert low < report.tolerance < high
    assert tolerances_of(apart)[0].get_ydata()[0] == report.tolerance

    right = np.random.default_rng(0).normal(size=(30, 20))
    figure = plots.error_map(right * (1 + 1e-9), right, "w", fault="sign", tolerance=1e-3)
    axes, bar = figure.axes
    assert axes.get_title().endswith(" in w\nwith the fault sign")
    assert bar.get_ylim()[1] > 1e-3
    assert bar.get_ylabel() == "line: tolerance 0.001"

    metrics = [
        {
            "epoch": i,
            "train_loss": 1 / i,
            "validation_loss": None,
            "validation_accuracy": None,
            "gradient": {"errors": {"w": 1e-7 * i}, "tolerance": 1e-3},
        }
        for i in (1, 2)
    ]
    summary = {"test_accuracy": 0.9, "test_loss": 0.1, "unit": "iteration"}
    loss, errors = plots.training(metrics, summary).axes
    assert tolerances_of(errors)[0].get_ydata()[0] == 1e-3
    assert loss.get_xlabel() == errors.get_xlabel() == "iteration"


def test_convergence_names_its_upright_lines():
    steps = np.logspace(0, -12, 25).tolist()
    curves = {"path": "w", "dtype": "float64", "steps": steps, "chosen": 1e-5}
    (axes,) = plots.convergence(curves | {"forward": curve(1), "central": curve(2)}).axes
    labels = {text.get_text() for text in axes.get_legend().get_texts()}
    best = {f"{scheme}: predicted best step" for scheme in ("forward", "central")}
    assert {*best, "finest step that an audit uses"} <= labels


def test_thousands_of_mistakes_are_written_as_such():
    mistake = {"image": [[0, 255], [255, 0]], "label": 0, "predicted": 1}
    summary = {"confusion": [[5_000, 1_234], [0, 5_000]], "test_examples": 11_234}
    (axes,) = plots.mistakes([mistake] * 3, summary).axes
    assert axes.get_title() == "The 3 worst of 1,234 mistakes among 11,234 test images"
