"""The pictures of a circuit, as on the lecture's slides about backpropagation."""

import collections
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, PathPatch
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from matplotlib.transforms import Bbox

from jaxnet.circuit.graph import Box, Trace, show
from jaxnet.plots.layers import ENTRY, EXIT, Node, arrange
from jaxnet.plots.style import GREEN, RED

__all__ = ["circuit", "circuits"]

# Lengths are in points, as font sizes are.
_GATE, _CORNER, _EDGE = 28.0, 9.0, 2.5  # diameter; radius of corners; gap in a double edge
_GAP, _MARGIN = 5.0, 14.0
_TITLE, _SYMBOL, _TEXT, _SMALL = 11.0, 13.0, 9.0, 7.5  # fonts
_INK, _PALE, _IDLE = "0.15", "0.4", "0.65"
_LONGEST = 22  # letters of a name
_COMMUTATIVE = ("+", "*", "max", "min")


def circuit(trace: Trace, *, title: str = "") -> Figure:
    """Returns a picture of a circuit: gates and wires, values above wires, gradients below.

    A gate with a double edge is a function, whose own circuit `circuits` draws. A constant stands
    above its gate if it comes before the gate's first wire, below it otherwise. A wire without a
    gradient is pale.

    Args:
      trace: the result of `jaxnet.circuit.run` or `jaxnet.circuit.trace`.
      title: is written above the picture.

    Raises:
      ImportError: igraph, which arranges the gates, is not installed.

    Example:
      >>> from jaxnet.circuit import MULTIPLY, build, run
      >>> trace = run(build(["x", "y"], ("f", MULTIPLY, "x", "y")), {"x": 2, "y": 3})
      >>> figure = circuit(trace)
      >>> [text.get_text() for text in figure.axes[0].texts]
      ['2', '3', '3', '2', '6', '1', '*', 'x', 'y', 'f']
    """
    starts = [_end(trace, name, "left") for name in trace.inputs]
    gates = [_gate(trace, box) for box in trace.boxes]
    ends = [_end(trace, name, "right") for name in trace.outputs]
    nodes = arrange([*starts, *gates, *ends])
    figure, axes = _canvas(nodes, title)
    for node in (*starts, *gates):
        for name in node.gives:
            _draw_wire(axes, nodes, node, name, trace)
            _draw_label(axes, node, name, trace)
    for node, box in zip(gates, trace.boxes, strict=True):
        _draw_gate(axes, node, box, trace)
    for node, name in zip(starts, trace.inputs, strict=True):
        _write(axes, node.right - _GAP, node.y, _cut(name), ha="right", va="center")
    for node, name in zip(ends, trace.outputs, strict=True):
        color = _INK if node.takes else _PALE
        _write(axes, node.left + _GAP, node.y, _cut(name), va="center", color=color)
    return figure


def circuits(trace: Trace, *, title: str = "circuit") -> list[tuple[str, Figure]]:
    """Returns the picture of a circuit, and one of each function inside.

    Args:
      trace: see `circuit`.
      title: of the circuit itself, and the beginning of all other titles.

    Returns:
      For each picture its title and the picture. A title is a path of names: ``circuit``,
      ``circuit/loss``, ``circuit/loss/forward``; where a name occurs again, ``forward 2``.

    Raises:
      ImportError: see `circuit`.

    Example:
      >>> import jax
      >>> from jaxnet.circuit import trace
      >>> double = jax.jit(lambda x: x + x)
      >>> [title for title, _ in circuits(trace(lambda x: double(x) * x)(2.0))]
      ['circuit', 'circuit/<lambda>']
    """
    found = [(title, circuit(trace, title=title))]
    count = collections.Counter()
    for box in trace.boxes:
        if box.inside is not None:
            count[box.name] += 1
            number = f" {count[box.name]}" if count[box.name] > 1 else ""
            found += circuits(box.inside, title=f"{title}/{box.name}{number}")
    return found


# Sizes


class _Label(NamedTuple):
    """The texts at the beginning of a wire; value and gradient stand after an indent."""

    name: str
    value: str
    gradient: str
    indent: float
    width: float


def _label(trace: Trace, name: str) -> _Label:
    wire = trace.wires[name]
    value, gradient = show(wire.value), show(wire.gradient)
    # Inputs and outputs have their names at the ends of the circuit.
    named = "" if name in (*trace.inputs, *trace.outputs) else _cut(name)
    indent = _GAP + (_width(named) + _GAP if named else 0.0)
    width = indent + max(_width(value), _width(gradient)) + _GAP
    return _Label(named, value, gradient, indent, width)


def _end(trace: Trace, name: str, side: str) -> Node:
    return Node(
        takes=[name] if side == "right" and name in trace.wires else [],
        gives=[name] if side == "left" else [],
        side=side,
        width=_width(_cut(name)) + _GAP,
        tail=_label(trace, name).width if side == "left" else 0.0,
        up=EXIT / 2,
        down=EXIT / 2,
    )


def _gate(trace: Trace, box: Box) -> Node:
    takes = [name for name in box.inputs if name in trace.wires]
    above, below = _constants(trace, box)
    width, height = _size(box, takes)
    half = max(height / 2 + _GAP, EXIT / 2)
    return Node(
        takes=takes,
        gives=box.outputs,
        commutes=box.name in _COMMUTATIVE,
        width=max(width, _width(above, _SMALL), _width(below, _SMALL)),
        tail=max((_label(trace, name).width for name in box.outputs), default=0.0),
        up=half + bool(above) * 1.5 * _SMALL,
        down=half + bool(below) * 1.5 * _SMALL,
    )


def _size(box: Box, takes: Sequence[str]) -> tuple[float, float]:
    """Returns width and height of a gate: of a circle, if name and wires fit into it."""
    exits = EXIT * len(box.outputs) if len(box.outputs) > 1 else 0.0
    height = max(_GATE, ENTRY * len(takes) + 4.0, exits)
    width = _width(_cut(box.name), _font(box)) + (10.0 if box.inside is None else 18.0)
    is_circle = height == _GATE and width < _GATE + 6.0
    return _GATE if is_circle else max(_GATE, width), height


def _constants(trace: Trace, box: Box) -> tuple[str, str]:
    """Returns the constants among a gate's inputs, as text: before the first wire, and after."""
    known = [name in trace.wires for name in box.inputs]
    first = known.index(True) if any(known) else 0
    parts = box.inputs[:first], box.inputs[first:]
    before, after = (" ".join(_cut(each) for each in p if each not in trace.wires) for p in parts)
    return before, after


def _canvas(nodes: Sequence[Node], title: str) -> tuple[Figure, Axes]:
    """Returns a figure whose unit is a point, with y downwards."""
    right = _MARGIN + max(_width(title, _TITLE), *(node.turn for node in nodes), 0.0)
    top = min((node.y - node.up for node in nodes), default=0.0) - _MARGIN
    top -= 2 * _TITLE if title else 0.0
    bottom = _MARGIN + max((node.y + node.down for node in nodes), default=0.0)
    figure = Figure(figsize=((right + _MARGIN) / 72, (bottom - top) / 72), facecolor="white")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0), xlim=(-_MARGIN, right), ylim=(bottom, top))
    axes.set_axis_off()
    _write(axes, 0.0, top + _MARGIN, title, va="top", fontsize=_TITLE)
    return figure, axes


# Drawing


def _draw_wire(axes: Axes, nodes: Sequence[Node], origin: Node, name: str, trace: Trace) -> None:
    """Draws a wire from left to right, with a dot at every fork."""
    color = _IDLE if trace.wires[name].gradient is None else _PALE
    takers = collections.defaultdict(list)
    for node in nodes:
        for i, (taken, source) in enumerate(zip(node.takes, node.sources, strict=True)):
            if taken == name:
                takers[source].append((source, node, i))
    begin = origin.right if origin.side else origin.middle
    points = [(begin, origin.exit(name)), (origin.turn, origin.exit(name))]
    codes = [Path.MOVETO, Path.LINETO]
    waiting = takers[origin]
    while waiting:
        source, node, i = waiting.pop()
        start, end = (source.turn, source.exit(name)), (node.left, node.entry(i))
        if points[-1] != start:
            axes.add_patch(Circle(start, 1.8, color=color, zorder=1))
            points.append(start)
            codes.append(Path.MOVETO)
        half = (start[0] + end[0]) / 2
        # Gates are drawn over the end of a wire; a passing wire goes on.
        on = end[0] if node.side else node.middle if node.width else node.turn
        points += [(half, start[1]), (half, end[1]), end, (on, end[1])]
        codes += [Path.CURVE4, Path.CURVE4, Path.CURVE4, Path.LINETO]
        waiting += takers[node]
    axes.add_patch(PathPatch(Path(points, codes), fill=False, ec=color, zorder=1, label=name))


def _draw_label(axes: Axes, node: Node, name: str, trace: Trace) -> None:
    label = _label(trace, name)
    x, y = node.right, node.exit(name)
    _write(axes, x + _GAP, y - 2, label.name, va="bottom", color=_PALE, style="italic")
    _write(axes, x + label.indent, y - 2, label.value, va="bottom", color=GREEN)
    _write(axes, x + label.indent, y + 2, label.gradient, va="top", color=RED)


def _draw_gate(axes: Axes, node: Node, box: Box, trace: Trace) -> None:
    width, height = _size(box, node.takes)
    left, top = node.middle - width / 2, node.y - height / 2
    for inset in (0.0,) if box.inside is None else (0.0, _EDGE):
        style: dict[str, Any] = {"fc": "white", "ec": _INK, "zorder": 2}
        if not inset:
            style["label"] = box.name
        if width == height:
            shape = Circle((node.middle, node.y), width / 2 - inset, **style)
        else:
            corner = f"round,pad={-inset},rounding_size={_CORNER - inset}"
            shape = FancyBboxPatch((left, top), width, height, boxstyle=corner, **style)
        axes.add_patch(shape)
    name, font = _cut(box.name), _font(box)
    # Centre a symbol on its own ink, as an asterisk stands high in its line; words on the x-height.
    ink = _ink(name if len(name) == 1 else "x", font)
    _write(axes, node.middle, node.y + (ink.y0 + ink.y1) / 2, name, ha="center", fontsize=font)
    above, below = _constants(trace, box)
    small: dict[str, Any] = {"ha": "center", "fontsize": _SMALL, "color": _PALE}
    _write(axes, node.middle, top - 1, above, va="bottom", **small)
    _write(axes, node.middle, top + height + 1, below, va="top", **small)


def _write(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    if text:
        axes.text(x, y, text, parse_math=False, **{"fontsize": _TEXT, "color": _INK, **style})


def _font(box: Box) -> float:
    return _SYMBOL if len(box.name) == 1 else _TEXT


def _ink(text: str, size: float) -> Bbox:
    """Returns the box that the ink of a text covers, relative to the start of its baseline."""
    plain = text.replace("$", r"\$")  # a bare one would begin a formula
    return TextPath((0, 0), plain, size=size).get_extents() if text.strip() else Bbox.unit()


def _width(text: str, size: float = _TEXT) -> float:
    return _ink(text, size).x1 if text else 0.0


def _cut(name: str) -> str:
    """Returns a name, without its middle if it is long."""
    half = _LONGEST // 2
    return name if len(name) <= _LONGEST else f"{name[:half]}…{name[1 - half :]}"
