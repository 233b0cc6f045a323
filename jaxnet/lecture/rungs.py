"""From guessing to L-BFGS: what the optimizers of the ladder cost."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet import mlp, optimizers, plots
from jaxnet.lecture import differences, ladder
from jaxnet.lecture.page import Code, Picture, Section, Table, Terminal, Text

__all__ = ["losses_to_goal", "section", "slides_walk", "thin"]

_GOALS = (0.25, 0.005)  # as on the slides
_DATA = {
    "two points": "the slide's 2 points",
    "is it a 3?": "1,438 digits of 8 x 8",
    "64-16-10": "the same",
}


def slides_walk() -> dict[str, Any]:
    """Returns the slide's two moves by hand, and the steps of coordinate descent from there."""
    x, start = jnp.array(ladder.POINTS[0]), jnp.array([-1.0, 0.5, 0.1])

    def penalty(w: jax.Array) -> jax.Array:
        return (w @ x - 1) ** 2

    optimizer = optimizers.coordinate_descent()
    step = jax.jit(lambda key: optimizer.step(key, penalty, start, optimizer.init(start)))
    found = {}
    for seed in range(20):
        w, _ = step(jax.random.key(seed))
        moved = int(np.argmax(np.abs(np.asarray(w - start))))
        found[f"w{moved}"] = round(float(w[moved]), 4)
    by_hand = {"start": start, "w0 = -0.7": start.at[0].set(-0.7), "w1 = 0.6": start.at[1].set(0.6)}
    return {
        "y": {name: float(w @ x) for name, w in by_hand.items()},
        "one step of coordinate descent": dict(sorted(found.items())),
    }


def section() -> Section:
    """Returns the section on the ladder of optimizers, from guessing to L-BFGS."""
    problems = {
        p.name: p for p in (ladder.two_points(), ladder.is_it_a_three(), ladder.small_network())
    }
    climbs = {
        name: {rung.name: ladder.climb(rung, problem) for rung in ladder.RUNGS}
        for name, problem in problems.items()
    }
    curves = {
        name: {
            "goal": problems[name].goal,
            "rungs": {
                rung: {"losses": thin(climb.losses), "values": thin(climb.values)}
                for rung, climb in by_rung.items()
            },
        }
        for name, by_rung in climbs.items()
    }
    dimensions = range(1, 9)
    key = jax.random.key(1)
    distances = {d: ladder.distance(jax.random.fold_in(key, d), d) for d in dimensions}
    needed = {
        name: [
            ladder.guesses_needed(f, d, goal * (d if mean else 1), key=key)
            for d, f in distances.items()
        ]
        for name, goal, mean in (
            ("sum of squared errors < 0.25", 0.25, False),
            ("sum of squared errors < 0.005", 0.005, False),
            ("their mean < 0.25", 0.25, True),
        )
    }
    of_two_points = {
        name: {
            f"MSE < {goal}": ladder.guesses_needed(ladder.neuron_loss(output), 3, goal, key=key)
            for goal in _GOALS
        }
        for name, output in (("linear neuron", jnp.positive), ("sigmoid neuron", jax.nn.sigmoid))
    }
    losses, seconds = [], []
    for rung in ladder.RUNGS:
        of_rung = [climbs[name][rung.name] for name in problems]
        losses.append(
            (rung.name, *(losses_to_goal(rung, problems[name], climbs[name]) for name in problems))
        )
        seconds.append(
            (rung.name, *(f"{c.needed_seconds:.2g}" if c.needed_seconds else "-" for c in of_rung))
        )
    walk = slides_walk()
    numbers = {
        "walk": walk,
        "guesses": {"two points": of_two_points, "dimensions": list(dimensions), **needed},
        "problems": {
            name: {
                "dimension": ladder.dimension(problem),
                "goal": problem.goal,
                "rungs": {
                    rung: {
                        "losses to the goal": climb.needed,
                        "seconds to the goal": climb.needed_seconds,
                        "losses in all": int(climb.losses[-1]),
                        "least loss": float(np.nanmin(climb.values)),
                    }
                    for rung, climb in climbs[name].items()
                },
            }
            for name, problem in problems.items()
        },
        "curves": curves,
    }
    return Section(
        "ladder",
        "From guessing to gradients",
        "Random guessing again; Simple example; Coordinate Descent; Now that we know the gradient",
        [
            Text(
                "The first optimizer guesses all weights at random, uniformly in [-1, 1), and "
                "keeps the best guess. For the slide's two points and three weights this is enough:"
            ),
            Table(
                ("", *(f"MSE < {goal}" for goal in _GOALS)),
                [
                    (name, *(f"{guesses:,.0f}" for guesses in by_goal.values()))
                    for name, by_goal in of_two_points.items()
                ],
                "Average number of guesses to reach the goal, estimated from 4 million guesses.",
            ),
            Text(
                "But every further weight that has to be right multiplies the number of guesses. "
                "The picture shows it for a linear neuron that has to fit as many points as it has "
                "weights. If the goal is for the sum of the squared errors, the number of guesses "
                "grows exponentially, as on a grid. If it is for their mean, the sum may grow with "
                "the number of weights, and the number of guesses grows slowly."
            ),
            Picture(
                "guesses",
                plots.lecture.guesses(list(dimensions), needed),
                "Average number of guesses to reach the goal, and the points of a grid with ten "
                "values for each weight. Goals that fewer than twenty of 4 million guesses reached "
                "are left out. The slide's 100, 1,000 and 1,000,000 for 2, 3 and 6 dimensions are "
                "right: 10 to the power of the dimension. But the slide's neuron in the plane has "
                "three weights, because the bias w0 is one of them.",
            ),
            Text(
                "The second optimizer, coordinate descent, changes one weight at a time. With "
                "w = [-1, 0.5, 0.1], the point (3, 2) gives "
                f"y = {walk['y']['start']:.1f} and should give 1. It does if w0 is raised to -0.7, "
                "or if w1 is raised to 0.6: then w1 x1 = 1.8 and y = 1. (The slide goes 0.1 "
                "further, to w1 = 0.7 and w1 x1 = 2.1, where y would be 1.3.) Coordinate descent "
                "draws a weight, tries a step to each side, fits a parabola to the losses, and "
                "tries the minimum of the parabola. The loss of a linear neuron is such a parabola "
                "in each weight. So one step reaches the minimum, whichever weight is drawn:"
            ),
            Terminal(
                "\n".join(
                    f"{name}  ->  {value}"
                    for name, value in walk["one step of coordinate descent"].items()
                )
            ),
            Code([optimizers.random_search, optimizers.coordinate_descent], folded=True),
            Text(
                "A gradient tells the way down for all weights at once. By finite differences it "
                "costs one or two evaluations of the loss for every weight. By backpropagation it "
                "costs three, however many weights there are: a backward pass takes twice as many "
                "multiplications as a forward pass, so it counts as two. All optimizers are "
                "run on three problems:"
            ),
            Table(
                ("problem", "network", "weights", "data", "goal: MSE below"),
                [
                    (
                        name,
                        "-".join(map(str, mlp.sizes(problem.params))),
                        f"{ladder.dimension(problem):,}",
                        _DATA[name],
                        f"{problem.goal:g}",
                    )
                    for name, problem in problems.items()
                ],
                "All neurons are sigmoids with biases. The first problem starts at "
                "w = [-1, 0.5, 0.1], the others at random weights.",
            ),
            Picture(
                "ladder",
                plots.lecture.ladder(curves),
                "The least loss so far, over the number of evaluations of the loss. The black line "
                "is the goal. Gradient descent by hand and by jax.grad take the same steps, so "
                "their curves coincide.",
            ),
            Table(
                ("evaluations of the loss", *problems),
                losses,
                "Evaluations of the loss to reach the goal, each with the best of six learning "
                'rates. A number with "about" is for gradient descent that was stopped early: it '
                "is what the steps of the gradient by hand would cost.",
            ),
            Table(
                ("seconds", *problems),
                seconds,
                "Seconds to reach the goal on the machine that made this page, without "
                "compilation. On the two points they are mostly overhead, and so are those of "
                "random guessing.",
            ),
            Text(
                "So the lecture is right: guessing gets nowhere in 65 dimensions, and "
                "backpropagation takes far fewer evaluations of the loss than finite differences. "
                "But not every optimizer is better than the one before it. Coordinate descent "
                "takes fewer evaluations than gradient descent by finite differences, which spends "
                "one or two on every weight before it makes one small step. Central differences "
                "cost twice as much as forward differences, and their higher accuracy does not "
                "help here. And momentum, which beats plain gradient descent on the one neuron, "
                "does not reach the goal on the network at any learning rate that was tried: it "
                "drives outputs into saturation, where the sigmoid is flat."
            ),
        ],
        numbers,
    )


def losses_to_goal(
    rung: ladder.Rung, problem: ladder.Problem, climbs: Mapping[str, ladder.Climb]
) -> str:
    """Returns how many evaluations of the loss a rung takes to the goal, in words.

    Gradient descent by finite differences takes the steps of the gradient by hand. Where it was
    stopped early, the cost of those steps stands for it.

    Args:
      rung: one of `ladder.RUNGS`.
      problem: one of the ladder's problems.
      climbs: the runs of all rungs on it, by name.
    """
    climb, same_way = climbs[rung.name], climbs["gradient descent, gradient by hand"]
    if climb.needed:
        return f"{climb.needed:,}"
    if rung.scheme in differences.SCHEMES and same_way.needed:
        steps = same_way.needed // optimizers.losses_per_call("analytical", problem.params)
        cost = optimizers.losses_per_call(rung.scheme, problem.params)
        return f"about {steps * cost:,}"
    return f"not in {climb.losses[-1]:,}"


def thin(values: np.ndarray, *, most: int = 200) -> list[float]:
    """Returns at most ``most`` of the values, evenly spaced on a logarithmic scale.

    Example:
      >>> thin(np.arange(1000), most=4)
      [0.0, 9.0, 99.0, 999.0]
    """
    at = np.unique(np.geomspace(1, len(values), most).astype(int)) - 1
    return np.asarray(values, float)[at].tolist()
