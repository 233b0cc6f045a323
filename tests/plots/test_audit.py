import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import gradcheck, plots, text

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


def test_convergence_names_its_upright_lines():
    steps = np.logspace(0, -12, 25).tolist()
    curves = {"path": "w", "dtype": "float64", "steps": steps, "chosen": 1e-5}
    (axes,) = plots.convergence(curves | {"forward": curve(1), "central": curve(2)}).axes
    labels = {text.get_text() for text in axes.get_legend().get_texts()}
    best = {f"{scheme}: predicted best step" for scheme in ("forward", "central")}
    assert {*best, "finest step that an audit uses"} <= labels


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


def test_the_tolerance_is_drawn_where_it_is_seen():
    report = gradcheck.check(lambda x: jnp.sum(jnp.sin(x)), jnp.ones(20, DTYPE))
    _, apart = plots.slopes(report.to_dict()).axes
    low, high = apart.get_ylim()
    assert low < report.tolerance < high
    assert tolerance_of(apart) == report.tolerance

    right = np.random.default_rng(0).normal(size=(30, 20))
    figure = plots.error_map(right * (1 + 1e-9), right, "w", fault="sign", tolerance=1e-3)
    axes, bar = figure.axes
    assert axes.get_title().endswith(" in w\nwith the fault sign")
    assert bar.get_ylim()[1] > 1e-3
    assert bar.get_ylabel() == "line: tolerance 0.001"


def tolerance_of(axes):
    (line,) = (each for each in axes.lines if str(each.get_label()).startswith("tolerance"))
    return line.get_ydata()[0]


@pytest.mark.parametrize("unknown", [None, "nan", "inf", np.nan])
def test_what_is_not_finite_is_left_out(unknown):
    curves = {"path": "w", "dtype": "float64", "steps": [1.0, 0.1], "chosen": 1e-5}
    lost = {**curve(1), "errors": [unknown, 0.5], "slope": unknown, "predicted": unknown}
    (axes,) = plots.convergence(curves | {"forward": lost, "central": lost}).axes
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [np.nan, 0.5])
    lost["errors"] = [unknown, unknown]
    (axes,) = plots.convergence(curves | {"forward": lost, "central": lost}).axes
    assert np.isfinite(axes.get_ylim()).all()


def test_a_report_of_nan_has_a_picture():
    report = gradcheck.check(jnp.sum, jnp.ones(3, DTYPE), gradient=lambda x: x * np.nan)
    figure = plots.slopes(text.plain(report.to_dict()))
    figure.draw_without_rendering()
    assert np.isnan(figure.axes[0].lines[0].get_ydata()).all()
