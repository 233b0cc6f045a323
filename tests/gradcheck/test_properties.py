"""Of random trees and functions: right gradients pass, and planted errors fail where they are."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np

from jaxnet import gradcheck

SHAPES = st.sampled_from([(), (1,), (7,), (3, 5), (2, 3, 2)])
FUNCTIONS = {"sin": jnp.sin, "tanh": jnp.tanh, "square": jnp.square, "exp": jnp.exp}


@st.composite
def problems(draw):
    """Returns a scalar function of a tree, the tree, and a leaf's index."""
    shapes = draw(st.lists(SHAPES, min_size=1, max_size=3))
    names = draw(st.lists(st.sampled_from(sorted(FUNCTIONS)), min_size=3, max_size=3))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    tree = {f"leaf{i}": np.asarray(generator.normal(size=shape)) for i, shape in enumerate(shapes)}
    weights = [np.asarray(generator.uniform(1, 2, size=shape)) for shape in shapes]

    def f(tree):
        leaves = zip(jax.tree.leaves(tree), weights, names, strict=False)
        return sum(jnp.sum(jnp.asarray(w, x.dtype) * FUNCTIONS[name](x)) for x, w, name in leaves)

    return f, tree, draw(st.integers(0, len(shapes) - 1))


@hypothesis.settings(max_examples=6, deadline=None, derandomize=True, database=None)
@hypothesis.given(problem=problems(), factor=st.sampled_from([-1.0, 0.0, 0.99, 1.01, 3.0]))
def test_right_gradients_pass_and_planted_errors_fail_where_they_are(problem, factor):
    f, tree, wrong = problem
    with jax.enable_x64(True):
        gradient = jax.grad(f)(tree)
        audit = gradcheck.make_check(f)
        assert audit(tree, gradient=gradient).verdict == "pass"
        gradient[f"leaf{wrong}"] = factor * gradient[f"leaf{wrong}"]
        report = audit(tree, gradient=gradient)
    assert [leaf.path for leaf in report.leaves if leaf.verdict == "fail"] == [
        f"tree['leaf{wrong}']"
    ]
