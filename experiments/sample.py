"""Draws samples from a trained run: a PNG and a .npz in DIR/samples, and a folder of wav files where they are sounds.

python -m experiments.sample DIR --num 64 [--seed 0] [--class 3] [--checkpoint best] [--from-data]
python -m experiments.sample DIR --num 64 --complete 14     # goes on from the upper halves of test images
python -m experiments.sample DIR --num 8 --prompt "ROMEO:"   # goes on from a text, by a model of characters
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import cli, grids, runs, texts, trained
from experiments.data import Dataset, Split
from experiments.errors import UserError
from experiments.trained import Trained

__all__ = ["main"]

PROG = "python -m experiments.sample"

_COMPLETIONS = 4
"""Completions of each test example."""


def parser() -> cli.Parser:
    """The flags."""
    parser = cli.Parser(PROG, description="Draws samples from a trained run: a PNG and a .npz in DIR/samples.")
    parser.add_argument("directory", metavar="DIR", help="run directory that experiments.train made")
    parser.add_argument("--num", type=int, default=64, help="number of samples")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise; the same seed gives the same samples")
    parser.add_argument(
        "--class",
        dest="label",
        type=int,
        default=None,
        metavar="LABEL",
        help="label of all samples, for a model trained with --conditional; default: 0, 1, 2, ... in every row",
    )
    parser.add_argument(
        "--source",
        nargs="+",
        metavar="TEXT",
        help="texts to translate, for a model of translations; default: the first ones of the test part",
    )
    parser.add_argument("--checkpoint", default="newest", metavar="WHICH", help=trained.CHECKPOINT_HELP)
    parser.add_argument("--set", nargs="+", default=[], metavar="FIELD=VALUE", help=trained.SET_HELP)
    parser.add_argument("--parallel", choices=("jit", "pmap", "mesh"), help=trained.PARALLEL_HELP)
    parser.add_argument(
        "--from-data",
        action="store_true",
        help="start chains at test examples (Boltzmann machines): each picture is followed by where its chain ended",
    )
    parser.add_argument(
        "--complete",
        type=int,
        metavar="ROWS",
        help="keep the first rows of test examples (autoregressive models; for texts, the first characters) and draw "
        f"the rest, for conditional models given their labels: each is followed by {_COMPLETIONS} completions",
    )
    parser.add_argument("--prompt", metavar="TEXT", help="text that all samples begin with, for a model of characters")
    return parser


def labels(model: Trained, num: int, label: int | None) -> np.ndarray | None:
    """Labels of the samples, or `None` for a model that takes none.

    Raises:
        UserError: if a label is asked for that the model does not know.
    """
    classes = model.run.dataset.num_classes
    if not trained.conditional(model.run):
        if label is not None:
            raise UserError(f"--class {label}: this run is not conditional (train it with --conditional)")
        return None
    if label is None:
        return np.arange(num, dtype=np.int32) % classes
    if not 0 <= label < classes:
        raise UserError(f"--class must be from 0 to {classes - 1}, got {label}")
    return np.full(num, label, np.int32)


def _told(dataset: Dataset, cond: np.ndarray | None) -> np.ndarray | None:
    """What samples of these labels are conditioned on."""
    if cond is None or dataset.sounds is None or dataset.sounds.conditions is None:
        return cond
    return dataset.sounds.conditions(cond)


def _examples(model: Trained, num: int, seed: int, flag: str) -> Split:
    """Test examples, with their labels where the model is conditional.

    Raises:
        UserError: if there are fewer.
    """
    test = model.run.dataset.test
    if num > len(test.x):
        raise UserError(f"--num must be at most the {len(test.x)} test examples with {flag}, got {num}")
    rows = np.random.default_rng(seed).permutation(len(test.x))[:num]
    cond = test.cond[rows] if test.cond is not None and trained.conditional(model.run) else None
    return Split(test.x[rows], cond)


def _chains(model: Trained, num: int, seed: int) -> dict[str, np.ndarray]:
    """Test examples, and where the chains that start there end."""
    from experiments import devices

    sample_from = model.run.experiment.sample_from
    if sample_from is None:
        raise UserError("--from-data: this model has no chains that could start at data")
    start = _examples(model, num, seed, "--from-data").x
    step = lambda params, key, x, cond: sample_from(params, key, x)  # noqa: E731
    options = devices.compiler_options()
    return {"x": trained.over_batches(step, model.params, Split(start), seed=seed, options=options), "start": start}


def _completing(model: Trained, rows: int, flag: str) -> Callable[..., Any]:
    """What completes examples of which so many rows are given.

    Raises:
        UserError: if the model completes nothing, or nothing or all is given.
    """
    complete, length = model.run.experiment.complete, model.run.dataset.test.x.shape[1]
    if complete is None:
        raise UserError(f"{flag}: {model.run.config_name} cannot complete examples of which a part is given")
    if not 0 < rows < length:
        raise UserError(f"{flag} must give 1 to {length - 1} of {length} rows or characters, got {rows}")
    return complete


def _completed(complete: Callable[..., Any], model: Trained, given: Split, times: int, seed: int) -> np.ndarray:
    """That many completions of each example, one after the other."""
    from experiments import devices

    x, cond = given.x.repeat(times, axis=0), None if given.cond is None else given.cond.repeat(times, axis=0)
    return trained.over_batches(complete, model.params, Split(x, cond), seed=seed, options=devices.compiler_options())


def _completions(model: Trained, num: int, seed: int, rows: int) -> dict[str, np.ndarray]:
    """Test examples, and completions `[num, _COMPLETIONS, ...]` of the first rows of each."""
    complete = _completing(model, rows, "--complete")
    start, cond = _examples(model, num, seed, "--complete")
    x = _completed(complete, model, Split(start[:, :rows], cond), _COMPLETIONS, seed)
    arrays = {"x": x.reshape(num, _COMPLETIONS, *x.shape[1:]), "start": start}
    return arrays if cond is None else {**arrays, "labels": cond}


def _prompted(model: Trained, num: int, seed: int, string: str) -> dict[str, np.ndarray]:
    """Texts that begin with a given one."""
    given = texts.prompt(model.run, string)
    complete = _completing(model, given.shape[1], "--prompt")
    return {"x": _completed(complete, model, Split(given), num, seed)}


def _drawn(model: Trained, args: argparse.Namespace, cond: np.ndarray | None) -> dict[str, np.ndarray]:
    """Samples of these labels."""
    from experiments import devices

    placement, told = devices.placement(args.parallel), _told(model.run.dataset, cond)
    x = trained.draw(placement, model.run.experiment.model, model.params, args.num, seed=args.seed, labels=told)
    return {"x": x} if cond is None else {"x": x, "labels": cond}


def _shown(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Samples in the order in which they are shown: each example followed by what began with it."""
    x = arrays["x"]
    if "start" not in arrays:
        return x
    start = arrays["start"]
    groups = [start[:, None], x.reshape(len(start), -1, *start.shape[1:])]
    return np.concatenate(groups, axis=1).reshape(-1, *start.shape[1:])


def _write(
    directory: Path, stem: str, arrays: dict[str, np.ndarray], columns: int | None, dataset: Dataset, page: str = ""
) -> None:
    directory.mkdir(exist_ok=True)
    np.savez_compressed(directory / f"{stem}.npz", **arrays)  # type: ignore[arg-type]
    print(directory / f"{stem}.npz")
    x = _shown(arrays)
    if dataset.sounds is not None:
        dataset.sounds.save(directory / stem, x, arrays.get("labels"))
        print(directory / stem)
    x, num_levels = dataset.seen(x)
    if grids.can_be_drawn(x):
        limits = grids.plane_limits(dataset.test.x)
        path = directory / f"{stem}.png"
        grids.save_picture(path, x, num_levels=num_levels, columns=columns, limits=limits)
        print(directory / f"{stem}.png")
    if page:
        runs.write_text(directory / f"{stem}.txt", page)
        print(directory / f"{stem}.txt")


def _translate(args: argparse.Namespace, model: Trained, way: str | None) -> int:
    """Translates own texts, which are printed, or those of the test part."""
    from experiments import devices

    if way not in (None, "--source"):
        raise UserError(f"{way} is not for a model of translations, which has --source")
    sources = texts.sources(model.run, args.num, args.source)
    placement, num = devices.placement(args.parallel), len(sources.cond)
    x = trained.draw(placement, model.run.experiment.model, model.params, num, seed=args.seed, labels=sources.cond)
    stem = "_".join([f"step{model.step:06d}", f"seed{args.seed}", f"num{num}", *args.set])
    stem += "_source" if args.source else ""
    page = texts.page(model.run.dataset, x, sources)
    print(page if args.source else "", end="")
    _write(model.run.directory / "samples", stem, {"x": x, "source": sources.cond}, None, model.run.dataset, page)
    return 0


def _way(args: argparse.Namespace) -> str | None:
    """The flag that says how samples are drawn, or `None`.

    Raises:
        UserError: if there are two.
    """
    given = {"--class": args.label, "--source": args.source, "--complete": args.complete, "--prompt": args.prompt}
    asked = [name for name, value in given.items() if value is not None] + ["--from-data"] * args.from_data
    if len(asked) > 1:
        raise UserError(f"{' and '.join(asked)} exclude one another: expected one of them")
    return asked[0] if asked else None


def _draw(args: argparse.Namespace, model: Trained, way: str | None) -> tuple[dict[str, np.ndarray], str, int | None]:
    """Arrays, what they are called, and pictures in a row."""
    num, seed, side_by_side = args.num, args.seed, lambda size: size * grids.num_columns(-(-args.num // size))
    if way == "--from-data":
        return _chains(model, num, seed), "_from-data", side_by_side(2)
    if way == "--complete":
        arrays = _completions(model, num, seed, args.complete)
        return arrays, f"_complete{args.complete}", side_by_side(1 + _COMPLETIONS)
    if way == "--prompt":
        return _prompted(model, num, seed, args.prompt), "_prompt", None
    cond = labels(model, num, args.label)
    if way == "--class":
        return _drawn(model, args, cond), f"_class{args.label}", None
    return _drawn(model, args, cond), "", None if cond is None else model.run.dataset.columns


def main(argv: Sequence[str]) -> int:
    """Samples, and prints the names of the files.

    Raises:
        UserError: for bad input.
    """
    args = parser().parse(argv)
    if args.num < 1 or args.seed < 0:
        raise UserError(f"--num must be at least 1 and --seed at least 0, got {args.num} and {args.seed}")
    way = _way(args)
    from experiments import devices

    devices.setup()
    model = trained.open_trained(args.directory, args.checkpoint, args.set)
    if texts.are_translated(model.run) or way == "--source":
        return _translate(args, model, way)
    arrays, more, columns = _draw(args, model, way)
    dataset = model.run.dataset
    stem = "_".join([f"step{model.step:06d}", f"seed{args.seed}", f"num{args.num}", *trained.stems(args.set)]) + more
    page = "" if dataset.texts is None else texts.plain_page(dataset, _shown(arrays))
    print(page if way == "--prompt" else "", end="")
    _write(model.run.directory / "samples", stem, arrays, columns, dataset, page)
    return 0


if __name__ == "__main__":
    cli.run(main, PROG)
