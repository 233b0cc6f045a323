"""From guessing to L-BFGS, counted in evaluations of the loss."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet import mlp, optimizers, plots
from jaxnet.lecture import differences, ladder
from jaxnet.lecture.page import Code, Picture, Section, Table, Terminal, Text

_GOALS = (0.25, 0.005)  # the slides'
_DATA = {
    "two points": "the slide's 2",
    "is it a 3?": "1,438 digits of 8 x 8",
    "64-16-10": "the same",
}


def slides_walk() -> dict[str, Any]:
    """Returns the slide's two moves by hand and what coordinate descent makes of the same point."""
    x, start = jnp.array(ladder.POINTS[0]), jnp.array([-1.0, 0.5, 0.1])

    def penalty(w):
        return (w @ x - 1) ** 2

    optimizer = optimizers.coordinate_descent()
    found = {}
    for seed in range(20):
        w, _ = optimizer.step(jax.random.key(seed), penalty, start, optimizer.init(start))
        moved = int(np.argmax(np.abs(np.asarray(w - start))))
        found[f"w{moved}"] = round(float(w[moved]), 4)
    by_hand = {"start": start, "w0 = -0.7": start.at[0].set(-0.7), "w1 = 0.6": start.at[1].set(0.6)}
    return {
        "y": {name: float(w @ x) for name, w in by_hand.items()},
        "one step of coordinate descent": dict(sorted(found.items())),
    }


def section() -> Section:
    """From guessing to L-BFGS, counted in evaluations of the loss."""
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
            ladder.guesses_needed(f, d, goal * (d if mean else 1), key)
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
            f"MSE < {goal}": ladder.guesses_needed(ladder.of_two_points(is_sigmoid), 3, goal, key)
            for goal in _GOALS
        }
        for name, is_sigmoid in (("linear neuron", False), ("sigmoid neuron", True))
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
                "The first optimizer guesses all weights anew, uniformly in [-1, 1), and keeps the "
                "best. For the slide's two points and three weights that will do:"
            ),
            Table(
                ("", *(f"MSE < {goal}" for goal in _GOALS)),
                [
                    (name, *(f"{guesses:,.0f}" for guesses in by_goal.values()))
                    for name, by_goal in of_two_points.items()
                ],
                "Guesses on average, by the share of 4 million that came below.",
            ),
            Text(
                "With every further weight that has to be right it takes several times as many. "
                "The picture has a linear neuron that must get as many points right as it has "
                "weights. By the mean of their errors it is allowed ever more in all, and guesses "
                "grow slowly; by the sum they grow as those of a grid do."
            ),
            Picture(
                "guesses",
                plots.lecture.guesses(list(dimensions), needed),
                "Guesses that it takes on average, beside a grid of ten values a weight. Goals "
                "that were met less than twenty times in 4 million are left out. The slide's 100, "
                "1,000 and 1,000,000 for 2, 3 and 6 dimensions are 10 to the power of the "
                "dimension, and right; its neuron, drawn in the plane, has three weights, as "
                "w0 is one.",
            ),
            Text(
                "The second fixes all weights but one. From w = [-1, 0.5, 0.1] the point (3, 2) "
                f"gives y = {walk['y']['start']:.1f} and should give 1. Raising w0 to -0.7 does "
                "it, or w1 to 0.6: then w1 x1 is 1.8, and y = 1. (The slide adds 0.1 to 0.6 once "
                "more and writes 0.7 and 2.1; y would be 1.3.) Coordinate descent looks to both "
                "sides, and where the parabola through what it saw has its minimum: for a linear "
                "neuron one step reaches it, whichever weight is drawn."
            ),
            Terminal(
                "\n".join(
                    f"{name}  ->  {value}"
                    for name, value in walk["one step of coordinate descent"].items()
                )
            ),
            Code([optimizers.random_search, optimizers.coordinate_descent], folded=True),
            Text(
                "A gradient says for all weights at once where down is. By differences it costs "
                "a loss or two for every weight; by backpropagation it costs three losses, "
                "however many weights there are (a backward pass multiplies twice as much as a "
                "forward one, and counts as two). Three problems for all rungs, counted in losses:"
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
                "All neurons are sigmoids with biases. The first problem begins at "
                "w = [-1, 0.5, 0.1], the others at random.",
            ),
            Picture(
                "ladder",
                plots.lecture.ladder(curves),
                "The least loss so far over the losses evaluated. The black line is the goal. "
                "Descent by hand and by jax.grad are one line: they take the same steps.",
            ),
            Table(
                ("losses to the goal", *problems),
                losses,
                "Learning rates were chosen on the problem. Where it says about, descent was not "
                "run to its end: it goes the way of the gradient by hand, step by step.",
            ),
            Table(
                ("seconds to the goal", *problems),
                seconds,
                "Compiled, on this page's machine. Random guessing and the two points are all "
                "overhead.",
            ),
            Text(
                "So the lecture is right that guessing gets nowhere in 65 dimensions, and that "
                "the gradient by backpropagation takes far fewer losses than the one by "
                "differences. But not every rung is better than the one before. Coordinate "
                "descent needs fewer losses than descent along a numerical gradient, which spends "
                "one or two on every weight to make one small step of all, where coordinate "
                "descent makes the best step of one. Central differences cost twice what forward "
                "ones do, and are no use here for being more exact. And momentum, ahead on the "
                "neuron, never reaches the goal on the network, at any rate that was tried: it "
                "runs outputs into saturation, where the sigmoid is flat."
            ),
        ],
        numbers,
    )


def losses_to_goal(
    rung: ladder.Rung, problem: ladder.Problem, climbs: Mapping[str, ladder.Climb]
) -> str:
    """Returns how many losses a rung needs; of numerical gradients, what their path would cost.

    Descent along them goes the way of descent along the gradient by hand, at another price a step.
    """
    climb, same_way = climbs[rung.name], climbs["gradient descent, gradient by hand"]
    if climb.needed:
        return f"{climb.needed:,}"
    if rung.scheme in differences.SCHEMES and same_way.needed:
        steps = same_way.needed // optimizers.losses_per_call("analytical", problem.params)
        cost = optimizers.losses_per_call(rung.scheme, problem.params)
        return f"about {steps * cost:,}"
    return f"not in {climb.losses[-1]:,}"


def thin(values: np.ndarray, most: int = 200) -> list[float]:
    """Returns at most so many of the values, denser at the beginning."""
    at = np.unique(np.geomspace(1, len(values), most).astype(int)) - 1
    return np.asarray(values, float)[at].tolist()
