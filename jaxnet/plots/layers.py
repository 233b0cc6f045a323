"""The layout of a circuit: gates in layers from left to right, and wires that seldom cross."""

import collections
import dataclasses
import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, sparse

__all__ = ["ENTRY", "EXIT", "Node", "arrange"]

# All lengths are points, 1/72 inch.
ENTRY, EXIT = 12.0, 30.0  # distance of two wires that enter one gate, and that leave one
_PASSING = 8.0  # above and below a wire that only passes
_TURN = (24.0, 110.0)  # the least and the most between two layers
_TRIES = 32


@dataclasses.dataclass(eq=False)
class Node:
    """What has a place in a layer: a gate, an input, an output, or a wire that passes the layer.

    `arrange` sets the attributes from ``sources`` on.

    Attributes:
      takes: names of the wires that enter, from top to bottom.
      gives: names of the wires that leave, from top to bottom.
      side: ``"left"`` for an input of the circuit, ``"right"`` for an output, else empty.
      commutes: whether the order of the wires that enter is free, as for a sum.
      width: of the gate, or of the text of an input or output; 0 for a wire.
      tail: width of the texts on the wires that leave.
      up: from the node's centre line to its upper edge.
      down: from the centre line to its lower edge.
      sources: for each wire that enters, the node in the layer before.
      layer: number of the layer, from the left.
      y: height of the centre line; grows downwards.
      left: left edge of the layer's gates.
      right: right edge of the layer's gates, where the texts on wires begin.
      turn: right edge of the texts, from which wires may change their height.
    """

    takes: Sequence[str] = ()
    gives: Sequence[str] = ()
    side: str = ""
    commutes: bool = False
    width: float = 0.0
    tail: float = 0.0
    up: float = _PASSING
    down: float = _PASSING
    sources: Sequence["Node"] = ()
    layer: int = 0
    y: float = 0.0
    left: float = 0.0
    right: float = 0.0
    turn: float = 0.0

    @property
    def middle(self) -> float:
        """The horizontal centre of the layer's gates."""
        return (self.left + self.right) / 2

    def entry(self, i: int) -> float:
        """Returns the height at which wire number ``i`` enters."""
        return self.y + (i - (len(self.takes) - 1) / 2) * ENTRY

    def exit(self, name: str) -> float:
        """Returns the height at which a wire leaves."""
        return self.y + (self.gives.index(name) - (len(self.gives) - 1) / 2) * EXIT


def arrange(nodes: Sequence[Node]) -> list[Node]:
    """Sets the place of each node, and returns the nodes and those of long wires.

    Args:
      nodes: gates, inputs and outputs, in an order in which each wire leaves one node before it
        enters others; changed in place.

    Returns:
      The nodes, and one more for each layer that a wire passes on its way.

    Raises:
      ImportError: igraph is not installed.

    Example:
      >>> nodes = [Node(gives=["x"], side="left"), Node(takes=["x"], gives=["f"])]
      >>> [node.layer for node in arrange(nodes)]
      [0, 1]
    """
    _choose_layers(nodes)
    nodes = _connect(nodes)
    ordered = _order(nodes)
    layers = [list(each) for _, each in itertools.groupby(ordered, key=lambda node: node.layer)]
    _straighten(layers)
    _space(layers)
    return nodes


def _choose_layers(nodes: Sequence[Node]) -> None:
    """Puts each gate as far to the right as the gates that need it allow."""
    steps: dict[str, int] = {}  # from a wire to the outputs, if it leads to one
    steps_of: list[int | None] = []
    for node in reversed(nodes):
        after = [steps[name] for name in node.gives if name in steps]
        count = 0 if node.side == "right" else 1 + max(after) if after else None
        steps_of.append(count)
        if count is not None:
            steps |= {name: max(count, steps.get(name, 0)) for name in node.takes}
    last = 1 + max(steps.values(), default=0)
    layer_of: dict[str, int] = {}
    for node, count in zip(nodes, reversed(steps_of), strict=True):
        # A gate that no output needs stands as far to the left as possible.
        first = 1 + max((layer_of[name] for name in node.takes), default=0)
        node.layer = 0 if node.side == "left" else first if count is None else last - count
        layer_of |= dict.fromkeys(node.gives, node.layer)
    end = 1 + max((node.layer for node in nodes if node.side != "right"), default=0)
    for node in nodes:
        if node.side == "right":
            node.layer = end


def _connect(nodes: Sequence[Node]) -> list[Node]:
    """Sets the sources of nodes, and adds a node for each layer that a wire passes."""
    found: list[Node] = []
    way: dict[str, list[Node]] = {}  # the nodes of each wire, one a layer
    for node in nodes:
        for name in node.takes:
            while (last := way[name][-1]).layer < node.layer - 1:
                way[name].append(Node([name], [name], sources=[last], layer=last.layer + 1))
                found.append(way[name][-1])
        node.sources = [way[name][node.layer - 1 - way[name][0].layer] for name in node.takes]
        found.append(node)
        way |= {name: [node] for name in node.gives}
    return found


# Vertical order and positions


def _order(nodes: Sequence[Node]) -> list[Node]:
    """Returns the nodes by layer and then from top to bottom, so that few wires cross."""
    igraph = _igraph()
    written = _as_written(nodes)
    best = {node: float(i) for i, node in enumerate(written)}
    # The result of Sugiyama's method depends on the order that it begins with.
    shuffler = random.Random(0)
    tries = [written, *(shuffler.sample(written, len(written)) for _ in range(_TRIES))]
    for order in tries:
        if not _crossings(best):
            break
        best = min(best, _sugiyama(igraph, order), key=_crossings)
    for node in nodes:
        if node.commutes:
            wires = list(zip(node.takes, node.sources, strict=True))
            wires.sort(key=lambda wire: (best[wire[1]], wire[1].exit(wire[0])))
            node.takes = [name for name, _ in wires]
            node.sources = [source for _, source in wires]
    return sorted(nodes, key=lambda node: (node.layer, best[node]))


def _as_written(nodes: Sequence[Node]) -> list[Node]:
    """Returns the nodes in the order of the gates' inputs, in which a tree has no crossing."""
    taken = {source for node in nodes for source in node.sources}
    last = [node for node in reversed(nodes) if node not in taken]
    waiting = sorted(last, key=lambda node: node.layer)
    found: dict[Node, None] = {}
    while waiting:
        node = waiting.pop()
        if node not in found:
            found[node] = None
            waiting += reversed(node.sources)
    return list(found)


def _sugiyama(igraph: Any, order: Sequence[Node]) -> dict[Node, float]:
    """Returns the vertical position of each node in its layer."""
    number = {node: i for i, node in enumerate(order)}
    edges = [(number[source], i) for node, i in number.items() for source in node.sources]
    graph = igraph.Graph(len(order), edges, directed=True)
    places = graph.layout_sugiyama(layers=[node.layer for node in order])
    return {node: place for node, (place, _) in zip(order, places, strict=True)}


def _igraph() -> Any:
    try:
        import igraph
    except ImportError as error:
        how = "pip install 'jaxnet-mlp[lecture]'"
        raise ImportError(f"pictures of circuits need igraph: {how}") from error
    return igraph


def _crossings(places: dict[Node, float]) -> int:
    """Returns how many pairs of wires cross."""
    wires: dict[int, list[tuple[float, float]]] = {}
    for node, place in places.items():
        for i, (name, source) in enumerate(zip(node.takes, node.sources, strict=True)):
            # Nodes are at least 1 apart: the wires of one node stay between its neighbours'.
            begin = places[source] + 1e-3 * source.gives.index(name)
            end = place if node.commutes else place + 1e-3 * i
            wires.setdefault(node.layer, []).append((begin, end))
    total = 0
    for ends in wires.values():
        begin, end = np.array(ends).T
        total += np.sum(np.subtract.outer(begin, begin) * np.subtract.outer(end, end) < 0) // 2
    return int(total)


class _Bend(NamedTuple):
    """A cost: ``weight * abs(sum(factor * node.y for factor, node in terms) + shift)``."""

    weight: float
    terms: list[tuple[float, Node]]
    shift: float


def _straighten(layers: Sequence[Sequence[Node]]) -> None:
    """Sets the heights of nodes so that wires, above all long ones, bend little; keeps the order.

    A linear program, as in Gansner et al. (1993), "A technique for drawing directed graphs".
    """
    number = {node: i for i, node in enumerate(itertools.chain(*layers))}
    taken = collections.Counter(source for node in number for source in node.sources)
    bends = [bend for node in number for bend in _bends(node, taken)]
    pairs = [pair for layer in layers for pair in itertools.pairwise(layer)]
    bend = _matrix([each.terms for each in bends], number)
    apart = _matrix([[(1.0, lower), (-1.0, upper)] for upper, lower in pairs], number)
    shifts = np.array([each.shift for each in bends])
    room = np.array([upper.down + lower.up for upper, lower in pairs])
    # The unknowns are heights, and a bound of every bend. A small cost of the heights chooses the
    # highest of all solutions.
    costs = [1e-4] * len(number) + [each.weight for each in bends]
    bound = sparse.eye_array(len(bends))
    constraints: Any = [[bend, -bound], [-bend, -bound], [-apart, None]]
    limits = np.concatenate([-shifts, shifts, -room])
    found: Any = optimize.linprog(costs, sparse.block_array(constraints, format="csr"), limits)
    for node, i in number.items():
        node.y = float(found.x[i])


def _bends(node: Node, taken: Mapping[Node, int]) -> Iterator[_Bend]:
    """Yields the costs of a node: of each wire's drop, and of not being amid its sources."""
    drops = [
        source.exit(name) - node.entry(i)
        for i, (name, source) in enumerate(zip(node.takes, node.sources, strict=True))
    ]
    is_chain = len(drops) == 1 and taken[node.sources[0]] == 1
    weight = 8.0 if not node.width else 2.0 if is_chain else 1.0
    for source, drop in zip(node.sources, drops, strict=True):
        yield _Bend(weight, [(1.0, source), (-1.0, node)], drop)
    if len(drops) > 1:
        share = 1 / len(drops)
        # More than 1: two wires that bend alike are cheaper than one that bends alone.
        terms = [(-1.0, node), *((share, source) for source in node.sources)]
        yield _Bend(1.2, terms, share * sum(drops))


def _matrix(rows: Sequence[list[tuple[float, Node]]], number: Mapping[Node, int]) -> Any:
    entries = [(f, i, number[node]) for i, terms in enumerate(rows) for f, node in terms]
    factors, i, j = zip(*entries, strict=True) if entries else ((), (), ())
    return sparse.coo_array((factors, (i, j)), (len(rows), len(number)), dtype=float)


def _space(layers: Sequence[Sequence[Node]]) -> None:
    """Sets the horizontal places: room for gates and texts, and more room for steep wires."""
    x = 0.0
    for layer in layers:
        drops = [
            abs(source.exit(name) - node.entry(i))
            for node in layer
            for i, (name, source) in enumerate(zip(node.takes, node.sources, strict=True))
        ]
        if layer is not layers[0]:
            x += float(np.clip(0.5 * max(drops, default=0.0), *_TURN))
        left, right = x, x + max(node.width for node in layer)
        x = right + max(node.tail for node in layer)
        for node in layer:
            node.left, node.right, node.turn = left, right, x
