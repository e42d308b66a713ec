"""Packs a data set of images into array_record files that tensorflow-datasets reads, without TensorFlow.

    python -m experiments.data.pack mnist [--data-dir DIR]

makes `jaxgen_mnist` in DIR (by default TFDS_DATA_DIR, else JAXGEN_DATA/tfds where that is there, else
tensorflow-datasets' own default), in the order of the rows and with the parts of `experiments.data`; afterwards
`--data tfds:jaxgen_mnist` is the same data, bit for bit.
"""

import argparse
import io
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from experiments import data
from experiments.data.prepared import PREFIX, data_dir, import_tfds, one_line
from experiments.data.records import Dataset, Split
from experiments.errors import UserError

__all__ = ["main", "pack"]


def _png(image: np.ndarray) -> io.BytesIO:
    """Encodes `uint8 [height, width, channels]`; tensorflow-datasets' own encoder needs TensorFlow."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG")
    file.seek(0)
    return file


def _examples(split: Split) -> Iterator[tuple[int, dict[str, Any]]]:
    for row, image in enumerate(split.x):
        label = {} if split.cond is None else {"label": int(split.cond[row])}
        yield row, {"image": _png(image), **label}


def _builder(dataset: Dataset, folder: str | None) -> Any:
    """A builder of tensorflow-datasets over arrays in memory."""
    tfds = import_tfds()
    features = {"image": tfds.features.Image(shape=dataset.train.x.shape[1:], encoding_format="png")}
    if dataset.num_classes:
        features["label"] = tfds.features.ClassLabel(num_classes=dataset.num_classes)
    parts = {"train": dataset.train, "validation": dataset.valid, "test": dataset.test}

    class Packed(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg, misc, name-defined]
        """Arrays in memory as a data set."""

        name = f"jaxgen_{dataset.name}"
        VERSION = tfds.core.Version("1.0.0")
        url_infos = None  # nothing is downloaded, so no file of checksums is looked for beside this one

        def _info(self) -> Any:
            metadata = {"num_levels": dataset.num_levels, "protocol": dataset.protocol}
            return tfds.core.DatasetInfo(
                builder=self,
                description=f"The data set {dataset.name} of jaxgen.",
                features=tfds.features.FeaturesDict(features),
                metadata=tfds.core.MetadataDict(metadata),
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Any]]:
            del dl_manager
            return {part: self._generate_examples(split) for part, split in parts.items()}

        def _generate_examples(self, split: Split) -> Iterator[tuple[int, dict[str, Any]]]:
            return _examples(split)

    return Packed(data_dir=folder)


def pack(dataset: Dataset, folder: str | None = None) -> str:
    """Packs a data set of images.

    Args:
        dataset: images, not dynamically binarised.
        folder: where the prepared data sets lie; `None` for tensorflow-datasets' own default.

    Returns:
        The name to load it by, `tfds:jaxgen_NAME`.

    Raises:
        UserError: if it is not of images, is dynamic, is already there, or cannot be written.
    """
    if dataset.num_levels == 0 or dataset.train.x.ndim != 4:
        raise UserError(f"only images can be packed, and {dataset.name} is not of images")
    if dataset.dynamic is not None:
        raise UserError(f"{dataset.name} is drawn anew at every visit: pack the grey images it is drawn from instead")
    with one_line(f"packing {dataset.name} into {folder or 'the default folder'} failed"):
        builder = _builder(dataset, folder)
        if builder.is_prepared():
            raise UserError(f"{builder.name} is already in {builder.data_dir}: delete that folder to pack it again")
        builder.download_and_prepare(file_format="array_record")
    return f"{PREFIX}{builder.name}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.data.pack", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("name", help=f"one of {', '.join(data.names())}")
    parser.add_argument("--data-dir", default=data_dir(), help="folder of prepared data sets (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        name = pack(data.load(options.name), options.data_dir)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"packed; use it by --data {name}" + (f" with TFDS_DATA_DIR={options.data_dir}" if options.data_dir else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
