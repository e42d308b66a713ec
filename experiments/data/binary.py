"""Binarised views of grey images with levels 0 .. m: `Dataset -> Dataset`.

    (1)  dynamic:    x ~ Bernoulli(pixel / m), drawn anew at every visit of a training row; once for valid and test
    (2)  threshold:  x = 1 where pixel / m > 1/2

Likelihoods under the two protocols, and under a fixed binarisation, cannot be compared.

Source of (1): On the Quantitative Analysis of Deep Belief Networks, Salakhutdinov and Murray, 2008; Importance Weighted
Autoencoders, https://arxiv.org/abs/1509.00519.
"""

import numpy as np

from experiments.data.records import Dataset, Split

__all__ = ["bernoulli", "dynamic", "threshold"]


def bernoulli(rng: np.random.Generator, grey: np.ndarray, top: int) -> np.ndarray:
    """Draws bits with P(1) = grey / top exactly: 1 where a uniform integer of 0 .. top - 1 is below `grey`."""
    return (rng.integers(0, top, size=grey.shape, dtype=np.uint8) < grey).view(np.uint8)


def dynamic(dataset: Dataset) -> Dataset:
    """The data set binarised by (1); `train` holds one fixed draw, `dynamic` makes the fresh ones."""
    grey, top = dataset.train.x, dataset.num_levels - 1

    def once(split: Split, seed: int) -> Split:
        return Split(bernoulli(np.random.default_rng(seed), split.x, top), split.cond)

    return dataset._replace(
        name=f"{dataset.name}_binary",
        train=once(dataset.train, 0),
        valid=once(dataset.valid, 1),
        test=once(dataset.test, 2),
        num_levels=2,
        protocol=f"dynamic binarisation: P(1) = pixel/{top}, train drawn anew at every visit, valid and test once with "
        f"seeds 1 and 2; {dataset.protocol}",
        dynamic=lambda rng, rows: bernoulli(rng, grey[rows], top),
    )


def threshold(dataset: Dataset) -> Dataset:
    """The data set binarised by (2)."""
    top = dataset.num_levels - 1

    def cut(split: Split) -> Split:
        return Split((split.x > top / 2).view(np.uint8), split.cond)

    return dataset._replace(
        name=f"{dataset.name}_threshold",
        train=cut(dataset.train),
        valid=cut(dataset.valid),
        test=cut(dataset.test),
        num_levels=2,
        protocol=f"thresholded: 1 where pixel/{top} > 0.5; {dataset.protocol}",
    )
