import io
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib import image

from experiments import grids


def pixels(png):
    """Decoded by matplotlib, in 0..255."""
    return np.rint(255 * image.imread(io.BytesIO(png))[..., :3]).astype(int)


def test_a_grid_holds_every_image_in_rows_unchanged():
    x = np.random.default_rng(0).integers(0, 17, (7, 3, 4, 1))
    grid = grids.image_grid(x, num_levels=17, columns=3, gap=2, scale=2)
    assert grid.shape == (2 * (3 * (3 + 2) + 2), 2 * (3 * (4 + 2) + 2), 3)
    for index in range(7):
        top, left = 2 * (2 + 5 * (index // 3)), 2 * (2 + 6 * (index % 3))
        tile = grid[top : top + 6 : 2, left : left + 8 : 2]
        np.testing.assert_array_equal(tile, np.rint(x[index] * 255 / 16).repeat(3, -1))


def test_colour_images_survive_png():
    x = np.random.default_rng(1).integers(0, 256, (4, 5, 5, 3))
    decoded = pixels(grids.picture(x, num_levels=256))
    scale = decoded.shape[0] // (2 * 6 + 1)
    np.testing.assert_array_equal(decoded[::scale, ::scale][1:6, 1:6], x[0])


@pytest.mark.parametrize("num", [50, 6000])
def test_points_in_the_plane_lie_where_they_should(num):
    """All points at the right: nothing is drawn in the left half."""
    x = np.random.default_rng(2).normal((0.5, 0.0), 0.05, (num, 2))
    decoded = pixels(grids.picture(x, num_levels=0, limits=(-1, 1, -1, 1)))
    background = decoded[5, 5]
    columns = np.nonzero((decoded != background).any((0, 2)))[0]
    assert decoded.shape[1] * 0.6 < columns.min()
    assert columns.max() < decoded.shape[1] * 0.9


def test_what_cannot_be_drawn_is_refused():
    assert not grids.can_be_drawn(np.zeros((3, 10)))
    with pytest.raises(ValueError, match=r"got \[3, 10\]"):
        grids.picture(np.zeros((3, 10)), num_levels=2)


def test_curves_are_wellformed_and_take_the_colours_of_the_page():
    curves = {"a": ([1, 2, 3], [3.0, float("inf"), 1.0]), "b": ([1, 3], [2.0, 2.5])}
    svg = grids.curves_svg(
        curves, colours={"a": "var(--c0)", "b": "var(--c1)"}, dashed=frozenset({"b"}), title="<loss>"
    )
    text = "".join(ElementTree.fromstring(svg).itertext())
    assert "<loss>" in text
    assert "step" in text
    assert "stroke: var(--c0)" in svg
    assert "stroke: var(--c1)" in svg
    assert "#1234" not in svg
    assert "#1235" not in svg
