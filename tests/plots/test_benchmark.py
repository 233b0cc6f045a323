import json

import numpy as np
import pytest
from suites import pictures

from jaxnet.plots import benchmark

from ..conftest import ROOT

POINT = {"seconds": [0.1, 0.2, 0.4], "median": 0.2, "peak_mb": 9.0, "compiled": None}


def test_a_roofline_shows_each_program_at_its_intensity():
    programs = {"ours": (100.0, 300.0), "theirs": (25.0, 200.0), "again": (25.0, 199.0)}
    peaks = {"float32": 400.0, "bfloat16": 800.0}
    (axes,) = benchmark.roofline(programs, bandwidth=10.0, peaks=peaks, highlighted=["ours"]).axes
    roof, higher, *points = axes.lines
    assert np.max(roof.get_ydata()) == 400
    assert np.max(higher.get_ydata()) == 800
    assert {(*p.get_xdata(), *p.get_ydata()) for p in points} == set(programs.values())
    colors = {label.get_text(): p.get_color() for label, p in zip(axes.texts, points, strict=True)}
    assert colors["ours"] != colors["theirs"] == colors["again"]
    heights = {label.get_text(): label.xyann[1] for label in axes.texts}
    assert heights["theirs"] - heights["again"] == pytest.approx(800 / 28)


def test_scaling_has_a_column_for_each_curve():
    curves = {
        "batch": [{"size": 1, **POINT}, {"size": 2, **POINT}],
        "depth": [{"size": 1, **POINT}],
    }
    figure = benchmark.scaling(curves, exponents={"batch": 0.5, "depth": "nan"})
    figure.draw_without_rendering()
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["batch, power 0.50", "depth, power nan", "", ""]


def test_the_stored_record_of_steps_has_its_picture(tmp_path):
    stored = ROOT / "results" / "benchmark" / "step-cpu-2.json"
    pictures.draw("roofline", json.loads(stored.read_text()), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_a_record_of_scaling_has_its_picture(tmp_path):
    record = {"curves": {"batch": [{"size": 1, **POINT}]}, "exponents": {"batch": 1.0}}
    pictures.draw("scaling", record, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 5_000


@pytest.mark.parametrize(
    ("peer", "expected"),
    [("jaxnet-bfloat16", 1), ("torch-bfloat16-chunked", 2), ("torch", 4), ("numpy-float64", 8)],
)
def test_a_peer_stores_a_pixel_in_so_many_bytes(peer, expected):
    assert pictures._pixel_bytes(peer) == expected
