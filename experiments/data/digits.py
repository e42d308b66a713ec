"""The 1797 handwritten digits of 8x8 pixels that lie inside scikit-learn: needs no file and no network.

Source: https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits (its test part).
"""

import numpy as np

from experiments.data.records import Dataset, Split, hold_out

__all__ = ["grey"]

_NUM_FIRST, _NUM_VALID = 1300, 100


def grey() -> Dataset:
    """Loads `digits`: levels 0..16."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    whole = Split(images.astype(np.uint8).reshape(-1, 8, 8, 1), labels.astype(np.int32))
    first, test = hold_out(whole, len(images) - _NUM_FIRST)
    train, valid = hold_out(first, _NUM_VALID)
    protocol = (
        f"levels 0..16; of the {len(images)} rows of scikit-learn's load_digits, train = the first {len(train.x)}, "
        f"valid = the next {_NUM_VALID}, test = the last {len(test.x)}"
    )
    return Dataset("digits", train, valid, test, num_levels=17, num_classes=10, protocol=protocol)
