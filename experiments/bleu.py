"""BLEU of translations, by sacrebleu, of sentences as they were written.

Source: A Call for Clarity in Reporting BLEU Scores, https://arxiv.org/abs/1804.08771.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

from experiments import trained
from experiments.config import Evaluation
from experiments.data import Dataset, Split, translation
from experiments.errors import UserError

__all__ = ["evaluation", "score"]

_RESAMPLINGS = 1000


def _metric() -> Any:
    """The metric with its defaults.

    Raises:
        UserError: if the library is not installed.
    """
    try:
        from sacrebleu.metrics import BLEU
    except ImportError as error:
        raise UserError(f"BLEU needs the package sacrebleu ({error}): pip install -e '.[text]'") from error
    return BLEU()


def score(translations: Sequence[str], references: Sequence[str]) -> tuple[float, float, str]:
    """BLEU of a corpus, 0 to 100, the half width of its bootstrap interval of 95 %, and sacrebleu's signature."""
    metric = _metric()
    found = metric.corpus_score(list(translations), [list(references)], n_bootstrap=_RESAMPLINGS)
    signature = str(metric.get_signature())
    numbers = json.loads(found.format(is_json=True, signature=signature, width=6))
    return found.score, numbers.get("confidence_var", 0.0), signature


def evaluation(sample: Callable[..., Any], how: str) -> Evaluation:
    """BLEU of translations that `sample` chooses.

    Args:
        sample: `(params, key, num, cond) -> x`.
        how: says how it does, for the protocol.

    Raises:
        UserError: if sacrebleu is not installed.
    """

    def compute(params: Any, key: Any, dataset: Dataset, split: Split) -> tuple[float, float]:
        assert dataset.texts is not None
        part = next(name for name in ("train", "valid", "test") if getattr(dataset, name) is split)
        references = translation.pairs(dataset.name)[part].targets
        import jax

        seed = int(jax.random.key_data(key)[-1])
        translate = lambda params, key, x, cond: sample(params, key, len(x), cond)  # noqa: E731
        value, error, _ = score(
            dataset.texts.write(trained.over_batches(translate, params, split, seed=seed)), references
        )
        return value, error

    *_, signature = score(["a"], ["a"])
    protocol = f"{how}; sacrebleu {signature}, references as they were written, ± the half width of 95 % of resamplings"
    return Evaluation(compute, "", protocol, "higher", of_samples=True)
