r"""Sounds as levels, with an end; windows of them to train on; how they are seen and heard again.

A sound of n samples is a row of T levels: n levels 0 .. L - 1 and after them the end, level L:

    (1)  levels of 16 bits: s + 32768, L = 65536;   by the mu-law: `jaxgen.nets.wavenet.mu_law(s / 32768)`, L = 256
    (2)  bits per sample = sum_i -log2 p(x_i | x_0 .. x_{i-1}, c) / sum n, both sums over the samples of all sounds:
         what follows the n samples is left out, and the first ones have nothing before them
    (3)  a picture: |STFT|^2 in decibels below its largest value, 70 dB of them on 256 levels; Hann windows of 128
         samples every 125, the mean taken out, low frequencies below
"""

import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["RATE", "SIDE", "companded", "heard", "lengths", "linear", "pictures", "ratio", "windows", "write_wavs"]

RATE = 8000
"""Samples per second."""
SIDE = 64
"""Frequencies of a picture, 62.5 Hz each, and its columns, one for each 125 samples of a second."""

_WINDOW, _RANGE, _SILENCE, _CHUNK = 128, 70.0, 1e-6, 250


def _table() -> np.ndarray:
    """The level by the mu-law of each of the 65536 samples, from -32768 on."""
    from jaxgen.nets.wavenet import mu_law

    return np.asarray(mu_law(jnp.arange(-32768, 32768) / 32768))


def companded(sounds: list[np.ndarray], length: int) -> np.ndarray:
    """Levels of (1) by the mu-law, `uint16 [n, length]`, of sounds of 16 bits; longer ones are cut."""
    table = _table().astype(np.uint16)
    return _padded([table[sound.astype(np.int32) + 32768] for sound in sounds], length, 256, np.uint16)


def linear(sounds: list[np.ndarray], length: int) -> np.ndarray:
    """Levels of (1) of 16 bits, `int32 [n, length]`; longer sounds are cut."""
    return _padded([sound.astype(np.int32) + 32768 for sound in sounds], length, 65536, np.int32)


def _padded(rows: list[np.ndarray], length: int, end: int, dtype: Any) -> np.ndarray:
    x = np.full((len(rows), length), end, dtype)
    for levels, row in zip(x, rows, strict=True):
        levels[: len(row)] = row[:length]
    return x


def lengths(x: Any, end: int) -> Any:
    """The n of each row of levels: the number of those before its first end."""
    ends = x == end
    return jnp.where(ends.any(-1), ends.argmax(-1), x.shape[-1])


def heard(x: np.ndarray, end: int) -> list[np.ndarray]:
    """The sounds, `int16`, of rows of levels, up to their ends."""
    from jaxgen.nets.wavenet import mu_law_inverse

    table = np.arange(-32768, 32768)
    if end == 256:
        table = np.clip(np.rint(np.asarray(mu_law_inverse(jnp.arange(256))) * 32768), -32768, 32767)
    cut = np.asarray(lengths(np.asarray(x), end))
    return [table.astype(np.int16)[row[:n]] for row, n in zip(np.asarray(x), cut, strict=True)]


def write_wavs(folder: Path, x: np.ndarray, end: int, names: list[str]) -> list[Path]:
    """Writes rows of levels as files of one channel and 16 bits, NUMBER_NAME.wav, and returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index:03d}_{name}.wav" for index, name in enumerate(names)]
    for path, sound in zip(paths, heard(x, end), strict=True):
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", "not compressed"))
            file.writeframes(sound.astype("<i2").tobytes())
    return paths


def _decibels(sounds: np.ndarray) -> np.ndarray:
    """Power in decibels of `[n, RATE]` reals, frequencies 62.5 Hz .. 4 kHz: `[n, SIDE, SIDE]`."""
    from scipy.signal import ShortTimeFFT
    from scipy.signal.windows import hann

    transform = ShortTimeFFT(hann(_WINDOW, sym=False), RATE // SIDE, RATE, scale_to="magnitude")
    power = transform.spectrogram(sounds, p0=0, p1=SIDE, axis=-1)[:, 1:]
    return 10 * np.log10(power + _SILENCE**2)


def pictures(sounds: list[np.ndarray]) -> np.ndarray:
    """Pictures by (3) of the first second of sounds of 16 bits: `uint8 [n, SIDE, SIDE, 1]`; silence is black."""
    found = []
    for start in range(0, len(sounds), _CHUNK):
        part = [sound[:RATE] / 32768 for sound in sounds[start : start + _CHUNK]]
        part = [sound - sound.mean() if len(sound) else sound for sound in part]
        decibels = _decibels(_padded(part, RATE, 0, np.float64))
        top = np.maximum(decibels.max((1, 2), keepdims=True), -100 + _RANGE)
        found.append(np.clip(1 + (decibels - top) / _RANGE, 0, 1)[:, ::-1, :, None])
    return np.rint(255 * np.concatenate(found)).astype(np.uint8)


def windows(key: Any, x: Any, *, width: int, hop: int, burn: int, end: int) -> tuple[Any, Any, Callable[[Any], Any]]:
    """One window of each sound, from anywhere in it, beginnings more often than other places.

    Args:
        key: random key.
        x: levels `[n, T]`.
        width: samples of a window; it reaches at most an eighth of them beyond the end of the sound.
        hop: windows start at multiples of this.
        burn: samples at the beginning of a window that do not count, for what they follow is not in it; those at the
            beginning of a sound do.
        end: L of (1).

    Returns:
        The windows `[n, width]`, which of their samples count `[n, width]`, and a function that cuts the same windows
        out of frames `[n, T / hop, ...]`.
    """
    cut = lengths(x, end)
    latest = jnp.clip(cut + width // 8 - width, 0, x.shape[1] - width)
    drawn = jax.random.uniform(key, cut.shape, minval=-width / 2, maxval=latest + 1.0)
    first = jnp.maximum(drawn, 0).astype(jnp.int32) // hop
    slices = jax.vmap(jax.lax.dynamic_slice_in_dim, (0, 0, None))
    inside = jnp.arange(width)
    counts = (first[:, None] == 0) | (inside >= burn)
    return slices(x, first * hop, width), counts, lambda frames: slices(frames, first, width // hop)


def ratio(nats: np.ndarray, samples: np.ndarray) -> tuple[float, float]:
    """(2) of the nats and the samples of each sound, and its standard error, that of a ratio of means."""
    bits = nats.sum() / samples.sum() / np.log(2)
    rest = nats / np.log(2) - bits * samples
    return float(bits), float(rest.std() / np.sqrt(len(rest)) / samples.mean())
