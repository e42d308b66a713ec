"""Wrappers from model to model, one file each; names only.

What changes a model (its coordinates, the values it is of, how it is sampled or weighed) wraps it, in place of a flag.
"""

from jaxgen.transforms.condition import drop_condition
from jaxgen.transforms.dequantize import dequantize
from jaxgen.transforms.guidance import classifier_free_guidance, classifier_guidance
from jaxgen.transforms.normalize import normalize
from jaxgen.transforms.probability_flow import probability_flow
from jaxgen.transforms.pull_back import pull_back
from jaxgen.transforms.resample import resample
from jaxgen.transforms.variational_dequantize import shape_noise, variational_dequantize

__all__ = [
    "classifier_free_guidance",
    "classifier_guidance",
    "dequantize",
    "drop_condition",
    "normalize",
    "probability_flow",
    "pull_back",
    "resample",
    "shape_noise",
    "variational_dequantize",
]
