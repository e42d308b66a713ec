"""Leaf densities as functions, and what binds them to the outputs of networks: `Likelihood` and `Conditional`."""

from jaxgen.distributions.companding import compand, expand, level_cells
from jaxgen.distributions.conditional import Conditional, categorical_conditional, categorical_ending, with_end
from jaxgen.distributions.densities import (
    bernoulli_log_prob,
    categorical_log_prob,
    logistic_log_prob,
    normal_kl,
    normal_log_prob,
    sum_event,
)
from jaxgen.distributions.levels import check_levels, known, stored, tokens
from jaxgen.distributions.likelihood import Likelihood, bernoulli_likelihood, normal_likelihood
from jaxgen.distributions.logistic_mixture import logistic_mixture
from jaxgen.distributions.picking import pick

__all__ = [
    "Conditional",
    "Likelihood",
    "bernoulli_likelihood",
    "bernoulli_log_prob",
    "categorical_conditional",
    "categorical_ending",
    "categorical_log_prob",
    "check_levels",
    "compand",
    "expand",
    "known",
    "level_cells",
    "logistic_log_prob",
    "logistic_mixture",
    "normal_kl",
    "normal_likelihood",
    "normal_log_prob",
    "pick",
    "stored",
    "sum_event",
    "tokens",
    "with_end",
]
