"""Wrappers from model to model, one file each; names only.

What changes a model (its coordinates, the values it is of, how it is sampled or weighed) wraps it, in place of a flag.
"""

from jaxgen.transforms.dequantize import dequantize
from jaxgen.transforms.normalize import normalize
from jaxgen.transforms.probability_flow import probability_flow
from jaxgen.transforms.pull_back import pull_back
from jaxgen.transforms.resample import resample

__all__ = ["dequantize", "normalize", "probability_flow", "pull_back", "resample"]
