"""How exact the likelihood of a probability flow is, against its price: `python -m benchmarks.likelihood`.

The score is that of a mixture of three Gaussians of mean 0 in 2, 16 and 256 dimensions, whose log-density is known at
every noise level. Shown is the largest error of ln p(x) over 64 draws, in nats per dimension, against the number of
Runge-Kutta steps (4 evaluations of the score each) and against the tolerance of adaptive steps, exact divergence; two
tables, and a figure where `--figure` names one.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import cli
from jaxgen import paths
from jaxgen.core import Model
from jaxgen.distributions import normal_log_prob
from jaxgen.paths import Path as NoisePath
from jaxgen.samplers.adaptive import solve
from jaxgen.transforms import probability_flow

PROG = "python -m benchmarks.likelihood"
DIMENSIONS, STEPS, NUM = (2, 16, 256), (5, 10, 20, 40, 80), 64
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5)
Curve = list[tuple[int, float]]
"""Evaluations of the score, and the largest error of ln p per dimension."""
WEIGHTS, SCALES = np.array([0.3, 0.3, 0.4]), np.array([0.3, 0.4, 0.5])


def log_prob(means: Any, x: Any, alpha: Any = 1.0, sigma: Any = 0.0) -> Any:
    """Log-density of alpha x + sigma eps under the mixture with these means."""
    scale = jnp.sqrt(alpha**2 * SCALES**2 + sigma**2)
    each = normal_log_prob(x[:, None], jnp.asarray(alpha * means, jnp.float32), jnp.log(scale)[:, None]).sum(-1)
    return jax.scipy.special.logsumexp(each + jnp.log(WEIGHTS), axis=-1)


def problem(path: NoisePath, num_dims: int) -> tuple[Model, Any, Any]:
    """A model with the score of the mixture, 64 draws, and their log-densities."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(len(WEIGHTS), num_dims))
    means -= WEIGHTS @ means
    which = rng.choice(len(WEIGHTS), NUM, p=WEIGHTS)
    x = jnp.asarray(means[which] + SCALES[which, None] * rng.normal(size=(NUM, num_dims)), jnp.float32)

    def score(params: Any, x: Any, t: Any, cond: Any = None) -> Any:
        del params, cond
        return jax.grad(lambda x: log_prob(means, x, path.alpha(t), path.sigma(t)).sum())(x)

    unused: Any = None
    return Model(init=unused, loss=unused, sample=unused, score=score), x, log_prob(means, x)


def fixed(path: NoisePath, num_dims: int) -> Curve:
    """By the Runge-Kutta method on a grid, for each number of steps."""
    model, x, exact = problem(path, num_dims)
    found = []
    for num_steps in STEPS:
        value: Any = probability_flow(model, path, num_steps=num_steps).log_prob
        found.append((4 * num_steps, float(abs(jax.jit(value)({}, x) - exact).max()) / num_dims))
    return found


def counted(tolerance: float) -> tuple[Callable[..., Any], list[int]]:
    """A solver of adaptive steps, and the list that it adds its evaluations to; not under `jax.jit`."""
    counts: list[int] = []

    def solver(field: Any, y: Any, grid: Any) -> Any:
        solution = solve(field, y, grid[0], grid[-1], rtol=tolerance, atol=tolerance)
        counts.append(int(solution.num_evaluations))
        return solution.y

    return solver, counts


def adaptive(path: NoisePath, num_dims: int) -> Curve:
    """By steps as long as a tolerance allows, the same for all draws, for each tolerance."""
    model, x, exact = problem(path, num_dims)
    found = []
    for tolerance in TOLERANCES:
        solver, counts = counted(tolerance)
        value: Any = probability_flow(model, path, solver=solver).log_prob
        error = float(abs(value({}, x) - exact).max()) / num_dims
        found.append((counts[0], error))
    return found


def figure(found: dict[str, Curve], adapted: dict[str, Curve]) -> str:
    """Error against evaluations of the score, both logarithmic, as SVG; adaptive steps are dashed."""
    import io

    from matplotlib.figure import Figure

    drawn = Figure(figsize=(8.5, 4), layout="constrained")
    axes = drawn.add_subplot()
    for number, name in enumerate(found):
        axes.loglog(*zip(*found[name], strict=True), "o-", color=f"C{number}", label=name)
        axes.loglog(*zip(*adapted[name], strict=True), "x--", color=f"C{number}", lw=0.8)
    axes.axhline(1e-3, color="#999999", lw=1, ls=":")
    axes.set(xlabel="evaluations of the score", ylabel="largest error of ln p, nats per dimension")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xticks(ticks := [4 * num for num in STEPS], [str(tick) for tick in ticks])
    axes.minorticks_off()
    drawn.legend(frameon=False, title="grid; dashed: adaptive", loc="outside right upper")
    buffer = io.StringIO()
    drawn.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def main(argv: Sequence[str]) -> int:
    """Prints the tables.

    Raises:
        UserError: for bad input.
    """
    parser = cli.Parser(PROG, description="Error of the probability flow's likelihood against its price.")
    parser.add_argument("--figure", default=None, metavar="FILE", help="SVG to write")
    args = parser.parse(argv)
    known = {"cosine": paths.cosine(), "variance preserving": paths.variance_preserving()}
    cases = {f"{name}, {d} dimensions": (path, d) for name, path in known.items() for d in DIMENSIONS}
    found, adapted = ({name: curve(*case) for name, case in cases.items()} for curve in (fixed, adaptive))
    print(f"{'Runge-Kutta steps':36}" + "".join(f"{num:>10}" for num in STEPS))
    for name, curve in found.items():
        print(f"{name:36}" + "".join(f"{error:10.1e}" for _, error in curve))
    print(f"{'tolerance: evaluations, error':36}" + "".join(f"{tolerance:>16}" for tolerance in TOLERANCES))
    for name, curve in adapted.items():
        print(f"{name:36}" + "".join(f"{num:>8},{error:7.1e}" for num, error in curve))
    if args.figure:
        Path(args.figure).write_text(figure(found, adapted), encoding="utf-8")
    return 0


if __name__ == "__main__":
    cli.run(main, PROG)
