"""Data sets in memory, by name, and batches as a pure function of (seed, step).

    dataset = load("digits")
    batch(dataset, seed=0, step=17, batch_size=128)     # a jaxgen.types.Batch of numpy arrays

Names that end in `_binary` are binarised dynamically, in `_threshold` by pixel > 0.5 (see `experiments.data.binary`).
Files are looked for in the folder that the environment variable JAXGEN_DATA names. Nothing heavy is imported and no
device started before a data set is loaded.
"""

import difflib
from collections.abc import Callable
from functools import partial

from experiments.data import audio, binary, cifar, digits, legal, mnist, prepared, tables, text, toy, translation
from experiments.data.feed import batch, eval_batches
from experiments.data.records import Dataset, Split
from experiments.errors import UserError

__all__ = ["Dataset", "Split", "batch", "describe", "eval_batches", "load", "names"]

_GREY: dict[str, tuple[str, Callable[[], Dataset]]] = {
    "digits": ("8x8 handwritten digits inside scikit-learn, levels 0..16, 10 classes; needs no files", digits.grey),
    "mnist": ("28x28 handwritten digits, levels 0..255, 10 classes", partial(mnist.grey, "mnist")),
    "fashion_mnist": ("28x28 pictures of clothes, levels 0..255, 10 classes", partial(mnist.grey, "fashion_mnist")),
}
_BINARY: dict[str, tuple[str, Callable[[Dataset], Dataset]]] = {
    "binary": ("binarised anew at every visit", binary.dynamic),
    "threshold": ("binarised by pixel > 0.5", binary.threshold),
}
_SOUNDS: dict[str, tuple[str, dict[str, bool]]] = {
    "fsdd": ("spoken digits, a second at 8 kHz, 256 levels by the mu-law, 6 speakers times 10 digits", {}),
    "fsdd_16bit": ("fsdd, 16-bit levels", {"linear": True}),
    "fsdd_speakers": ("fsdd, 10 digits, tested on two speakers of six", {"held_out_speakers": True}),
    "fsdd_text": ("fsdd, given the speaker and a text in time", {"text": True}),
    "fsdd_16bit_text": ("fsdd_text, 16-bit levels", {"linear": True, "text": True}),
    "fsdd_spectrograms": ("64x64 spectrograms of fsdd, levels 0..255, 10 classes", {"pictures": True}),
}


def _viewed(read: Callable[[], Dataset], view: Callable[[Dataset], Dataset]) -> Dataset:
    return view(read())


def _sources() -> dict[str, tuple[str, Callable[[], Dataset]]]:
    """Every name with its description and its loader."""
    sources = dict(_GREY)
    for name, (_, read) in _GREY.items():
        for ending, (how, view) in _BINARY.items():
            sources[f"{name}_{ending}"] = f"{name}, {how}", partial(_viewed, read, view)
    sources["cifar10"] = "32x32 photographs in colour, levels 0..255, 10 classes", cifar.colour
    sources["mnist_static"] = "MNIST under one fixed stochastic binarisation, without labels", mnist.static
    for name, context in (("shakespeare", 64), ("shakespeare_256", 256)):
        what = f"windows of {context + 1} characters of tiny Shakespeare, levels 0..64"
        sources[name] = what, partial(text.shakespeare, name, context)
    for name, (source, target) in translation.DIRECTIONS.items():
        what = f"Multi30k, sentences to translate from {source} to {target} as byte-pair tokens"
        sources[name] = what, partial(translation.multi30k, name)
    for name, (what, options) in _SOUNDS.items():
        sources[name] = what, partial(audio.digits, name, **options)
    for name, table in tables.REALS.items():
        sources[f"uci_{name}"] = f"{table.what}, standardised reals", partial(tables.reals, name)
    for name, width in tables.BITS.items():
        sources[f"debd_{name}"] = f"{width} bits of the density estimation benchmark", partial(tables.bits, name)
    for name in toy.DENSITIES:
        sources[f"toy_{name}"] = f"points on the plane from the density {name}", partial(toy.dataset, name)
    return sources


def names() -> tuple[str, ...]:
    """Names that `load` knows, besides those that begin with `tfds:`."""
    return tuple(_sources())


def describe() -> dict[str, str]:
    """One line for each name, for the help on the command line."""
    known = {name: text for name, (text, _) in _sources().items()}
    return {**known, "tfds:NAME": "labelled images prepared by, or downloaded through, tensorflow-datasets"}


def load(name: str) -> Dataset:
    """Loads a data set into memory.

    Args:
        name: one of `names()`, or `tfds:NAME` for a data set of tensorflow-datasets (see `experiments.data.prepared`).

    Returns:
        The `Dataset`.

    Raises:
        UserError: if the name is unknown, a file or package that it needs is missing or damaged, or the data holds a
            NaN, a level or a label out of range.
    """
    if name.startswith(prepared.PREFIX):
        return legal.checked(prepared.load(name))
    sources = _sources()
    if name not in sources:
        close = difflib.get_close_matches(name, sources, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise UserError(f"unknown data set {name!r}{hint}: expected {', '.join(sources)} or {prepared.PREFIX}NAME")
    return legal.checked(sources[name][1]())
