"""Quick trainings: every step draws its own batch, and all steps are one scan."""

import jax

from jaxgen.core import init_state, train_step

KEY = jax.random.key(0)


def start(model, tx, draw):
    """The state before the first step; `draw` is `key -> Batch`."""
    return jax.jit(lambda: init_state(model, tx, KEY, draw(KEY)))()


def fit(model, tx, draw, state, num_steps):
    """The state after `num_steps` steps, with a moving average."""
    step = train_step(model, tx, ema_decay=0.99)

    @jax.jit
    def run(state):
        advance = lambda state, key: (step(state, draw(key))[0], None)  # noqa: E731
        return jax.lax.scan(advance, state, jax.random.split(KEY, num_steps))[0]

    return run(state)
