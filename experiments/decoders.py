"""How texts are chosen from a trained model, by the names that flags take."""

from collections.abc import Callable
from typing import Any

from experiments.errors import UserError
from jaxgen.samplers import decode

__all__ = ["DECODERS", "chooser", "said"]

DECODERS = ("beam", "greedy", "draw")
"""The most probable of a few texts, the most probable token at every position, or a draw of every token."""


def chooser(decoder: str, *, temperature: float, top_k: int, top_p: float) -> Callable[..., Any]:
    """`(key, logits) -> token` for a decoder that goes from token to token; that of draws for `beam`, which has none.

    Args:
        decoder: one of `DECODERS`.
        temperature: by which logits are divided before a draw.
        top_k: the number of most probable tokens that are drawn from; 0 for all.
        top_p: the probability of the set of most probable tokens that are drawn from; 1 for all.

    Raises:
        UserError: if there is no such decoder, or a number is out of range.
    """
    if decoder not in DECODERS:
        raise UserError(f"--decoder must be one of {', '.join(DECODERS)}, got {decoder!r}")
    if top_k < 0:
        raise UserError(f"--top-k must be at least 1, or 0 for all tokens, got {top_k}")
    filters = [decode.temperature(temperature)]
    filters += [decode.top_k(top_k)] if top_k else []
    filters += [decode.top_p(top_p)] if top_p != 1 else []
    return decode.greedy if decoder == "greedy" else decode.draw_from(*filters)


def said(
    decoder: str, *, temperature: float, top_k: int, top_p: float, num_beams: int = 0, length_power: float = 0.0
) -> str:
    """What stands in a protocol of a decoder and of those of its numbers that matter."""
    if decoder == "beam":
        return f"beam search, {num_beams} beams, ln p / length^{length_power:g}"
    if decoder == "greedy":
        return "greedy"
    kept = [f"temperature {temperature:g}"]
    kept += [f"the {top_k} most probable"] if top_k else []
    kept += [f"the most probable {top_p:.4g} of probability"] if top_p != 1 else []
    return f"drawn, {', '.join(kept)}"
