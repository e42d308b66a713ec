"""The peer's side of `benchmarks.flows` in flowjax, with its own train step (`pip install flowjax`)."""

import importlib.metadata
from typing import Any

import equinox as eqx
import jax
import optax
import paramax
from flowjax import bijections, distributions, flows
from flowjax.train import step
from flowjax.train.losses import MaximumLikelihoodLoss

from benchmarks.serving import Works, serve, sizes


def build(num_dims: int, num_layers: int, num_bins: int, told: dict[str, Any]) -> Any:
    """The flow."""
    options = {}
    if num_bins:
        options["transformer"] = bijections.RationalQuadraticSpline(knots=num_bins - 1, interval=told["bound"])
    return flows.coupling_flow(
        jax.random.key(0),
        base_dist=distributions.StandardNormal((num_dims,)),
        flow_layers=num_layers,
        nn_width=told["width"],
        nn_depth=2,
        nn_activation=jax.nn.silu,
        **options,
    )


def main() -> None:
    """Builds every case, and serves."""
    told, works, params = sizes(), {}, {}
    latest: dict[str, Any] = {}
    for name, (num_dims, num_layers, num_bins) in told["cases"].items():
        flow = build(num_dims, num_layers, num_bins, told)
        own, count = work(name, flow, told, num_dims, latest)
        works.update({f"{name} {kind}": call for kind, call in own.items()})
        params[name] = count
    versions = {"flowjax": importlib.metadata.version("flowjax"), "flowjax's jax": jax.__version__}
    serve(works, params, versions, lambda: jax.block_until_ready(latest))


def work(name: str, flow: Any, told: dict[str, Any], num_dims: int, latest: dict[str, Any]) -> tuple[Works, int]:
    """A train step and draws, whose results are kept in `latest`; and the number of parameters."""
    data = jax.random.normal(jax.random.key(1), (told["batch"], num_dims))
    frozen = lambda leaf: isinstance(leaf, paramax.NonTrainable)  # noqa: E731
    params, static = eqx.partition(flow, eqx.is_inexact_array, is_leaf=frozen)
    optimizer, loss = optax.adam(1e-3), MaximumLikelihoodLoss()
    states = [(params, optimizer.init(params))]
    draw = eqx.filter_jit(lambda flow, key: flow.sample(key, (told["draws"],)))

    def train() -> None:
        params, opt_state = states[0]
        params, opt_state, latest[name] = step(
            params, static, data, optimizer=optimizer, opt_state=opt_state, loss_fn=loss
        )
        states[0] = params, opt_state

    def sample() -> None:
        latest[name] = draw(flow, jax.random.key(2))

    return {"train": train, "sample": sample}, sum(leaf.size for leaf in jax.tree.leaves(params))


if __name__ == "__main__":
    main()
