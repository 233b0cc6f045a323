import functools
import itertools
import random
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib import patches
from matplotlib.path import Path

from jaxnet import circuit, mlp, plots
from jaxnet.circuit import ADD, EXP, MULTIPLY, RECIPROCAL, Gate, scale, shift
from jaxnet.circuit.graph import show
from jaxnet.plots.style import GREEN, RED

SUBTRACT = Gate("-", lambda x, y: x - y, lambda f, x, y: (1.0, -1.0))


def compound():
    made = circuit.build("xyz", ("q", ADD, "x", "y"), ("f", MULTIPLY, "q", "z"))
    return circuit.run(made, {"x": -2, "y": 5, "z": -4})


def neuron():
    made = circuit.build(
        ["w0", "w1", "x1", "w2", "x2"],
        ("w1x1", MULTIPLY, "w1", "x1"),
        ("w2x2", MULTIPLY, "w2", "x2"),
        ("sum", ADD, "w1x1", "w2x2"),
        ("s", ADD, "sum", "w0"),
        ("-s", scale(-1), "s"),
        ("e", EXP, "-s"),
        ("1 + e", shift(1), "e"),
        ("f", RECIPROCAL, "1 + e"),
    )
    return circuit.run(made, {"w0": -3, "w1": 2, "x1": -1, "w2": -3, "x2": -2})


def network():
    params = mlp.init(jax.random.key(0), (5, 4, 3))
    inputs, targets = jnp.ones((6, 5)), jax.nn.one_hot(jnp.arange(6) % 3, 3)
    return circuit.trace(mlp.loss)(params, inputs, targets)


def tangle(seed=0, gates=40):
    """Returns a circuit whose wires go to several gates, far ones among them, or to none."""
    draw = random.Random(seed)
    names, nodes = ["x", "y", "z"], []
    for i in range(gates):
        gate = draw.choice([ADD, MULTIPLY, SUBTRACT, EXP, scale(0.1), scale(-0.1)])
        count = 2 if gate in (ADD, MULTIPLY, SUBTRACT) else 1
        nodes.append((f"a{i}", gate, *(draw.choice(names[-8:]) for _ in range(count))))
        names.append(f"a{i}")
    return circuit.run(circuit.build("xyz", *nodes), {"x": 0.1, "y": -0.2, "z": 0.3})


def loops():
    def f(x, n):
        last, all_of_them = jax.lax.scan(lambda c, v: (c * v, c - v), x[0], x)
        return 2 / last + jnp.sum(all_of_them) - n

    return circuit.trace(f)(jnp.array([0.5, 2.0, 3.0]), jnp.array(3.0))


def towers():
    """Returns a circuit of two gates with many wires."""

    @jax.jit
    def total(*values):
        return sum(values)

    def f(x, y):
        return total(x, x, x, y, y, y) * total(x, x, y, x, y, y)

    return circuit.trace(f)(jnp.array(2.0), jnp.array(3.0))


def opened(trace):
    return [trace, *(each for box in trace.boxes if box.inside for each in opened(box.inside))]


MADE = {
    "compound": compound,
    "neuron": neuron,
    "network": network,
    "loops": loops,
    "towers": towers,
    **{f"tangle {seed}": functools.partial(tangle, seed) for seed in range(2)},
}


@pytest.fixture(scope="module", params=MADE)
def drawings(request):
    """Returns a circuit, and all that are in it, with their pictures."""
    return [(trace, Drawn(trace)) for trace in opened(MADE[request.param]())]


class Drawn:
    """What can be seen in a picture; lengths are points, and heights go down."""

    def __init__(self, trace, **options):
        self.figure = plots.circuit(trace, **options)
        (self.axes,), self.boxes = self.figure.axes, {}
        wires = [each for each in self.axes.patches if isinstance(each, patches.PathPatch)]
        self.wires = {each.get_label(): strokes(each.get_path()) for each in wires}
        shapes = [each for each in self.axes.patches if each.get_zorder() == 2]
        self.gates = [each for each in shapes if each.get_label()]
        self.inner = [each for each in shapes if not each.get_label()]  # of double edges

    def texts(self, color=None):
        return [each for each in self.axes.texts if color in (None, each.get_color())]

    def box(self, artist):
        if artist not in self.boxes:
            inverted = self.axes.transData.inverted()
            self.boxes[artist] = artist.get_window_extent().transformed(inverted)
        return self.boxes[artist]

    def labels(self, name):
        """Returns the texts right above and below the beginning of a wire."""
        (x, _), (end, y) = self.wires[name][0].vertices[:2]
        found = []
        for color, side in ((GREEN, -1), (RED, 1)):
            near = [
                text.get_text()
                for text in self.texts(color)
                if x < text.get_position()[0] < end and 0 < side * (text.get_position()[1] - y) < 9
            ]
            assert len(near) < 2
            found += near or [""]
        return tuple(found)


def strokes(path):
    starts = [*np.flatnonzero(path.codes == Path.MOVETO), len(path.codes)]
    return [Path(path.vertices[a:b], path.codes[a:b]) for a, b in itertools.pairwise(starts)]


def meets(part, box):
    # A curve lies between its control points: most need no closer look.
    (left, top), (right, bottom) = part.vertices.min(axis=0), part.vertices.max(axis=0)
    is_near = left <= box.xmax and box.xmin <= right and top <= box.ymax and box.ymin <= bottom
    return is_near and part.intersects_bbox(box, filled=False)


def crossings(drawn):
    bends = [
        part.vertices[[i - 1, i + 2]]
        for part in itertools.chain(*drawn.wires.values())
        for i in np.flatnonzero(part.codes == Path.CURVE4)[::3]
    ]
    return sum(
        one[0, 0] == other[0, 0] and np.prod(one[:, 1] - other[:, 1]) < 0
        for one, other in itertools.combinations(bends, 2)
    )


def test_the_slides_values_stand_above_the_wires_and_the_gradients_below():
    drawn = Drawn(compound(), title="f = (x + y) z")
    assert {name: drawn.labels(name) for name in drawn.wires} == {
        "x": ("-2", "-4"),
        "y": ("5", "-4"),
        "z": ("-4", "3"),
        "q": ("3", "-4"),
        "f": ("-12", "1"),
    }
    written = [text.get_text() for text in drawn.texts()]
    assert sorted(gate.get_label() for gate in drawn.gates) == ["*", "+"]
    assert {"x", "y", "z", "q", "f", "+", "*", "f = (x + y) z"} <= set(written)


def test_every_wire_has_its_value_and_its_gradient(drawings):
    for trace, drawn in drawings:
        assert drawn.wires.keys() == trace.wires.keys()
        for name, wire in trace.wires.items():
            assert drawn.labels(name) == (show(wire.value), show(wire.gradient))
        assert [gate.get_label() for gate in drawn.gates] == [box.name for box in trace.boxes]


def test_wires_go_from_left_to_right_and_meet_no_gate_but_their_own(drawings):
    for trace, drawn in drawings:
        boxes = [drawn.box(gate) for gate in drawn.gates]
        for name, parts in drawn.wires.items():
            assert all(np.all(np.diff(part.vertices[:, 0]) >= -1e-6) for part in parts)
            met = [i for i, box in enumerate(boxes) if any(meets(part, box) for part in parts)]
            ends = [i for i, each in enumerate(trace.boxes) if name in each.inputs + each.outputs]
            assert met == ends


def test_nothing_overlaps(drawings):
    for _, drawn in drawings:
        gates = [drawn.box(gate) for gate in drawn.gates]
        texts = [drawn.box(text) for text in drawn.texts()]
        free = [text for text in texts if not any(text.overlaps(gate) for gate in gates)]
        assert len(free) == len(texts) - len(gates)  # each gate has its name
        for some in (gates, texts):
            assert not any(one.overlaps(other) for one, other in itertools.combinations(some, 2))
        every = list(itertools.chain(*drawn.wires.values()))
        assert not any(meets(part, text) for text in free for part in every)


def test_nothing_is_cut_off(drawings):
    for _, drawn in drawings:
        (left, right), (bottom, top) = drawn.axes.get_xlim(), drawn.axes.get_ylim()
        for artist in (*drawn.texts(), *drawn.gates):
            box = drawn.box(artist)
            assert left < box.xmin < box.xmax < right
            assert top < box.ymin < box.ymax < bottom


def test_inputs_stand_left_of_all_gates_and_the_output_right(drawings):
    for trace, drawn in drawings:
        gates = [drawn.box(gate) for gate in drawn.gates]
        first, last = min(gate.xmin for gate in gates), max(gate.xmax for gate in gates)
        left = [each.get_text() for each in drawn.texts() if drawn.box(each).xmax < first]
        right = [each.get_text() for each in drawn.texts() if drawn.box(each).xmin > last]
        assert set(trace.inputs) <= set(left)
        assert set(trace.outputs) <= set(right)
        assert all(drawn.wires[name][0].vertices[0, 0] < first for name in trace.inputs)


def test_what_a_gate_takes_first_comes_in_above():
    made = circuit.build("xy", ("a", EXP, "x"), ("b", EXP, "y"), ("f", SUBTRACT, "b", "a"))
    drawn = Drawn(circuit.run(made, {"x": 1, "y": 2}))
    (a,), (b,) = drawn.wires["a"], drawn.wires["b"]
    assert b.vertices[-1, 1] < a.vertices[-1, 1]
    assert not a.intersects_path(b, filled=False)


def test_wires_of_a_tree_do_not_cross_and_come_in_as_written():
    drawn = Drawn(neuron())
    assert crossings(drawn) == 0
    starts = [drawn.wires[name][0].vertices[0, 1] for name in ("w1", "x1", "w2", "x2", "w0")]
    assert starts == sorted(starts)


@pytest.mark.parametrize(
    ("last", "expected"), [(("z", "x"), 0), (("y", "x"), 1)], ids=["avoidable", "unavoidable"]
)
def test_wires_do_not_cross_if_another_order_avoids_it(last, expected):
    made = circuit.build("xyz", ("p", ADD, "x", "y"), ("q", ADD, *last), ("f", ADD, "p", "q"))
    drawn = Drawn(circuit.run(made, {"x": 1, "y": 2, "z": 3}))
    assert crossings(drawn) == expected


def test_circuits_opens_every_function():
    @jax.jit
    def forward(x):
        return x * x

    @jax.jit
    def loss(x):
        return forward(x) + x

    trace = circuit.trace(lambda x: loss(x) - 1)(jnp.array(3.0))
    found = dict(plots.circuits(trace, title="network"))
    assert list(found) == ["network", "network/loss", "network/loss/forward"]
    assert [len(Drawn(each).inner) for each in opened(trace)] == [1, 1, 0]
    for path, figure in found.items():
        assert figure.axes[0].texts[0].get_text() == path


def test_functions_of_one_name_are_numbered():
    @jax.jit
    def half(x):
        return x / 2

    trace = circuit.trace(lambda x: half(half(x)))(jnp.array(1.0))
    paths = [path for path, _ in plots.circuits(trace)]
    assert paths == ["circuit", "circuit/half", "circuit/half 2"]


def test_constants_stand_above_a_gate_if_they_come_first():
    drawn = Drawn(circuit.trace(lambda x: 2 / x + x / 3)(jnp.array(0.7)))
    over, under = (gate.get_center() for gate in drawn.gates if gate.get_label() == "/")
    two, three = (next(t for t in drawn.texts() if t.get_text() == name) for name in "23")
    assert two.get_position()[0] == over[0]
    assert two.get_position()[1] < over[1]
    assert three.get_position()[0] == under[0]
    assert three.get_position()[1] > under[1]
    assert two.get_fontsize() == three.get_fontsize() < 9


def test_long_names_are_cut():
    name = "a_name_that_nobody_would_want_to_read_in_a_circuit"
    made = circuit.build([name], ("f", Gate(name, jnp.sin, lambda f, x: (jnp.cos(x),)), name))
    written = [text.get_text() for text in Drawn(circuit.run(made, {name: 0})).texts()]
    assert name not in written
    assert written.count("a_name_that…_a_circuit") == 2


def test_dollars_are_no_mathematics():
    gate = Gate("$x^{$", jnp.sin, lambda f, x: (jnp.cos(x),))
    figure = plots.circuit(circuit.run(circuit.build("x", ("$f$", gate, "x")), {"x": 0}))
    content = plots.encode(figure, "dollars", vector=True)
    assert content.count(b">$x^{$</text>") == 1
    assert content.count(b">$f$</text>") == 1


def test_a_circuit_without_gates_is_a_wire():
    drawn = Drawn(circuit.trace(lambda x: x)(jnp.array(2.0)))
    assert drawn.labels("x") == ("2", "1")
    assert not drawn.gates


def test_the_picture_grows_with_the_circuit():
    few, more = (plots.circuit(tangle(gates=gates)).get_size_inches() for gates in (5, 25))
    assert more[0] > 2 * few[0]
    assert more[1] > few[1]


def test_the_text_of_a_saved_picture_is_text():
    content = plots.encode(plots.circuit(neuron()), "neuron", vector=True).decode()
    assert all(f">{each}</text>" in content for each in ("0.7311", "-0.5898", "0.3932", "1/x"))


def test_without_igraph_one_error_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "igraph", None)
    with pytest.raises(ImportError, match=r"need igraph: pip install 'jaxnet-mlp\[lecture\]'"):
        plots.circuit(compound())
