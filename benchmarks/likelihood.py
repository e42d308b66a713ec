"""How exact the likelihood of a probability flow is, against its price: `python -m benchmarks.likelihood`.

The score is that of a mixture of three Gaussians of mean 0 in 2, 16 and 256 dimensions, whose log-density is known at
every noise level. Shown is the largest error of ln p(x) over 64 draws, in nats per dimension, against the number of
Runge-Kutta steps (4 evaluations of the score each), exact divergence; a table, and a figure where `--figure` names one.
"""

from collections.abc import Sequence
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
from jaxgen.transforms import probability_flow

PROG = "python -m benchmarks.likelihood"
DIMENSIONS, STEPS, NUM = (2, 16, 256), (5, 10, 20, 40, 80), 64
WEIGHTS, SCALES = np.array([0.3, 0.3, 0.4]), np.array([0.3, 0.4, 0.5])


def log_prob(means: Any, x: Any, alpha: Any = 1.0, sigma: Any = 0.0) -> Any:
    """Log-density of alpha x + sigma eps under the mixture with these means."""
    scale = jnp.sqrt(alpha**2 * SCALES**2 + sigma**2)
    each = normal_log_prob(x[:, None], jnp.asarray(alpha * means, jnp.float32), jnp.log(scale)[:, None]).sum(-1)
    return jax.scipy.special.logsumexp(each + jnp.log(WEIGHTS), axis=-1)


def errors(path: NoisePath, num_dims: int) -> list[float]:
    """The largest error per dimension, for each number of steps."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(len(WEIGHTS), num_dims))
    means -= WEIGHTS @ means
    which = rng.choice(len(WEIGHTS), NUM, p=WEIGHTS)
    x = jnp.asarray(means[which] + SCALES[which, None] * rng.normal(size=(NUM, num_dims)), jnp.float32)

    def score(params: Any, x: Any, t: Any, cond: Any = None) -> Any:
        del params, cond
        return jax.grad(lambda x: log_prob(means, x, path.alpha(t), path.sigma(t)).sum())(x)

    model: Any = Model(init=None, loss=None, sample=None, score=score)  # type: ignore[arg-type]
    found = []
    for num_steps in STEPS:
        flow = probability_flow(model, path, num_steps=num_steps)
        assert flow.log_prob is not None
        found.append(float(abs(jax.jit(flow.log_prob)({}, x) - log_prob(means, x)).max()) / num_dims)
    return found


def figure(found: dict[str, list[float]]) -> str:
    """Error against evaluations of the score, both logarithmic, as SVG."""
    import io

    from matplotlib.figure import Figure

    drawn = Figure(figsize=(6, 4), layout="constrained")
    axes = drawn.add_subplot()
    for name, values in found.items():
        axes.loglog([4 * num for num in STEPS], values, "o-", label=name)
    axes.axhline(1e-3, color="#999999", lw=1, ls="--")
    axes.set(xlabel="evaluations of the score", ylabel="largest error of ln p, nats per dimension")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    buffer = io.StringIO()
    drawn.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def main(argv: Sequence[str]) -> int:
    """Prints the table.

    Raises:
        UserError: for bad input.
    """
    parser = cli.Parser(PROG, description="Error of the probability flow's likelihood against its price.")
    parser.add_argument("--figure", default=None, metavar="FILE", help="SVG to write")
    args = parser.parse(argv)
    known = {"cosine": paths.cosine(), "variance preserving": paths.variance_preserving()}
    found = {f"{name}, {d} dimensions": errors(path, d) for name, path in known.items() for d in DIMENSIONS}
    print(f"{'Runge-Kutta steps':36}" + "".join(f"{num:>10}" for num in STEPS))
    for name, values in found.items():
        print(f"{name:36}" + "".join(f"{value:10.1e}" for value in values))
    if args.figure:
        Path(args.figure).write_text(figure(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    cli.run(main, PROG)
