"""Spoken digits: recordings of one word, as levels with an end, or as pictures of their frequencies.

Source: https://github.com/Jakobovski/free-spoken-digit-dataset, whose takes 0 to 4 are the test part. A recording is
`DIGIT_SPEAKER_TAKE.wav`: 8 kHz, one channel, 16 bits. The labels are 10 * speaker + digit. A text has a symbol for each
hundredth of a second: 1 + 5 * digit + k in part k of the five equal parts of the word, 0 after its end.
"""

import io
import tarfile
import wave
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments import sounds
from experiments.data.folder import read
from experiments.data.records import Dataset, Sounds, Split
from experiments.errors import UserError

__all__ = ["FRAME", "HELD_OUT", "LENGTH", "NUM_SYMBOLS", "SPEAKERS", "digits", "sound", "symbols"]

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
HELD_OUT = ("theo", "yweweler")
"""Whom `fsdd_speakers` tests on."""
LENGTH, FRAME = 8000, 80
"""Samples of an example, and of a symbol."""
PARTS = 5
NUM_SYMBOLS = 1 + 10 * PARTS

_FILE = "fsdd/free-spoken-digit-dataset-1.0.10.tar.gz"
_SHORTEST, _TAKES = 400, 50


class Recording(NamedTuple):
    """A recording: `sound` is `int16 [n]`, `speaker` a place in `SPEAKERS`."""

    sound: np.ndarray
    digit: int
    speaker: int
    take: int


def sound(what: str, content: bytes) -> np.ndarray:
    """The samples, `int16 [n]`, of a wav file of 8 kHz, one channel, 16 bits.

    Args:
        what: the file, for messages.
        content: its bytes.

    Raises:
        UserError: if it is of another kind or damaged, shorter than a twentieth of a second, or silent.
    """
    try:
        with wave.open(io.BytesIO(content)) as file:
            found = file.getframerate(), file.getnchannels(), 8 * file.getsampwidth()
            said, samples = file.getnframes(), file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise UserError(f"{what} is no wav file that can be read: {str(error) or 'it ends too early'}") from error
    if found != (sounds.RATE, 1, 16):
        raise UserError(f"{what}: expected 8000 Hz, 1 channel, 16 bits, got {found[0]} Hz, {found[1]}, {found[2]}")
    if len(samples) != 2 * said:
        raise UserError(f"{what} is cut short: expected {said} samples, got {len(samples) // 2}")
    values = np.frombuffer(samples, "<i2").astype(np.int16)
    if len(values) < _SHORTEST:
        raise UserError(f"{what}: expected at least {_SHORTEST} samples, got {len(values)}")
    if (values == values[0]).all():
        raise UserError(f"{what} is silent: all its {len(values)} samples are {values[0]}")
    return values


def _labels(what: str, stem: str) -> tuple[int, int, int]:
    digit, speaker, take = (stem.split("_") + ["", ""])[:3]
    if not (digit.isdigit() and int(digit) < 10 and speaker in SPEAKERS and take.isdigit() and int(take) < _TAKES):
        raise UserError(
            f"{what}: expected DIGIT_SPEAKER_TAKE.wav with a digit of 0 to 9, a speaker of {', '.join(SPEAKERS)} and "
            f"a take of 0 to {_TAKES - 1}, got {stem!r}"
        )
    return int(digit), SPEAKERS.index(speaker), int(take)


def _recordings(name: str) -> tuple[list[Recording], str]:
    """All recordings of the archive, in the order of take, speaker and digit, and the stamp of the file."""
    file, found = read(name, _FILE), []
    try:
        with tarfile.open(fileobj=io.BytesIO(file.content)) as archive:
            for member in archive:
                if member.name.endswith(".wav"):
                    path, content = Path(member.name), archive.extractfile(member)
                    what = f"data set {name}: {path.name} in {file.path.name}"
                    labels = _labels(what, path.stem)
                    found.append(Recording(sound(what, content.read() if content else b""), *labels))
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(f"data set {name}: cannot read {file.path}: {error}; get a fresh copy of this file") from error
    found.sort(key=lambda one: (one.take, one.speaker, one.digit))
    return found, file.stamp


def _by_take(one: Recording) -> str:
    return "test" if one.take < 5 else "valid" if one.take >= 45 else "train"


def _by_speaker(one: Recording) -> str:
    return "test" if SPEAKERS[one.speaker] in HELD_OUT else "valid" if one.take < 5 else "train"


_SPLITS = {
    _by_take: "takes 0-4 test (official), 45-49 valid, 5-44 train",
    _by_speaker: f"speakers {' and '.join(HELD_OUT)} test, of the others takes 0-4 valid, 5-49 train",
}


def symbols(digit: int, num_samples: int) -> np.ndarray:
    """The symbols `int32 [LENGTH / FRAME]` of a digit that lasts so many samples."""
    frames = min(-(-num_samples // FRAME), LENGTH // FRAME)
    text = np.zeros(LENGTH // FRAME, np.int32)
    text[:frames] = 1 + PARTS * digit + np.arange(frames) * PARTS // frames
    return text


def _text(speaker: int, digit: int, num_samples: int) -> np.ndarray:
    return np.concatenate([np.array([speaker], np.int32), symbols(digit, num_samples)])


def _texts(train: list[Recording]) -> Callable[[np.ndarray], np.ndarray]:
    """`labels -> texts`, each as long as the median of the training recordings of that digit and speaker."""

    def median(speaker: int, digit: int) -> int:
        found = [len(one.sound) for one in train if (one.speaker, one.digit) == (speaker, digit)]
        return int(np.median(found)) if found else LENGTH // 2

    def texts(labels: np.ndarray) -> np.ndarray:
        pairs = [divmod(int(label), 10) for label in labels]
        return np.stack([_text(speaker, digit, median(speaker, digit)) for speaker, digit in pairs])

    return texts


def _digits(cond: np.ndarray) -> np.ndarray:
    """The digits of labels `[n]` or of texts with their speakers."""
    return cond % 10 if cond.ndim == 1 else (cond[:, 1] - 1) // PARTS


def _save(num_speakers: int, end: int, folder: Path, x: np.ndarray, labels: np.ndarray | None) -> list[Path]:
    if labels is None:
        names = ["sound"] * len(x)
    elif num_speakers > 1:
        names = [f"{label % 10}_{SPEAKERS[label // 10]}" for label in labels]
    else:
        names = [f"{label % 10}" for label in labels]
    return sounds.write_wavs(folder, x, end, names)


def _how(found: list[Recording], *, pictures: bool, linear: bool) -> str:
    """What was made of the recordings."""
    levels = f"{'16 bits' if linear else 'mu-law, 256 levels'}, filled up with an end"
    long = sum(len(one.sound) > LENGTH for one in found)
    return (
        f"Free Spoken Digit Dataset, 8 kHz, as loud as recorded; first second ({long} of {len(found)} recordings are "
        f"longer); {'spectrograms, 64 x 64, 70 dB' if pictures else levels}"
    )


def digits(
    name: str, *, held_out_speakers: bool = False, linear: bool = False, text: bool = False, pictures: bool = False
) -> Dataset:
    """Loads the spoken digits.

    Args:
        name: name of the data set.
        held_out_speakers: test on speakers that are not trained on, in place of the official takes; the labels are
            then the digits alone.
        linear: 16-bit levels in place of 256 of the mu-law.
        text: condition on the speaker and a text `int32 [n, 1 + 100]`, in place of the label.
        pictures: spectrograms in place of sounds, with the digits as labels.

    Raises:
        UserError: if the file is missing or damaged, or a recording is not what it should be.
    """
    found, stamp = _recordings(name)
    place = _by_speaker if held_out_speakers else _by_take
    parts = {part: [one for one in found if place(one) == part] for part in ("train", "valid", "test")}
    if empty := [part for part, there in parts.items() if not there]:
        raise UserError(f"data set {name}: the file has no recordings for the {empty[0]} part ({_SPLITS[place]})")
    only_digits = held_out_speakers or pictures
    levels, end = (sounds.linear, 65536) if linear else (sounds.companded, 256)

    def split(there: list[Recording]) -> Split:
        raw = [one.sound for one in there]
        if text:
            cond = np.stack([_text(one.speaker, one.digit, len(one.sound)) for one in there])
        else:
            cond = np.array([one.digit + 10 * one.speaker * (not only_digits) for one in there], np.int32)
        return Split(sounds.pictures(raw) if pictures else levels(raw, LENGTH), cond)

    num_classes = 10 if only_digits else 10 * len(SPEAKERS)
    train, valid, test = (split(parts[part]) for part in ("train", "valid", "test"))
    return Dataset(
        name,
        train,
        valid,
        test,
        num_levels=256 if pictures else end + 1,
        num_classes=num_classes,
        protocol=f"{_how(found, pictures=pictures, linear=linear)}; {_SPLITS[place]}; {stamp}",
        sounds=None
        if pictures
        else Sounds(
            view=lambda x: sounds.pictures(sounds.heard(x, end)),
            save=partial(_save, num_classes // 10, end),
            digits=_digits,
            conditions=_texts(parts["train"]) if text else None,
        ),
    )
