"""A small archive of spoken digits: tones, a frequency for each digit, whose loudness is the speaker's."""

import io
import tarfile
import wave

import numpy as np

from experiments.data.audio import SPEAKERS

FOLDER = "free-spoken-digit-dataset-1.0.10"
FILE = f"fsdd/{FOLDER}.tar.gz"
TAKES = (0, 5, 45)


def tone(digit, speaker, take):
    """`int16 [n]`, of 600 to 1300 samples."""
    num = 600 + 70 * digit + take
    noise = np.random.default_rng((digit, speaker, take)).normal(size=num)
    sound = np.sin(2 * np.pi * (300 + 350 * digit) * np.arange(num) / 8000)
    return np.int16(2000 * (speaker + 1) * sound + 20 * noise)


def wav(sound, *, rate=8000, channels=1, width=2):
    """The bytes of a file."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(sound.astype("<i2").tobytes())
    return buffer.getvalue()


def files():
    """Names to contents of all of them."""
    every = [(digit, speaker, take) for digit in range(10) for speaker in range(6) for take in TAKES]
    return {f"{d}_{SPEAKERS[s]}_{k}.wav": wav(tone(d, s, k)) for d, s, k in every}


def write(folder, contents):
    """Writes the archive under a data folder."""
    path = folder / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"{FOLDER}/recordings/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path
