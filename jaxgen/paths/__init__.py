r"""Noise paths, what a network may predict on them, and the times at which they are visited; names only.

A path carries data to noise. Time runs from t_min (hardly any noise) to t_max (hardly any data), and both scales are
functions of it:

    (1)  x_t = alpha(t) x_0 + sigma(t) eps,  eps ~ N(0, I)
    (2)  log_snr(t) = ln(alpha(t)^2 / sigma(t)^2), falling in t
    (3)  x_T ~ N(0, sigma(t_max)^2 I) is where sampling starts

The denoiser x0(x_t, t) = E[x_0 | x_t] is the canonical quantity, and all others are views of it:

    (4)  eps      = (x_t - alpha x0) / sigma
    (5)  score    = -eps / sigma = gradient of ln p_t(x_t)
    (6)  v        = (alpha eps - sigma x0) / r,  r^2 = alpha^2 + sigma^2
    (7)  velocity = alpha' x0 + sigma' eps = dx_t/dt along the probability flow
    (8)  F        = r (x0 - c_skip x_t) / (s sigma),  c_skip = s^2 alpha / r^2,  r^2 = s^2 alpha^2 + sigma^2

(8) is the preconditioning of data of standard deviation s; with s = 1 it is -v.

Sources: Denoising Diffusion Probabilistic Models, https://arxiv.org/abs/2006.11239; Score-Based Generative Modeling
through Stochastic Differential Equations, https://arxiv.org/abs/2011.13456; Variational Diffusion Models,
https://arxiv.org/abs/2107.00630; Progressive Distillation, https://arxiv.org/abs/2202.00512 (v); Elucidating the
Design Space of Diffusion-Based Generative Models, https://arxiv.org/abs/2206.00364 (8); Flow Matching for Generative
Modeling, https://arxiv.org/abs/2210.02747.
"""

from jaxgen.paths.bound import variational_bound
from jaxgen.paths.couplings import (
    Coupling,
    assignment,
    independent_coupling,
    optimal_transport_coupling,
    reflow_coupling,
)
from jaxgen.paths.grids import karras_grid, log_snr_grid, quadratic_grid, trailing_grid, uniform_grid
from jaxgen.paths.pairs import (
    Pairs,
    doubling,
    inverse_gap_weight,
    inverse_variance_weight,
    log_normal_pairs,
    tuning_pairs,
    uniform_pairs,
)
from jaxgen.paths.parametrizations import (
    EPS,
    SCORE,
    VELOCITY,
    X0,
    Parametrization,
    V,
    denoiser,
    network_output,
    preconditioned,
    sensitivity,
    trigflow,
)
from jaxgen.paths.path import Path, Time, log_snr, scales, slopes, time_of_log_snr
from jaxgen.paths.schedules import (
    cosine,
    ddpm,
    discrete,
    karras,
    linear,
    of_log_snr,
    sub_variance_preserving,
    variance_exploding,
    variance_preserving,
)
from jaxgen.paths.times import (
    independent_times,
    log_normal_times,
    logit_normal_times,
    strata,
    stratified_mean,
    stratified_times,
)
from jaxgen.paths.views import eps, perturb, posterior, velocity
from jaxgen.paths.weights import denoising_weight, min_snr_weight, sigmoid_weight, simple_weight, variational_weight

__all__ = [
    "EPS",
    "SCORE",
    "V",
    "VELOCITY",
    "X0",
    "Coupling",
    "Pairs",
    "Parametrization",
    "Path",
    "Time",
    "assignment",
    "cosine",
    "ddpm",
    "denoiser",
    "denoising_weight",
    "discrete",
    "doubling",
    "eps",
    "independent_coupling",
    "independent_times",
    "inverse_gap_weight",
    "inverse_variance_weight",
    "karras",
    "karras_grid",
    "linear",
    "log_normal_pairs",
    "log_normal_times",
    "log_snr",
    "log_snr_grid",
    "logit_normal_times",
    "min_snr_weight",
    "network_output",
    "of_log_snr",
    "optimal_transport_coupling",
    "perturb",
    "posterior",
    "preconditioned",
    "quadratic_grid",
    "reflow_coupling",
    "scales",
    "sensitivity",
    "sigmoid_weight",
    "simple_weight",
    "slopes",
    "strata",
    "stratified_mean",
    "stratified_times",
    "sub_variance_preserving",
    "time_of_log_snr",
    "trailing_grid",
    "trigflow",
    "tuning_pairs",
    "uniform_grid",
    "uniform_pairs",
    "variance_exploding",
    "variance_preserving",
    "variational_bound",
    "variational_weight",
    "velocity",
]
