"""MADE of binarised 28x28 images: every pixel from those before it, row by row, by one masked perceptron.

    python -m experiments.train made_mnist --workdir runs/made_mnist

The default is the fixed binarisation; `--data mnist_binary` draws it anew at every visit, which is another protocol:
-93.7 nats after 16000 steps, 10 minutes on one core of an AMD EPYC; with `--width 2000 --steps 25000` -87.25, 47
minutes on one core of an Intel Xeon (published: -84.87, with more orders and passes). The default takes about 20
minutes on one core of an AMD EPYC: -97.3 nats on the fixed one (it overfits); 32 orders do not, `--num-masks 32
--width 2000 --steps 40000`: -92.8 nats after 57 minutes there. At the published size, `--num-masks 32 --width 8000
--learning-rate 3e-4`, -94.4 nats after 14285 steps, two minutes of an H100 with compiling; published: -86.64
(https://arxiv.org/abs/1502.03509). Bits of tables, `--data debd_dna --width 500 --depth 1 --num-masks 16 --steps
10000`, take a minute or two: -84.0 nats; RESULTS.md has four of them.
"""

import dataclasses

from experiments import checks, config
from experiments.config import Experiment
from experiments.data import Dataset
from experiments.optimizers import cosine_adam
from jaxgen.distributions import categorical_conditional
from jaxgen.models.autoregressive.autoregressive import autoregressive, complete
from jaxgen.models.autoregressive.made import made_ensemble
from jaxgen.nets.made import MADE


@dataclasses.dataclass(frozen=True)
class Config(config.Config):
    """Masked autoencoder for distribution estimation."""

    data: str = "mnist_static"
    """Data set of integers, binarised images above all; `--help` lists them."""
    steps: int = 20000
    """Number of training steps in all (a resumed run goes on to this number)."""
    batch_size: int = 100
    """Examples per step, over all devices."""
    learning_rate: float = 1e-3
    """Largest step size of Adam, which falls to 0 along a half cosine."""
    ema_decay: float = 0.999
    """Decay of the moving average of the parameters that is sampled and evaluated; 0 turns it off."""
    width: int = 1024
    """Units of each hidden layer."""
    depth: int = 2
    """Number of hidden layers."""
    num_masks: int = 1
    """Number of orders, each with its masks, that the density is averaged over; 1 is the order of the data."""
    weight_decay: float = 1e-2
    """Decay of the parameters, of AdamW."""
    log_every: int = 200
    """Steps between two lines of metrics."""
    checkpoint_every: int = 2000
    """Steps between two checkpoints (each with the loss on the validation part)."""


def build(config: Config, dataset: Dataset) -> Experiment:
    """Builds the model of integers and its optimiser."""
    shape, num_levels = checks.integer_shape(dataset, "this MADE"), dataset.num_levels
    net = MADE(num_levels, (config.width,) * config.depth, shape, checks.num_classes(config, dataset))
    tx = cosine_adam(config, weight_decay=config.weight_decay)
    if config.num_masks > 1:
        return Experiment(made_ensemble(net, num_masks=config.num_masks), tx)
    density = shape, categorical_conditional(num_levels)
    return Experiment(autoregressive(net, *density), tx, complete=complete(net, *density))
