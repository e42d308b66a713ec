import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from jaxgen.metrics.precision_recall import precision_recall


def fraction_inside(points, centres, k):
    """(1) by scikit-learn's neighbour search (its k + 1 neighbours include the point itself)."""
    radii = NearestNeighbors(n_neighbors=k + 1).fit(centres).kneighbors(centres)[0][:, -1]
    distances = np.linalg.norm(points[:, None].astype(np.float64) - centres[None], axis=-1)
    return (distances <= radii).any(1).mean()


@pytest.mark.parametrize("k", [1, 3])
def test_equal_to_scikit_learns_neighbours(k):
    rng = np.random.default_rng(0)
    data = rng.normal(size=(150, 6)).astype(np.float32)
    samples = (0.7 * rng.normal(size=(130, 6)) + 0.4).astype(np.float32)
    result = jax.jit(lambda x, y: precision_recall(x, y, k=k))(jnp.asarray(data), jnp.asarray(samples))
    precision, recall = fraction_inside(samples, data, k), fraction_inside(data, samples, k)
    assert 0.1 < recall < precision < 1
    np.testing.assert_allclose(result.precision.value, precision, rtol=1e-6)
    np.testing.assert_allclose(result.recall.value, recall, rtol=1e-6)
    np.testing.assert_allclose(result.recall.error, np.sqrt(recall * (1 - recall) / 149), rtol=1e-4)


def test_a_collapsed_model_is_precise_and_covers_little():
    """Samples crowded into one of two clusters: every one is in the data, half of the data is out of reach."""
    rng = np.random.default_rng(1)
    data = np.concatenate([rng.normal(size=(100, 2)), rng.normal(size=(100, 2)) + 100]).astype(np.float32)
    samples = data[:100] + 1e-4 * rng.normal(size=(100, 2)).astype(np.float32)
    result = precision_recall(jnp.asarray(data), jnp.asarray(samples))
    assert result.precision.value == 1
    assert result.recall.value <= 0.5


def test_k_must_have_a_neighbour():
    with pytest.raises(ValueError, match="below the number of examples, got 3 for 5 and 3"):
        precision_recall(jnp.ones((5, 2)), jnp.ones((3, 2)))
