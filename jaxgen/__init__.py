"""Deep generative models in JAX: pure functions over Flax parameters behind one score and likelihood interface.

Names only. Every model factory returns a `Model`; `train_step` trains any of them; `dequantize`, `pull_back`,
`probability_flow` and `resample` go from model to model. Everything else lives in the rooms below: `jaxgen.nets`,
`jaxgen.bijections`, `jaxgen.paths`, `jaxgen.samplers`, `jaxgen.kernels`, `jaxgen.metrics`, `jaxgen.parallel`.
"""

from jaxgen.core import (
    Model,
    TrainState,
    bits_per_dim,
    importance_bound,
    init_state,
    score,
    train_step,
)
from jaxgen.models.adversarial.gan import gan, two_player_optimizer
from jaxgen.models.autoencoders.vae import vae
from jaxgen.models.autoregressive.autoregressive import autoregressive, complete
from jaxgen.models.classical.ppca import fit as fit_ppca
from jaxgen.models.classical.ppca import ppca
from jaxgen.models.diffusion.consistency import consistency
from jaxgen.models.diffusion.continuous_consistency import continuous_consistency
from jaxgen.models.diffusion.d3pm import d3pm
from jaxgen.models.diffusion.diffusion import diffusion
from jaxgen.models.diffusion.masked_diffusion import masked_diffusion
from jaxgen.models.diffusion.mean_flow import mean_flow
from jaxgen.models.diffusion.shortcut import shortcut
from jaxgen.models.diffusion.vdm import vdm
from jaxgen.models.energy.rbm import rbm
from jaxgen.models.flows.ffjord import ffjord
from jaxgen.models.flows.glow import glow
from jaxgen.models.flows.iaf import iaf
from jaxgen.models.flows.maf import maf
from jaxgen.models.flows.neural_spline_flow import neural_spline_flow, neural_spline_flow_autoregressive
from jaxgen.models.flows.nice import nice
from jaxgen.models.flows.real_nvp import real_nvp, real_nvp_image
from jaxgen.models.flows.residual_flow import residual_flow
from jaxgen.teaching import starting_from, with_teacher
from jaxgen.transforms import (
    classifier_free_guidance,
    classifier_guidance,
    dequantize,
    drop_condition,
    normalize,
    probability_flow,
    pull_back,
    resample,
    shape_noise,
    variational_dequantize,
)
from jaxgen.types import Batch

__all__ = [
    "Batch",
    "Model",
    "TrainState",
    "autoregressive",
    "bits_per_dim",
    "classifier_free_guidance",
    "classifier_guidance",
    "complete",
    "consistency",
    "continuous_consistency",
    "d3pm",
    "dequantize",
    "diffusion",
    "drop_condition",
    "ffjord",
    "fit_ppca",
    "gan",
    "glow",
    "iaf",
    "importance_bound",
    "init_state",
    "maf",
    "masked_diffusion",
    "mean_flow",
    "neural_spline_flow",
    "neural_spline_flow_autoregressive",
    "nice",
    "normalize",
    "ppca",
    "probability_flow",
    "pull_back",
    "rbm",
    "real_nvp",
    "real_nvp_image",
    "resample",
    "residual_flow",
    "score",
    "shape_noise",
    "shortcut",
    "starting_from",
    "train_step",
    "two_player_optimizer",
    "vae",
    "variational_dequantize",
    "vdm",
    "with_teacher",
]
