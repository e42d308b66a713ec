"""Pairs of sentences: Multi30k, English captions of photographs and their German translations, as tokens.

One byte-pair vocabulary is trained on both sides of the training part whenever the data set is loaded (2 s, and 3 s to
split the sentences by it); token 0 ends a text and fills what is left of its row, in a source as in a target. Bytes
are the smallest tokens, so that any text can be read and every text is written as it was.

Sources: Multi30K: Multilingual English-German Image Descriptions, https://arxiv.org/abs/1605.00459; the files of
https://github.com/multi30k/dataset, data/task1/raw; Neural Machine Translation of Rare Words with Subword Units,
https://arxiv.org/abs/1508.07909.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from experiments.data.folder import File, read_gz
from experiments.data.records import Buckets, Dataset, Split, Texts
from experiments.errors import UserError

__all__ = ["DIRECTIONS", "END", "LENGTH", "Pairs", "multi30k", "pairs", "read_sources", "vocabulary", "write"]

DIRECTIONS = {"multi30k_de_en": ("de", "en"), "multi30k_en_de": ("en", "de")}
"""Names, and the languages of source and target."""

END, LENGTH, VOCABULARY, WIDTHS = 0, 40, 4000, (16, 24, 40)
"""The token that ends a text; tokens of a source, and of a target with its end; size of the vocabulary, at most; and
what training batches of shorter pairs are cut to."""

_PARTS = {"train": "train", "valid": "val", "test": "test_2016_flickr"}


class Pairs(NamedTuple):
    """The sentences of a part as they were written.

    Attributes:
        sources: sentences to translate.
        targets: their translations, in the same order.
    """

    sources: list[str]
    targets: list[str]


def _tokenizers() -> Any:
    """The library of that name.

    Raises:
        UserError: if it is not installed.
    """
    try:
        import tokenizers
    except ImportError as error:
        raise UserError(f"texts of tokens need the package tokenizers ({error}): pip install -e '.[text]'") from error
    return tokenizers


def vocabulary(sentences: Sequence[str]) -> Any:
    """Trains a byte-pair vocabulary of at most 4000 tokens, the end among them; the same sentences give the same one.

    Raises:
        UserError: if the library is missing.
    """
    tokenizers = _tokenizers()
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY - 1,
        show_progress=False,
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
    )
    made.train_from_iterator(sentences, trainer)
    return made


def _split(made: Any, sentences: Sequence[str], what: str) -> list[list[int]]:
    """The tokens of every sentence, from 1.

    Raises:
        UserError: if a sentence is empty.
    """
    for number, sentence in enumerate(sentences, start=1):
        if not sentence.strip():
            raise UserError(f"{what}: sentence {number} of {len(sentences)} is empty")
    return [[token + 1 for token in encoding.ids] for encoding in made.encode_batch(list(sentences))]


def _rows(tokens: Sequence[Sequence[int]]) -> np.ndarray:
    """Rows of `LENGTH` tokens, cut off or filled with ends."""
    rows = np.full((len(tokens), LENGTH), END, np.int32)
    for row, found in zip(rows, tokens, strict=True):
        row[: len(found)] = found[:LENGTH]
    return rows


def read_sources(made: Any, sentences: Sequence[str]) -> np.ndarray:
    """Sentences to translate as tokens `[n, LENGTH]`.

    Raises:
        UserError: if one is empty or of more tokens than a source has.
    """
    tokens = _split(made, sentences, "sources")
    for sentence, found in zip(sentences, tokens, strict=True):
        if len(found) > LENGTH:
            raise UserError(f"a source has at most {LENGTH} tokens, got {len(found)} for {sentence[:60]!r}")
    return _rows(tokens)


def write(made: Any, x: np.ndarray) -> list[str]:
    """Tokens `[n, t]` as sentences, each up to its first end.

    Raises:
        UserError: if there is a token that the vocabulary does not have.
    """
    most = made.get_vocab_size()
    if x.size and not 0 <= x.min() <= x.max() <= most:
        wrong = x.min() if x.min() < 0 else x.max()
        raise UserError(f"tokens must be from 0 to {most}, got {wrong}")
    texts = [row[: np.argmax(row == END)] if (row == END).any() else row for row in x]
    return [text.strip() for text in made.decode_batch([(text - 1).tolist() for text in texts])]


def _read(name: str) -> dict[str, tuple[File, File]]:
    """The files of source and target of each part."""
    return {
        part: tuple(read_gz(name, f"multi30k/{stem}.{language}.gz") for language in DIRECTIONS[name])  # type: ignore[misc]
        for part, stem in _PARTS.items()
    }


def _sentences(file: File) -> list[str]:
    try:
        return file.content.decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{file.path} is damaged: {error}") from error


def pairs(name: str) -> dict[str, Pairs]:
    """The sentences of all parts, by the names of the fields of `Dataset`: nothing is cut off.

    Raises:
        UserError: if a file is missing or damaged, or two do not hold as many sentences.
    """
    return {part: _pairs(*files) for part, files in _read(name).items()}


def _pairs(source: File, target: File) -> Pairs:
    found = Pairs(_sentences(source), _sentences(target))
    if len(found.sources) != len(found.targets):
        numbers = f"{len(found.sources)} and {len(found.targets)}"
        raise UserError(f"{source.path} and {target.path} hold {numbers} sentences: expected as many")
    return found


@lru_cache(maxsize=2)
def _shared_vocabulary(sentences: tuple[str, ...]) -> Any:
    return vocabulary(sentences)


def _tokens(made: Any, found: Pairs, what: str) -> tuple[Split, int]:
    """Sources and targets as tokens, and how many pairs were cut off."""
    sources, targets = (_split(made, side, what) for side in found)
    cut = sum(max(len(s), len(t) + 1) > LENGTH for s, t in zip(sources, targets, strict=True))
    return Split(_rows(targets), _rows(sources)), cut


def _lengths(split: Split) -> np.ndarray:
    """The tokens of each target with its end, or of its source if there are more."""
    assert split.cond is not None
    targets = np.minimum((split.x != END).sum(1) + 1, LENGTH)
    return np.maximum(targets, (split.cond != END).sum(1))


def multi30k(name: str) -> Dataset:
    """Loads `multi30k_de_en` or `multi30k_en_de`: `x` are the targets, `cond` the sources, both `int32 [n, LENGTH]`.

    Raises:
        UserError: if a file or the library is missing, or a file is damaged.
    """
    _tokenizers()
    files = _read(name)
    found = {part: _pairs(*both) for part, both in files.items()}
    source, target = DIRECTIONS[name]
    english_first = sorted(zip(DIRECTIONS[name], found["train"], strict=True), reverse=True)
    made = _shared_vocabulary(tuple(sentence for _, side in english_first for sentence in side))
    tokens = {part: _tokens(made, found[part], f"data set {name}, {part} part") for part in _PARTS}
    num_levels = made.get_vocab_size() + 1
    stamps = ", ".join(file.stamp for both in files.values() for file in both)
    train, valid, test = (split for split, _ in tokens.values())
    return Dataset(
        name,
        train,
        valid,
        test,
        num_levels=num_levels,
        num_classes=num_levels,
        protocol=f"Multi30k, {source} to {target}; {num_levels} tokens, the end and bytes and pairs of both sides of "
        f"the training part (sha256 {hashlib.sha256(made.to_str().encode()).hexdigest()[:12]}); sources and targets "
        f"of {LENGTH} tokens: of {', '.join(str(len(split.x)) for split, _ in tokens.values())} pairs of train, val "
        f"and test_2016_flickr, {', '.join(str(cut) for _, cut in tokens.values())} are cut off; {stamps}",
        texts=Texts(partial(write, made), partial(write, made), partial(read_sources, made)),
        buckets=Buckets(_lengths(tokens["train"][0]), WIDTHS),
    )
