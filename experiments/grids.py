"""Pictures: grids of images, densities of points in the plane, and curves.

Everything is drawn without a display and returned as bytes or text, so that files and the report share it.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Curve",
    "can_be_drawn",
    "curves_svg",
    "image_grid",
    "num_columns",
    "picture",
    "plane_limits",
    "save_picture",
]

Curve = tuple[Sequence[float], Sequence[float]]
"""Abscissae (steps) and ordinates."""

Limits = tuple[float, float, float, float]
"""Left, right, bottom and top of a part of the plane."""

_MIN_SIDE = 1200
"""Grids are enlarged by a whole factor until they are about this many pixels wide, to stay sharp on a fine screen."""


_GAP = 72
"""Grey level of the gaps."""


def num_columns(num: int) -> int:
    """Columns of a nearly square grid of `num` pictures."""
    return max(1, int(np.ceil(np.sqrt(num))))


def image_grid(
    x: ArrayLike, *, num_levels: int, columns: int | None = None, gap: int = 1, scale: int | None = None
) -> NDArray[np.uint8]:
    """Lays images out in rows.

    Args:
        x: images `[n, height, width, channels]` with values 0 .. num_levels - 1; 1 or 3 channels.
        num_levels: number of values of a pixel.
        columns: images per row; default: a nearly square grid.
        gap: dark grey pixels between images, before enlarging.
        scale: whole factor of enlargement; default: until the grid is about 1200 pixels wide.

    Returns:
        `uint8 [height, width, 3]`.

    Raises:
        ValueError: if `x` is not a batch of images.
    """
    images = np.asarray(x, np.float32)
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(f"images must be [n, height, width, 1 or 3], got {list(images.shape)}")
    n, height, width, _ = images.shape
    columns = columns or num_columns(n)
    rows = -(-n // columns)
    pixels = np.clip(np.rint(images * (255 / max(num_levels - 1, 1))), 0, 255)
    canvas = np.full((rows, columns, height + gap, width + gap, 3), _GAP, np.uint8)
    canvas.reshape(rows * columns, height + gap, width + gap, 3)[:n, :height, :width] = pixels
    grid = canvas.transpose(0, 2, 1, 3, 4).reshape(rows * (height + gap), columns * (width + gap), 3)
    grid = np.pad(grid, ((gap, 0), (gap, 0), (0, 0)), constant_values=_GAP)
    factor = scale or max(1, round(_MIN_SIDE / grid.shape[1]))
    return grid.repeat(factor, 0).repeat(factor, 1)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    from matplotlib import image

    buffer = io.BytesIO()
    image.imsave(buffer, pixels, format="png")
    return buffer.getvalue()


def _plane(x: NDArray[np.float32], limits: Limits | None) -> bytes:
    """A density of points in the plane: a histogram where there are many, dots where there are few."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 6), dpi=200)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    left, right, bottom, top = limits or plane_limits(x) or (0, 1, 0, 1)
    if len(x) >= 5000:
        axes.hist2d(x[:, 0], x[:, 1], bins=160, range=((left, right), (bottom, top)), cmap="magma")
    else:
        axes.scatter(x[:, 0], x[:, 1], s=max(6, 12000 / len(x)), alpha=0.7, color="#3b6fb6", linewidths=0)
    axes.set(xlim=(left, right), ylim=(bottom, top))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def can_be_drawn(x: ArrayLike) -> bool:
    """Whether `picture` knows how to draw this: images or points in the plane."""
    shape = np.shape(x)
    return (len(shape) == 4 and shape[-1] in (1, 3)) or (len(shape) == 2 and shape[1] == 2)


def plane_limits(x: ArrayLike) -> Limits | None:
    """The part of the plane that shows data `[n, 2]` with a margin; `None` for anything else."""
    x = np.asarray(x)
    if x.ndim != 2 or x.shape[1] != 2:
        return None
    (left, bottom), (right, top) = x.min(0), x.max(0)
    margin = 0.05 * max(right - left, top - bottom)
    return float(left - margin), float(right + margin), float(bottom - margin), float(top + margin)


def picture(
    x: ArrayLike,
    *,
    num_levels: int | None,
    columns: int | None = None,
    limits: Limits | None = None,
) -> bytes:
    """Draws examples of any kind that can be seen, as a PNG.

    Args:
        x: images `[n, height, width, channels]` or points `[n, 2]`.
        num_levels: number of values of a pixel; not used for points.
        columns: images per row.
        limits: left, right, bottom and top of the plane; default: of the points.

    Returns:
        The PNG.

    Raises:
        ValueError: if `x` is neither.
    """
    x = np.asarray(x)
    if x.ndim == 2 and x.shape[1] == 2:
        return _plane(x.astype(np.float32), limits)
    return _png(image_grid(x, num_levels=num_levels or 256, columns=columns))


def save_picture(
    path: Path,
    x: ArrayLike,
    *,
    num_levels: int | None,
    columns: int | None = None,
    limits: Limits | None = None,
) -> None:
    """Writes `picture(x)` to a file."""
    path.write_bytes(picture(x, num_levels=num_levels, columns=columns, limits=limits))


_INK, _FAINT = "#123450", "#123451"
"""Stand-ins that the page replaces by its own colours, in light and in dark."""


def curves_svg(
    curves: Mapping[str, Curve],
    *,
    colours: Mapping[str, str],
    dashed: frozenset[str] = frozenset(),
    title: str = "",
    size: tuple[float, float] = (6.0, 3.2),
) -> str:
    """Draws curves over steps as an SVG element for use inside a page.

    Args:
        curves: names to curves; values that are not finite are left out.
        colours: names to CSS colours, which may be variables of the page.
        dashed: names of curves drawn as dots joined by dashes (few points).
        title: what the ordinate is.
        size: inches.

    Returns:
        The element `<svg>`; its text and axes take the page's variables `--ink` and `--faint`.
    """
    import matplotlib
    from matplotlib.figure import Figure

    stand_ins = {name: f"#1235{index:02x}" for index, name in enumerate(curves)}
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title, "font.size": 9}):
        figure = Figure(figsize=size, layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        for name, (steps, values) in curves.items():
            style = {"linestyle": "--", "marker": "o", "markersize": 3.5} if name in dashed else {"linestyle": "-"}
            axes.plot(steps, np.where(np.isfinite(values), values, np.nan), color=stand_ins[name], lw=1.6, **style)
        axes.set_ylim(*_limits([values for _, values in curves.values()]))
        axes.grid(axis="y", color=_FAINT, lw=0.6)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(_FAINT)
        axes.tick_params(colors=_INK, length=0)
        axes.tick_params(axis="x", length=3, color=_FAINT)
        axes.set_title(title, loc="left", color=_INK, fontsize=10)
        axes.set_xlabel("step", color=_INK)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "var(--ink)").replace(_FAINT, "var(--faint)")
    for name, stand_in in stand_ins.items():
        svg = svg.replace(stand_in, colours[name])
    return svg


def _limits(series: Sequence[Sequence[float]]) -> tuple[float | None, float | None]:
    """Room for all but the first wild steps: the last nine tenths of every curve decide."""
    tails = [np.asarray(values, float)[len(values) // 10 :] for values in series]
    values = np.concatenate(tails) if tails else np.zeros(0)
    values = values[np.isfinite(values)]
    if values.size < 2 or np.ptp(values) == 0:
        return None, None
    margin = 0.05 * np.ptp(values)
    return float(values.min() - margin), float(values.max() + margin)
