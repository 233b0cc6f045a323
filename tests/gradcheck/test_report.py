import json

import jax
import jax.numpy as jnp
import pytest

from jaxnet import gradcheck

from .common import smooth


def test_report_is_a_table_and_json(tree):
    report = gradcheck.check(smooth, tree, gradient=jax.grad(smooth))
    text = str(report)
    for leaf in report.leaves:
        assert leaf.path in text
    assert text.splitlines()[-1].startswith("pass: gradient in float")
    assert json.loads(report.to_json()) == json.loads(json.dumps(report.to_dict()))
    assert json.loads(report.to_json())["verdict"] == "pass"


def test_nan_is_the_worst_leaf_and_json_knows_it(tree):
    gradient = jax.grad(smooth)(tree)
    gradient["matrix"] = 2 * gradient["matrix"]
    gradient["scalar"] = gradient["scalar"] * jnp.nan
    report = gradcheck.check(smooth, tree, gradient=gradient)
    assert report.worst.path == "tree['scalar']"
    values = json.loads(report.to_json(), parse_constant=pytest.fail)
    assert [leaf["error"] for leaf in values["leaves"]].count("nan") == 1
