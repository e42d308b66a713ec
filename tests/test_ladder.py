"""The ladder of few-step models: its exact flow against autodiff and closed form, its gaps against known ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import gaps, ladder, mixture
from experiments import train
from experiments.errors import UserError
from jaxgen import paths
from jaxgen.core import Model
from jaxgen.samplers import generate
from jaxgen.samplers.renoise import renoise

KEY = jax.random.key(1)
GAUSSIAN, MIXTURE = mixture.DATA["Gaussian"], mixture.DATA["mixture"]


def test_the_denoiser_is_tweedies():
    """x0 = (x_t + sigma^2 score) / alpha, with the score by autodiff of the density that scipy's formula gives."""
    path, x_t, t = paths.cosine(), jax.random.normal(KEY, (20, 2)), 0.6

    def log_density(x):
        scale = jnp.sqrt(path.alpha(t) ** 2 * MIXTURE.scales**2 + path.sigma(t) ** 2)
        each = jax.scipy.stats.norm.logpdf(x, path.alpha(t) * MIXTURE.means, scale).sum(-1)
        return jax.scipy.special.logsumexp(each, b=MIXTURE.weights)

    score = jax.vmap(jax.grad(log_density))(x_t)
    found = mixture.denoiser(MIXTURE, path)(x_t, t)
    np.testing.assert_allclose(found, paths.SCORE.to_x0(path, x_t, t, score), atol=1e-5)


def test_examples_have_the_moments_of_the_mixture():
    x = mixture.draw(MIXTURE, KEY, 100_000).x
    np.testing.assert_allclose(x.mean(0), MIXTURE.weights @ MIXTURE.means, atol=0.01)
    np.testing.assert_allclose(np.sqrt(x.var(0).mean()), mixture.spread(MIXTURE), rtol=0.01)


def test_the_solved_flow_is_the_closed_form():
    """Of a Gaussian; twice the steps, a quarter of the error."""
    path = paths.karras()
    x_t = path.t_max * jax.random.normal(KEY, (100, 2))
    exact = mixture.end_of_flow(GAUSSIAN, path)(x_t, path.t_max)
    errors = [abs(jax.jit(mixture.solved(GAUSSIAN, path, n))(x_t, path.t_max) - exact).max() for n in (25, 50)]
    assert 3 < errors[0] / errors[1] < 5
    assert errors[1] < 0.01


@pytest.mark.parametrize("renoised", [True, False])
@pytest.mark.parametrize("num", [1, 2])
def test_the_exact_function_has_no_gap(renoised, num):
    """Noise and labels of model and target are the same, in one step and in two."""
    path = paths.cosine()
    end = mixture.end_of_flow(GAUSSIAN, path)

    def build(num_steps):
        def sample(params, key, number):
            return generate.generate(renoise(), end, path, key, (number, 2), paths.karras_grid(path, num_steps))

        decode = lambda params, latent: end(path.sigma(path.t_max) * latent, path.t_max)  # noqa: E731
        return Model(init=None, loss=None, sample=sample, decode=decode)

    trainer = ladder.Trainer(path, build, renoised)
    found = gaps.gap(ladder.drawn(trainer, num)({}, KEY), ladder.target(GAUSSIAN, trainer, KEY, num), 1.0)
    assert found < 1e-6


def test_a_gap_is_the_root_mean_square():
    assert gaps.gap(np.array([[3, 0], [0, 4]], np.uint8), np.zeros((2, 2)), 5.0) == pytest.approx(0.5)


def test_the_energy_distance_of_gaussians_is_the_closed_form():
    """E|N(0, s^2 I)| = s sqrt(pi / 2) in two dimensions; without a difference it is 0 on average."""
    x, y, z = (jax.random.normal(jax.random.key(i), (2000, 2)) for i in range(3))
    exact = np.sqrt(np.pi / 2) * (2 * np.sqrt(1 + 9) - np.sqrt(2) - np.sqrt(2) * 3)
    np.testing.assert_allclose(gaps.energy_distance(x, 3 * y, 0.5), exact / 0.5, rtol=0.05)
    assert abs(gaps.energy_distance(x, z, 1.0)) < 3e-3


def test_a_flow_of_its_own_is_its_target():
    """In many steps, and of the parameters that are measured."""
    build = lambda num: Model(init=None, loss=None, sample=None, decode=lambda params, z: params * z / num)  # noqa: E731
    trainer = ladder.Trainer(paths.linear(), build, renoised=False, own_flow=True)
    found = ladder.goal(MIXTURE, trainer, KEY, 1)(3.0)
    np.testing.assert_allclose(found, 3 * ladder.latents(KEY) / mixture.TARGET_STEPS, rtol=1e-6)


def test_a_flow_is_not_measured_against_itself_where_it_stands_still(monkeypatch):
    """Of a mixture, transported pairs learn another flow than the exact: no gap before the first step, one after it."""
    monkeypatch.setattr(ladder, "BATCH", 16)
    trainer = ladder.trainers(MIXTURE, 32)["flow matching, OT"]
    curve = ladder.curve(MIXTURE, trainer, 32)
    assert trainer.own_flow
    assert curve.steps == [30, 31, 32]
    assert 0.01 < min(curve.gaps[1])
    assert ladder.trainers(GAUSSIAN, 32)["flow matching, OT"].own_flow is False


def test_transported_pairs_straighten_the_flow(monkeypatch):
    """Of a Gaussian, whose optimal map is the exact flow; one step of independent pairs goes to E[x]: a gap of 1."""
    monkeypatch.setattr(ladder, "BATCH", 64)
    curves = {
        name: ladder.curve(GAUSSIAN, ladder.trainers(GAUSSIAN, 300)[name], 300)
        for name in ("flow matching", "flow matching, OT")
    }
    assert curves["flow matching"].gaps[1][-1] > 0.6
    assert curves["flow matching, OT"].gaps[1][-1] < 0.25
    assert curves["flow matching, OT"].energies[1] < 0.05 < 0.2 < curves["flow matching"].energies[1]


def test_training_closes_the_gap():
    """Reflow with the exact flow for a teacher: one Euler step of what 100 steps of training make."""
    curve = ladder.curve(GAUSSIAN, ladder.trainers(GAUSSIAN, 100)["reflow, Euler"], 100)
    assert (curve.steps[0], curve.steps[-1]) == (0, 100)
    assert curve.gaps[1][0] > 1
    assert curve.gaps[1][-1] < 0.3


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("ladder") / "diffusion"
    sizes = ["--channels", "4", "--levels", "1", "--batch-size", "8", "--num-evaluations", "8", "--parallel", "jit"]
    flags = ["--steps", "2", "--checkpoint-every", "1", "--sampler", "heun", *sizes]
    assert train.main(["diffusion_digits", "--workdir", str(directory), *flags]) == 0
    return str(directory)


def test_a_run_has_no_gap_to_itself(run):
    """But its earlier checkpoint has one, and so has one of its steps; the table and the figure have them all."""
    found = gaps.of_runs(f"{run}={run}")
    student, one, half = found.values()
    assert student.steps == [1, 2]
    assert student.gaps[8][1] == 0 < student.gaps[8][0]
    assert student.gaps[2][1] == one.gaps[2][0] > half.gaps[4][0] > 0
    lines = gaps.table("digits", found).splitlines()
    assert len(lines) == 5
    assert lines[0].endswith("seconds")
    assert "<svg" in gaps.figure({"digits": found})


def test_a_trainer_has_one_colour_in_all_panels():
    """The second of the first panel, alone in the second, is drawn twice, and the first once."""
    curve = gaps.Curve([0, 1], {1: [1.0, 0.5]})
    drawn = gaps.figure({"one": {"first": curve, "second": curve}, "other": {"second": curve}})
    first, second = (drawn.count(colour) for colour in gaps.COLOURS[:2])
    assert 0 < first < second


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--runs", "a"], "STUDENT=TEACHER"),
        (["--runs", "a=b"], "not a run directory"),
        (["--steps", "3"], "at least 32, got 3"),
        (["--data", "moons"], "moons"),
        (["--trainers", "ema"], "ema"),
    ],
)
def test_mistakes_are_named(argv, message):
    with pytest.raises(UserError, match=message):
        ladder.main(argv)
