"""Random right functions, on which a gradient checker must raise no false alarm.

  python results/gradcheck/random_functions.py        prints how many of 2,000 are of which family

Arguments are drawn in float32 and cast, so that in float64 it is the same function at the same
point. Stiff, saturated and badly scaled functions are meant to be there, and kinks near the point.
What is left out is left out because no checker could be blamed for it:

- leaves whose gradient is zero by construction: a cross-entropy of one class, attention over one
  position, a key's bias, a layer norm of two, layers below one whose relus are dead for every
  example (single dead relus stay);
- points exactly at a kink, or within a step of a jump (the predicates of `lax.cond`);
- float32 gradients that are right in form and have lost their digits: a layer of which every unit
  is saturated (1 - sigmoid(17) is 0 in float32), a softmax that is all but certain, chaotic
  recurrences, matrices of a condition number above 1,000;
- sums whose terms differ by more than 1e6, targets that outweigh the outputs, and saturated
  compositions, where a leaf moves the value by so little that rounding hides 1e-5 of it.

All 2,000 are finite in value and gradient, and no leaf's gradient is zero. The float32 gradient is
within 3e-4 of the float64 one, leaf by leaf, but for one: in seed 545, the bias of a layer of one
unit, whose gradient cancels over the batch, is off by 0.1% to 0.3%, depending on the compiler.
"""

import collections
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jax import lax
from jax.typing import DTypeLike

SEEDS = 2000

Drawn = tuple[str, Callable[..., jax.Array], tuple[Any, ...]]


class Problem(NamedTuple):
    """A function that is right, and where to differentiate it.

    Attributes:
      name: the family, a colon, and what was drawn.
      f: a real scalar function of ``args``.
      args: pytrees; the gradient to check is in ``args[0]``, whose leaves are floating-point.
    """

    name: str
    f: Callable[..., jax.Array]
    args: tuple[Any, ...]

    @property
    def family(self) -> str:
        """The part of the name before the colon."""
        return self.name.partition(":")[0]


def draw(seed: int, dtype: DTypeLike) -> Problem:
    """Returns the seed's function, with floating-point arguments of a dtype.

    Raises:
      ValueError: float64 without ``jax_enable_x64``.
    """
    dtype = jnp.dtype(dtype)
    if dtype == jnp.float64 != jnp.result_type(float):
        raise ValueError("dtype float64 needs jax_enable_x64, which is off")
    rng = np.random.default_rng(seed)
    names = list(FAMILIES)
    shares = np.array([share for share, _ in FAMILIES.values()])
    family = names[rng.choice(len(names), p=shares / shares.sum())]
    details, f, args = FAMILIES[family][1](rng)
    wrapper = _choose(rng, ("", "", "", "jit", "checkpoint"))
    if wrapper:
        f = jax.jit(f) if wrapper == "jit" else jax.checkpoint(f)  # pyright: ignore[reportPrivateImportUsage]
        details += f", jax.{wrapper}"

    def cast(leaf):
        is_float = np.issubdtype(leaf.dtype, np.floating)
        return jnp.asarray(leaf, dtype if is_float else leaf.dtype)

    return Problem(f"{family}: {details}", f, jax.tree.map(cast, args))


# Drawing


def _choose(rng: np.random.Generator, options):
    return options[rng.integers(len(options))]


def _coin(rng: np.random.Generator, share: float = 0.5) -> bool:
    return bool(rng.random() < share)


def _integer(rng: np.random.Generator, low: int, high: int) -> int:
    """Returns an integer from low to high, both included."""
    return int(rng.integers(low, high + 1))


def _log_integer(rng: np.random.Generator, low: int, high: int) -> int:
    """Returns an integer from low to high whose logarithm is uniform."""
    return min(high, int(math.exp(rng.uniform(math.log(low), math.log(high + 1)))))


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Returns a number whose logarithm is uniform, and which float32 holds."""
    return float(np.float32(math.exp(rng.uniform(math.log(low), math.log(high)))))


def _normal(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> np.ndarray:
    return np.asarray(scale * rng.standard_normal(shape), np.float32)


def _uniform(rng: np.random.Generator, low: float, high: float, *shape: int) -> np.ndarray:
    return np.asarray(rng.uniform(low, high, shape), np.float32)


def _indices(rng: np.random.Generator, bound: int, *shape: int) -> np.ndarray:
    return np.asarray(rng.integers(bound, size=shape), np.int32)


def _shape(rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(_log_integer(rng, 1, 30) for _ in range(_integer(rng, 0, 3)))


# Networks

_ACTIVATIONS: dict[str, tuple[Callable, Callable]] = {
    "sigmoid": (jax.nn.sigmoid, scipy.special.expit),
    "tanh": (jnp.tanh, np.tanh),
    "relu": (jax.nn.relu, lambda x: np.maximum(x, 0)),
    "gelu": (jax.nn.gelu, lambda x: x * scipy.special.ndtr(x)),
    "softplus": (jax.nn.softplus, lambda x: np.logaddexp(x, 0)),
    "sin": (jnp.sin, np.sin),
}


def _network(rng: np.random.Generator) -> Drawn:
    depth, batch = _integer(rng, 1, 6), _log_integer(rng, 1, 256)
    activation = _choose(rng, tuple(_ACTIVATIONS))
    loss = _choose(rng, ("squared error", "cross-entropy"))
    gain = _log_uniform(rng, 0.3, 2) if _coin(rng, 0.7) else _log_uniform(rng, 2, 10)
    if activation not in ("sigmoid", "tanh"):  # the others do not saturate to both sides: they grow
        gain = min(gain, 3.0)
    biases, average = _coin(rng, 0.7), _coin(rng)
    linear_output = loss == "cross-entropy" or activation == "relu" or _coin(rng)
    sizes = [_log_integer(rng, 1, 512) for _ in range(depth + 1)]
    if loss == "cross-entropy":
        sizes[-1] = max(sizes[-1], 2)

    inputs = _normal(rng, batch, sizes[0], scale=_log_uniform(rng, 0.1, 3))
    layers, example, logits = [], inputs[0], inputs[0]
    for index in range(depth):
        last = index == depth - 1
        # Of an output layer that is linear, more would make a softmax that is all but certain.
        scale = min(gain, 2.0) if last and linear_output else gain
        scale *= 4 if activation == "sigmoid" else 1
        weight = _normal(rng, sizes[index], sizes[index + 1], scale=scale / math.sqrt(sizes[index]))
        bias = _normal(rng, sizes[index + 1], scale=min(scale, 1.0))
        if not (last and linear_output):
            weight, bias = _awaken(activation, example, weight, bias if biases else 0 * bias)
        logits = example @ weight + (bias if biases else 0)
        example = _ACTIVATIONS[activation][1](logits)
        layers.append({"weight": weight, "bias": bias if biases else None})
    if loss == "cross-entropy":
        targets = _indices(rng, sizes[-1], batch)
        if scipy.special.softmax(logits)[targets[0]] > 0.999999:  # sure, and right: no slope
            targets[0] = np.argmin(logits)
    else:
        outputs = logits if linear_output else example
        size = float(np.sqrt(np.mean(outputs**2)))
        targets = _normal(rng, batch, sizes[-1], scale=min(1.0, 30 * size))

    def f(params, inputs, targets):
        hidden = inputs
        for index, layer in enumerate(params):
            hidden = hidden @ layer["weight"]
            if layer["bias"] is not None:
                hidden += layer["bias"]
            if index < len(params) - 1 or not linear_output:
                hidden = _ACTIVATIONS[activation][0](hidden)
        if loss == "cross-entropy":
            right = jnp.take_along_axis(hidden, targets[:, None], axis=1)[:, 0]
            losses = jax.nn.logsumexp(hidden, axis=1) - right
        else:
            losses = jnp.sum((hidden - targets) ** 2, axis=1)
        return jnp.mean(losses) if average else jnp.sum(losses)

    params = tuple(layers) if _coin(rng) else layers
    details = (
        f"{'-'.join(map(str, sizes))}, batch {batch}, {activation}, gain {gain:.2g}, "
        f"{'biases' if biases else 'no biases'}, {loss}"
    )
    return details, f, (params, inputs, targets)


def _awaken(activation, example, weight, bias):
    """Returns a layer of which, for one example, one unit at least has a slope to speak of."""
    logits = example @ weight + bias
    if activation in ("sigmoid", "tanh") and (least := np.min(np.abs(logits))) > 3:
        return weight * np.float32(3 / least), bias * np.float32(3 / least)
    if activation in ("relu", "gelu", "softplus") and np.max(logits) <= 0:
        return -weight, -bias
    return weight, bias


# Compositions, sums and products


def _composition(rng: np.random.Generator) -> Drawn:
    leaves, weights, chains, names = {}, {}, {}, []
    for name in "abcd"[: _integer(rng, 1, 4)]:
        shape = _shape(rng)
        leaves[name] = _uniform(rng, -2, 2, *shape)
        weights[name] = _normal(rng, *shape)
        steps, growing = [], 0
        for _ in range(_integer(rng, 1, 5)):
            step = _choose(rng, tuple(_UNARY if growing < 2 else _BOUNDED))
            growing += step in _GROWING
            steps.append((step, _log_uniform(rng, 1, 100) if step == "sin k" else 1.0))
        chains[name] = steps
        names.append(" ".join(step for step, _ in steps))
    outer = _choose(rng, ("sum", "sin of the sum", "log1p of the square"))

    def f(leaves, weights):
        terms = []
        for name, leaf in leaves.items():
            for step, factor in chains[name]:
                leaf = _UNARY[step](leaf * factor)
            terms.append(jnp.mean(weights[name] * leaf))
        total = jnp.sum(jnp.stack(terms))
        if outer == "sum":
            return total
        return jnp.sin(total) if outer == "sin of the sum" else jnp.log1p(total**2)

    if _least_share(f, leaves, weights) < 1e-8:
        return _composition(rng)
    return f"{outer}, {', '.join(names)}", f, (leaves, weights)


def _least_share(f: Callable[..., jax.Array], params: Any, *args: Any) -> float:
    """Returns the least share of the value by which a leaf moves it, on its own scale."""
    with jax.enable_x64(True):
        params, args = jax.tree.map(lambda leaf: leaf.astype(np.float64), (params, args))
        value, gradient = jax.value_and_grad(f)(params, *args)
        effects = jax.tree.map(
            lambda slope, leaf: float(jnp.linalg.norm(slope) * jnp.sqrt(jnp.mean(leaf**2))),
            gradient,
            params,
        )
    return min(jax.tree.leaves(effects)) / max(abs(float(value)), 1e-300)


_BOUNDED: dict[str, Callable] = {
    "sin": jnp.sin,
    "sin k": jnp.sin,
    "cos": jnp.cos,
    "tanh": jnp.tanh,
    "arctan": jnp.arctan,
    "erf": jax.scipy.special.erf,
    "log1p square": lambda x: jnp.log1p(x**2),
    "root": lambda x: jnp.sqrt(1 + x**2),
    "Lorentz": lambda x: 1 / (1 + x**2),
    "Gauss": lambda x: jnp.exp(-(x**2)),
}
_GROWING: dict[str, Callable] = {"exp": jnp.exp, "expm1": jnp.expm1}
_UNARY = _BOUNDED | _GROWING


def _logsumexp(rng: np.random.Generator) -> Drawn:
    rows, columns = _log_integer(rng, 1, 64), _log_integer(rng, 2, 1000)
    logits = _normal(rng, rows, columns, scale=_log_uniform(rng, 0.1, 10))
    weights = _normal(rng, rows)
    if _coin(rng):
        # Its gradient is an entropy, logsumexp(x / T) - sum(p x / T); colder, it cancels.
        temperature = np.asarray(_log_uniform(rng, 0.5, 10) * np.std(logits), np.float32)

        def warm(leaves, weights):
            logits, temperature = leaves
            return jnp.dot(weights, temperature * jax.nn.logsumexp(logits / temperature, axis=1))

        f, args = warm, ([logits, temperature], weights)
    else:
        temperature = np.asarray(_log_uniform(rng, 1e-3, 1e3), np.float32)

        def given(logits, weights, temperature):
            return jnp.dot(weights, temperature * jax.nn.logsumexp(logits / temperature, axis=1))

        f, args = given, (logits, weights, temperature)
    return f"{rows} x {columns}, temperature {temperature:.2g}", f, args


def _scales(rng: np.random.Generator) -> Drawn:
    kind = _choose(rng, ("sum", "product", "ratio", "vector's product"))
    shapes = [_shape(rng) for _ in range(_integer(rng, 2, 4))]
    scales = [_log_uniform(rng, 1e-6, 1e6) for _ in shapes]
    if kind == "vector's product":
        signs = rng.choice([-1, 1], 12)
        leaf = _uniform(rng, 0.5, 2, 12) * signs.astype(np.float32)
        leaf[0] *= np.float32(scales[0])

        def product_of_one(leaf):
            return jnp.prod(leaf)

        f, args = product_of_one, (leaf,)
    elif kind == "ratio":
        above, below = (
            scale * (2 + _normal(rng, _log_integer(rng, 2, 100))) for scale in scales[:2]
        )

        def ratio(leaves):
            above, below = leaves
            return jnp.sum(above) / jnp.sqrt(jnp.sum(below**2))

        f, args = ratio, ((above.astype(np.float32), below.astype(np.float32)),)
    else:
        leaves = {
            f"scale {scale:.1e}": _normal(rng, *shape, scale=scale)
            for shape, scale in zip(shapes, scales, strict=True)
        }
        units = {name: np.float32(1 / float(name.split()[1])) for name in leaves}
        weights = {name: _normal(rng, *leaf.shape) for name, leaf in leaves.items()}
        if kind == "sum":
            sizes = {name: np.float32(_log_uniform(rng, 1e-3, 1e3)) for name in leaves}

            def total(leaves, weights, units, sizes):
                terms = [
                    sizes[name] * jnp.mean(weights[name] * jnp.sin(leaf * units[name]))
                    for name, leaf in leaves.items()
                ]
                return jnp.sum(jnp.stack(terms))

            f, args = total, (leaves, weights, units, sizes)
        else:

            def product(leaves, weights):
                means = [jnp.mean(weights[name] * leaf) for name, leaf in leaves.items()]
                return jnp.prod(jnp.stack(means))

            f, args = product, (leaves, weights)
    return f"{kind}, {', '.join(f'{scale:.1e}' for scale in scales)}", f, args


# Linear algebra


def _matrix(rng: np.random.Generator, size: int, condition: float) -> np.ndarray:
    left, _ = np.linalg.qr(rng.standard_normal((size, size)))
    right, _ = np.linalg.qr(rng.standard_normal((size, size)))
    return np.asarray(left * np.geomspace(1, 1 / condition, size) @ right, np.float32)


def _solve(rng: np.random.Generator) -> Drawn:
    size, columns = _log_integer(rng, 1, 48), _integer(rng, 1, 4)
    condition, scale = _log_uniform(rng, 1, 1e3), _log_uniform(rng, 1e-3, 1e3)
    kind = _choose(rng, ("solve", "inverse", "triangular"))
    matrix = np.float32(scale) * _matrix(rng, size, condition)
    if kind == "triangular":  # of the same condition
        matrix = np.linalg.qr(matrix)[1].T
    right = _normal(rng, size, columns, scale=_log_uniform(rng, 1e-3, 1e3))
    weights, linear = _normal(rng, size, columns), _coin(rng)

    def f(leaves, weights):
        matrix, right = leaves["matrix"], leaves["right"]
        if kind == "solve":
            solution = jnp.linalg.solve(matrix, right)
        elif kind == "inverse":
            solution = jnp.linalg.inv(matrix) @ right
        else:
            solution = jax.scipy.linalg.solve_triangular(matrix, right, lower=True)
        return jnp.sum(weights * solution) if linear else jnp.sum((solution - weights) ** 2)

    args = ({"matrix": matrix, "right": right}, weights)
    return f"{kind}, {size} x {size}, condition {condition:.1e}, scale {scale:.1e}", f, args


def _cholesky(rng: np.random.Generator) -> Drawn:
    kind = _choose(rng, ("factor", "covariance", "Gaussian process"))
    size, condition = _log_integer(rng, 2, 32), _log_uniform(rng, 1, 1e3)
    root = _matrix(rng, size, math.sqrt(condition))
    observed = _normal(rng, size)

    def likelihood(covariance, observed):
        factor = jnp.linalg.cholesky(covariance)
        solution = jax.scipy.linalg.cho_solve((factor, True), observed)
        return 0.5 * jnp.dot(observed, solution) + jnp.sum(jnp.log(jnp.diagonal(factor)))

    if kind == "factor":

        def of_factor(root, observed):
            return likelihood(root @ root.T, observed)

        f, args = of_factor, (root, observed)
    elif kind == "covariance":
        determinant = _coin(rng)

        def of_covariance(leaves, observed):
            covariance, mean = leaves
            if determinant:
                solution = jnp.linalg.solve(covariance, observed - mean)
                return jnp.linalg.slogdet(covariance)[1] + jnp.dot(observed - mean, solution)
            return likelihood(covariance, observed - mean)

        f, args = of_covariance, ((root @ root.T, _normal(rng, size)), observed)
    else:

        def of_process(leaves, observed, places):
            distance = (places[:, None] - places[None, :]) / jnp.exp(leaves["log_length"])
            covariance = jnp.exp(leaves["log_amplitude"] - 0.5 * distance**2)
            noise = jnp.exp(leaves["log_noise"])
            identity = jnp.eye(len(places), dtype=places.dtype)
            return likelihood(covariance + noise * identity, observed)

        leaves = {
            "log_length": _uniform(rng, -2, 1),
            "log_amplitude": _uniform(rng, -1, 1),
            "log_noise": _uniform(rng, -3, 0),
        }
        f, args = of_process, (leaves, observed, _uniform(rng, -3, 3, size))
    return f"{kind}, {size} x {size}, condition {condition:.1e}", f, args


# Loops and branches


def _initial_value(rng: np.random.Generator) -> Drawn:
    kind = _choose(rng, ("oscillator", "relaxation"))
    length, path_counts = _log_integer(rng, 1, 200), _coin(rng)
    stiffness = _log_uniform(rng, 0.1, 10 if kind == "oscillator" else 90)  # times h: 0.9

    def slope(state, stiffness, time):
        if kind == "relaxation":
            return -stiffness * (state - jnp.cos(time))
        place, speed = state  # of van der Pol's oscillator
        return jnp.stack([speed, stiffness * (1 - place**2) * speed - place])

    def f(leaves, h):
        state, stiffness = leaves["start"], leaves["stiffness"]

        def step(carry, _):
            state, time = carry
            middle = state + h / 2 * slope(state, stiffness, time)
            state = state + h * slope(middle, stiffness, time + h / 2)
            return (state, time + h), state[0]

        (last, _), path = lax.scan(step, (state, jnp.zeros_like(h)), None, length=length)
        return jnp.mean(path**2) + jnp.sum(last**2) if path_counts else jnp.sum(jnp.sin(last))

    leaves = {"start": _normal(rng, 2), "stiffness": np.asarray(stiffness, np.float32)}
    h = np.asarray(0.01, np.float32)
    return f"{kind}, {length} steps, stiffness {stiffness:.2g}", f, (leaves, h)


def _recurrence(rng: np.random.Generator) -> Drawn:
    kind = _choose(rng, ("tanh", "gated", "linear"))
    length, width, batch = _log_integer(rng, 1, 64), _log_integer(rng, 1, 32), _integer(rng, 1, 8)
    every = _coin(rng)
    gain = _log_uniform(rng, 0.1, 1.2)
    leaves = {
        "start": _normal(rng, batch, width),
        "recurrent": _normal(rng, width, width, scale=gain / math.sqrt(width)),
        "inputs": _normal(rng, width, width, scale=1 / math.sqrt(width)),
    }
    if kind == "gated":
        leaves["gate"] = _normal(rng, width, width, scale=3 / math.sqrt(width))
    if kind == "linear":
        leaves["recurrent"] = _uniform(rng, 0.3, 1.0, width)
    series, weights = _normal(rng, length, batch, width), _normal(rng, batch, width)

    def f(leaves, series, weights):
        def step(carry, inputs):
            driven = inputs @ leaves["inputs"]
            if kind == "linear":
                new = leaves["recurrent"] * carry + driven
            else:
                new = jnp.tanh(carry @ leaves["recurrent"] + driven)
            if kind == "gated":
                gate = jax.nn.sigmoid(inputs @ leaves["gate"])
                new = gate * carry + (1 - gate) * new
            return new, jnp.sum(weights * new)

        last, path = lax.scan(step, leaves["start"], series)
        # A state that forgets its start leaves it almost no gradient: look at all steps.
        return jnp.mean(jnp.sin(path)) if every else jnp.sum(weights * last) + jnp.mean(path)

    details = f"{kind}, length {length}, width {width}, batch {batch}, gain {gain:.2g}"
    return details, f, (leaves, series, weights)


def _control_flow(rng: np.random.Generator) -> Drawn:
    kind = _choose(
        rng, ("cond", "where", "Huber", "switch", "Newton", "cond in scan", "map", "clip")
    )
    size = _log_integer(rng, 2, 300)
    leaf, weights = _normal(rng, size), _normal(rng, size)
    if kind == "cond":
        # Far from the jump: no difference quotient can be taken across it.
        threshold = np.asarray(
            np.dot(leaf, weights) + _choose(rng, (-1, 1)) * rng.uniform(0.1, 1) * math.sqrt(size),
            np.float32,
        )

        def cond(leaves, weights, threshold):
            first, second = leaves
            return lax.cond(
                jnp.dot(first, weights) > threshold,
                lambda a, b: jnp.sum(jnp.sin(a) * b**2),
                lambda a, b: jnp.sum(jnp.exp(-(a**2)) * jnp.cos(b)),
                first,
                second,
            )

        f, args = cond, ([leaf, _normal(rng, size)], weights, threshold)
    elif kind == "where":  # at 0 the slope of one branch is infinite, hence the second `where`
        leaf = leaf + np.copysign(np.float32(0.1), leaf)

        def where(leaf, weights):
            safe = jnp.where(leaf > 0, leaf, 1.0)
            return jnp.dot(weights, jnp.where(leaf > 0, jnp.sqrt(safe), jnp.expm1(leaf)))

        f, args = where, (leaf, weights)
    elif kind == "Huber":

        def huber(leaves, targets):
            error = leaves["scale"] * leaves["leaf"] - targets
            small = jnp.abs(error) <= 1
            return jnp.mean(jnp.where(small, 0.5 * error**2, jnp.abs(error) - 0.5))

        f, args = huber, ({"leaf": leaf, "scale": _uniform(rng, 0.5, 3)}, weights)
    elif kind == "switch":
        branches = (jnp.sin, jnp.tanh, lambda x: x**3, lambda x: jnp.log1p(x**2))

        def switch(leaf, weights, index):
            return jnp.dot(weights, lax.switch(index, branches, leaf))

        f, args = switch, (leaf, weights, _indices(rng, len(branches)))
    elif kind == "Newton":  # a square root, by iterations of which the last change nothing
        leaf = np.exp(leaf)

        def newton(leaf, weights):
            start = jnp.ones_like(leaf)
            roots = lax.fori_loop(0, 12, lambda _, root: 0.5 * (root + leaf / root), start)
            return jnp.dot(weights, roots)

        f, args = newton, (leaf, weights)
    elif kind == "cond in scan":

        def cond_in_scan(leaf, weights):
            def step(carry, inputs):
                number, weight = inputs
                odd = number % 2 == 1
                carry = lax.cond(
                    odd, lambda c: jnp.sin(c) + weight, lambda c: 0.5 * c * (1 + weight), carry
                )
                return carry, jnp.sum(carry**2)

            _, path = lax.scan(step, leaf, (jnp.arange(6), weights))
            return jnp.sum(path)

        f, args = cond_in_scan, (leaf, _normal(rng, 6))
    elif kind == "map":

        def mapped(leaves, weights):
            rows = lax.map(lambda row: jnp.tanh(row * leaves["factor"]).sum(), leaves["rows"])
            return jnp.dot(weights, rows)

        rows = _integer(rng, 1, 8)
        f, args = mapped, ({"rows": _normal(rng, rows, size), "factor": leaf}, _normal(rng, rows))
    else:

        def clip(leaf, weights):
            clipped = jnp.clip(leaf, -1.5, 1.5)
            return jnp.dot(weights, jnp.maximum(clipped, jnp.abs(leaf) * 0.3 - 0.1))

        f, args = clip, (leaf, weights)
    return f"{kind}, size {size}", f, args


# Indices


def _indexing(rng: np.random.Generator) -> Drawn:
    kind = _choose(
        rng,
        ("embedding", "scatter-add", "scatter-set", "segment-sum", "segment-max", "sort",
         "cumulative", "slice", "top k", "roll"),
    )  # fmt: skip
    rows, width, count = _log_integer(rng, 2, 200), _log_integer(rng, 1, 32), _integer(rng, 1, 64)
    table, other = _normal(rng, rows, width), _normal(rng, count, width)
    index, weights = _indices(rng, rows, count), _normal(rng, rows, width)
    if kind == "embedding":

        def embedding(table, index, other):
            return jnp.mean((jnp.sin(table[index]) - other) ** 2)

        f, args = embedding, (table, index, other)
    elif kind == "scatter-add":

        def scatter_add(leaves, index, weights):
            return jnp.sum(weights * leaves[0].at[index].add(leaves[1]) ** 2)

        f, args = scatter_add, ((table, other), index, weights)
    elif kind == "scatter-set":
        count = min(count, rows - 1)
        index = rng.permutation(rows)[:count].astype(np.int32)

        def scatter_set(leaves, index, weights):
            return jnp.sum(weights * jnp.sin(leaves[0].at[index].set(leaves[1])))

        f, args = scatter_set, ((table, other[:count]), index, weights)
    elif kind in ("segment-sum", "segment-max"):
        reduce = jax.ops.segment_sum if kind == "segment-sum" else jax.ops.segment_max

        def segments(table, index, weights):
            sums = reduce(table, index, num_segments=count)
            return jnp.sum(jnp.tanh(jnp.where(jnp.isfinite(sums), sums, 0.0)) * weights)

        f, args = segments, (table, _indices(rng, count, rows), _normal(rng, count, width))
    elif kind == "sort":

        def sort(table, weights):
            return jnp.sum(weights * jnp.sort(table, axis=0) ** 2)

        f, args = sort, (table, weights)
    elif kind == "cumulative":

        def cumulative(table, weights):
            sums, products = jnp.cumsum(table, axis=0), jnp.cumprod(1 + 0.1 * table, axis=0)
            return jnp.mean(weights * (sums + products))

        f, args = cumulative, (table, weights)
    elif kind == "slice":
        length = _integer(rng, 1, rows)

        def piece_of(table, start, weights):
            piece = lax.dynamic_slice_in_dim(table, start, length)
            return jnp.sum(weights[:length] * jnp.exp(piece))

        f, args = piece_of, (table, _indices(rng, rows - length + 1), weights)
    elif kind == "top k":

        def top_k(table, weights):
            return jnp.dot(weights, jnp.sin(lax.top_k(table.ravel(), len(weights))[0]))

        f, args = top_k, (table, _normal(rng, _integer(rng, 1, rows)))
    else:

        def roll(table, weights):
            mixed = jnp.concatenate([jnp.roll(table, 1, axis=0), table[::-1]], axis=1)
            return jnp.sum(jnp.sum(mixed.reshape(rows, 2, width) ** 3, axis=1) * weights)

        f, args = roll, (table, weights)
    return f"{kind}, {rows} x {width}, {count} indices", f, args


# Pieces of larger models


def _convolution(rng: np.random.Generator) -> Drawn:
    dimensions, layers = _integer(rng, 1, 2), _integer(rng, 1, 3)
    padding, pool = _choose(rng, ("SAME", "VALID")), _choose(rng, ("mean", "max", "none"))
    activation, stride = _choose(rng, tuple(_ACTIVATIONS)), _integer(rng, 1, 2)
    batch, side = _integer(rng, 1, 8), _integer(rng, 8, 16)
    channels = [_log_integer(rng, 1, 8) for _ in range(layers + 1)]
    numbers = ("NWC", "WIO", "NWC") if dimensions == 1 else ("NHWC", "HWIO", "NHWC")
    kernels, rest = [], side
    for below, above in itertools.pairwise(channels):
        kernel = _integer(rng, 1, min(4, rest))
        rest = -(-rest // stride) if padding == "SAME" else (rest - kernel) // stride + 1
        fan_in = below * kernel**dimensions
        shape = [kernel] * dimensions + [below, above]
        scale = _log_uniform(rng, 0.5, 3) / math.sqrt(fan_in)
        kernels.append({"kernel": _normal(rng, *shape, scale=scale), "bias": _normal(rng, above)})

    def f(params, images, readout):
        hidden = images
        for layer in params:
            hidden = lax.conv_general_dilated(
                hidden, layer["kernel"], (stride,) * dimensions, padding, dimension_numbers=numbers
            )
            hidden = _ACTIVATIONS[activation][0](hidden + layer["bias"])
        places = tuple(range(1, dimensions + 1))
        if pool == "none":
            return jnp.mean((hidden @ readout - 0.5) ** 2)
        hidden = hidden.mean(places) if pool == "mean" else hidden.max(places)
        return jnp.sum((hidden @ readout - 0.5) ** 2)

    images = _normal(rng, batch, *[side] * dimensions, channels[0])
    details = (
        f"{dimensions}-d, {layers} layers, {padding}, stride {stride}, {activation}, pool {pool}"
    )
    return details, f, (kernels, images, _normal(rng, channels[-1]))


def _normalisation(rng: np.random.Generator) -> Drawn:
    kind = _choose(rng, ("layer norm", "RMS norm", "batch norm", "unit weights"))
    batch, width = _log_integer(rng, 4, 64), _log_integer(rng, 4, 128)
    scale, offset = _log_uniform(rng, 1e-3, 1e4), _log_uniform(rng, 1e-3, 100)
    inputs = scale * (_normal(rng, batch, width) + np.float32(offset))
    leaves = {
        "inputs": inputs.astype(np.float32),
        "gain": 1 + _normal(rng, width, scale=0.3),
        "bias": _normal(rng, width),
    }
    axis = 0 if kind == "batch norm" else 1

    def f(leaves, weights):
        inputs = leaves["inputs"]
        if kind == "unit weights":
            inputs = inputs / jnp.linalg.norm(inputs, axis=0) * math.sqrt(batch)
        else:
            if kind != "RMS norm":
                inputs = inputs - jnp.mean(inputs, axis=axis, keepdims=True)
            inputs *= lax.rsqrt(jnp.mean(inputs**2, axis=axis, keepdims=True) + 1e-5)
        return jnp.mean(weights * jnp.tanh(inputs * leaves["gain"] + leaves["bias"]))

    args = (leaves, _normal(rng, batch, width))
    return f"{kind}, {batch} x {width}, scale {scale:.1e}, offset {offset:.1e}", f, args


def _attention(rng: np.random.Generator) -> Drawn:
    length, heads = _log_integer(rng, 3, 32), _integer(rng, 1, 4)
    width, size = _log_integer(rng, 2, 32), _log_integer(rng, 1, 16)
    causal, gain = _coin(rng), _log_uniform(rng, 0.3, 4)
    shape, scale = (width, heads, size), 1 / math.sqrt(width)
    leaves = {
        "query": _normal(rng, *shape, scale=gain * scale),
        "key": _normal(rng, *shape, scale=scale),
        "value": _normal(rng, *shape, scale=scale),
        "out": _normal(rng, heads, size, width, scale=1 / math.sqrt(heads * size)),
    }

    def f(leaves, inputs, targets):
        query, key, value = (
            jnp.einsum("lw,whs->lhs", inputs, leaves[name]) for name in ("query", "key", "value")
        )
        logits = jnp.einsum("lhs,mhs->hlm", query, key) / math.sqrt(size)
        if causal:
            mask = jnp.tril(jnp.ones((length, length), bool))
            logits = jnp.where(mask, logits, -jnp.inf)
        mixed = jnp.einsum("hlm,mhs->lhs", jax.nn.softmax(logits, axis=-1), value)
        return jnp.mean((inputs + jnp.einsum("lhs,hsw->lw", mixed, leaves["out"]) - targets) ** 2)

    details = (
        f"length {length}, {heads} heads of {size}, width {width}, gain {gain:.2g}"
        f"{', causal' if causal else ''}"
    )
    return details, f, (leaves, _normal(rng, length, width), _normal(rng, length, width))


def _spectrum(rng: np.random.Generator) -> Drawn:
    size, rows = _log_integer(rng, 4, 256), _integer(rng, 1, 8)
    leaves = {"signal": _normal(rng, rows, size), "window": 1 + _normal(rng, size, scale=0.3)}

    def f(leaves, weights):
        waves = jnp.fft.rfft(leaves["signal"] * leaves["window"])
        return jnp.sum(weights * jnp.log1p(waves.real**2 + waves.imag**2))

    return f"{rows} x {size}", f, (leaves, _normal(rng, rows, size // 2 + 1))


FAMILIES: dict[str, tuple[float, Callable[[np.random.Generator], Drawn]]] = {
    "network": (0.4, _network),
    "composition": (0.06, _composition),
    "logsumexp": (0.05, _logsumexp),
    "scales": (0.06, _scales),
    "solve": (0.06, _solve),
    "cholesky": (0.05, _cholesky),
    "recurrence": (0.05, _recurrence),
    "initial value": (0.02, _initial_value),
    "control flow": (0.06, _control_flow),
    "indexing": (0.06, _indexing),
    "convolution": (0.04, _convolution),
    "normalisation": (0.04, _normalisation),
    "attention": (0.03, _attention),
    "spectrum": (0.02, _spectrum),
}


def main() -> None:
    """Prints the families of all seeds."""
    counts = collections.Counter(draw(seed, jnp.float32).family for seed in range(SEEDS))
    for family, count in counts.most_common():
        print(f"{family:14} {count:5}  {'#' * round(count / 10)}")


if __name__ == "__main__":
    main()
