"""Feature spaces in which samples are compared with data, each named after what made it.

Principal components of the pixels need nothing. Features of a classifier need one that was trained on the same data:

    python -m experiments.classify mnist --out mnist_classifier.npz
    python -m experiments.evaluate DIR --features mnist_classifier.npz
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.data import Dataset
from experiments.errors import UserError

__all__ = ["Classifier", "Space", "of_classifier", "principal_components", "read_classifier", "write_classifier"]

NUM_COMPONENTS, _BATCH = 64, 500


class Space(NamedTuple):
    """A feature space.

    Attributes:
        apply: maps raw data `[n, ...]` to features `float32 [n, d]`.
        name: stands before the name of a distance.
        how: says what it is.
    """

    apply: Callable[[np.ndarray], np.ndarray]
    name: str
    how: str


def _scaled(dataset: Dataset, x: np.ndarray) -> np.ndarray:
    x, num_levels = dataset.seen(x)
    return np.asarray(x, np.float32) / np.float32(max(num_levels - 1, 1))


def principal_components(dataset: Dataset) -> Space:
    """The first 64 principal components of the raw training data; the data itself where it has few dimensions."""
    from sklearn.decomposition import PCA

    flat = lambda x: _scaled(dataset, x).reshape(len(x), -1)  # noqa: E731
    train = flat(dataset.train.x)
    if train.shape[1] <= 3:
        return Space(flat, "coordinate", f"features are the {train.shape[1]} coordinates themselves")
    pca = PCA(min(NUM_COMPONENTS, *train.shape), svd_solver="covariance_eigh").fit(train)
    share = pca.explained_variance_ratio_.sum()
    name = "pixel-PCA" if dataset.train.x.ndim == 4 else "PCA" if dataset.sounds is None else "spectrogram-PCA"
    what = "the training data" if dataset.sounds is None else "the spectrograms of the training data"
    which = f"first {pca.n_components_} principal components of {what} scaled to 0..1"
    how = f"features are the {which} ({share:.1%} of variance)"
    return Space(lambda x: ((flat(x) - pca.mean_) @ pca.components_.T).astype(np.float32), name, how)


class Classifier(NamedTuple):
    """A trained classifier, as it lies in its file.

    Attributes:
        params: parameters of `jaxgen.nets.classifier.ConvClassifier`, a tree of arrays.
        meta: `data`, `steps`, `seed`, `num_classes`, `num_features`, `num_levels`, `test_accuracy`.
    """

    params: Any
    meta: dict[str, Any]


def write_classifier(path: Path, classifier: Classifier) -> str:
    """Writes a classifier to a `.npz` file, and returns the digest of its parameters."""
    from flax import traverse_util

    flat = {"/".join(name): np.asarray(leaf) for name, leaf in traverse_util.flatten_dict(classifier.params).items()}
    buffer = io.BytesIO()
    np.savez(buffer, meta=np.array(json.dumps(classifier.meta)), **flat)  # type: ignore[arg-type]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())
    return digest(classifier.params)


def read_classifier(path: str | Path) -> Classifier:
    """Reads what `write_classifier` wrote.

    Raises:
        UserError: if there is no such file, or it is something else.
    """
    from flax import traverse_util

    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        meta = json.loads(str(arrays.pop("meta")))
    except FileNotFoundError:
        raise UserError(f"no file {path}: make it with python -m experiments.classify DATA --out {path}") from None
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is no classifier that experiments.classify wrote: {error}") from error
    return Classifier(traverse_util.unflatten_dict({tuple(name.split("/")): a for name, a in arrays.items()}), meta)


def digest(params: Any) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of all parameters, in the order of their names."""
    from flax import traverse_util

    total = hashlib.sha256()
    for name, leaf in sorted(traverse_util.flatten_dict(params).items()):
        total.update(f"{name}{leaf.dtype}{leaf.shape}".encode() + np.ascontiguousarray(leaf).tobytes())
    return total.hexdigest()[:12]


def of_classifier(path: str | Path, dataset: Dataset) -> Space:
    """The last hidden layer of a classifier that was trained on the same kind of data.

    Args:
        path: file of `write_classifier`.
        dataset: the data that is evaluated.

    Raises:
        UserError: if the file cannot be read, or was made from data of another shape or other levels.
    """
    params, meta = read_classifier(path)
    _check_fits(path, meta, dataset)
    apply = network(meta, params)

    def features(x: np.ndarray) -> np.ndarray:
        parts = [apply(_scaled(dataset, x[start : start + _BATCH]))[1] for start in range(0, len(x), _BATCH)]
        return np.concatenate([np.asarray(part) for part in parts])

    trained = f"{meta['steps']} steps, seed {meta['seed']}, test accuracy {meta['test_accuracy']:.2%}"
    how = f"features are the last {meta['num_features']} hidden units of a small convolutional classifier of "
    return Space(features, f"{meta['data']}-classifier", f"{how}{meta['data']} ({trained}; weights {digest(params)})")


def network(meta: dict[str, Any], params: Any) -> Callable[[Any], Any]:
    """The compiled classifier: scaled images to logits and features."""
    import jax

    from experiments import devices
    from jaxgen.nets import pure
    from jaxgen.nets.classifier import ConvClassifier

    net = ConvClassifier(meta["num_classes"], meta["num_features"])
    return jax.jit(lambda x: pure.apply(net, params, x), compiler_options=devices.compiler_options())


def _check_fits(path: str | Path, meta: dict[str, Any], dataset: Dataset) -> None:
    x, num_levels = dataset.seen(dataset.train.x[:1])
    for name, found in (("images of shape", list(x.shape[1:])), ("levels:", num_levels)):
        expected = meta["shape"] if name.startswith("images") else meta["num_levels"]
        if found != expected:
            raise UserError(f"{path} was trained on {meta['data']}, {name} {expected}, and {dataset.name} has {found}")
