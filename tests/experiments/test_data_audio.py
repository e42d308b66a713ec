"""Spoken digits against the bytes of their files, the formula of the mu-law, and Fourier transforms by hand."""

import os

import jax
import numpy as np
import pytest
from scipy.io import wavfile

from experiments import data, sounds
from experiments.data.audio import LENGTH, SPEAKERS, sound, symbols
from experiments.errors import UserError
from tests.experiments import spoken

real_files = pytest.mark.skipif(not os.environ.get("JAXGEN_DATA"), reason="JAXGEN_DATA does not name the data folder")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    spoken.write(path, spoken.files())
    return path


@pytest.fixture
def load(folder, monkeypatch):
    monkeypatch.setenv("JAXGEN_DATA", str(folder))
    return data.load


def tones(split):
    """The tones of a part by take, in the order of speaker and digit."""
    take = {"test": 0, "train": 5, "valid": 45}[split]
    return [spoken.tone(digit, speaker, take) for speaker in range(6) for digit in range(10)]


def test_levels_are_the_mu_law_of_the_samples_and_then_the_end(load):
    """The paper's formula in numpy, within half a level."""
    dataset = load("fsdd")
    for part in ("train", "valid", "test"):
        x, labels = getattr(dataset, part)
        np.testing.assert_array_equal(labels, np.arange(60))
        for row, tone in zip(x, tones(part), strict=True):
            s = tone / 32768
            companded = (np.sign(s) * np.log(1 + 255 * np.abs(s)) / np.log(256) + 1) / 2 * 255
            assert np.abs(row[: len(tone)] - companded).max() < 0.501
            assert (row[len(tone) :] == 256).all()
    assert (dataset.num_levels, dataset.num_classes) == (257, 60)


def test_written_files_are_read_back_by_scipy(load, tmp_path):
    """16-bit levels give the samples of the source back, bit by bit; those of the mu-law give the same levels again."""
    dataset = load("fsdd_16bit")
    paths = dataset.sounds.save(tmp_path / "a", dataset.test.x, dataset.test.cond)
    assert paths[13].name == "013_3_jackson.wav"
    for path, tone in zip(paths, tones("test"), strict=True):
        rate, samples = wavfile.read(path)
        assert (rate, samples.dtype) == (8000, np.int16)
        np.testing.assert_array_equal(samples, tone)
    dataset = load("fsdd")
    paths = dataset.sounds.save(tmp_path / "b", dataset.test.x, None)
    again = sounds.companded([wavfile.read(path)[1] for path in paths], LENGTH)
    np.testing.assert_array_equal(again, dataset.test.x)


def test_held_out_speakers_are_only_in_the_test_part(load):
    """The tone of each row says who it is by its loudness."""
    dataset = load("fsdd_speakers")
    loud = lambda split: {round(np.abs(tone).max() / 2000) - 1 for tone in sounds.heard(split.x, 256)}  # noqa: E731
    assert loud(dataset.train) == loud(dataset.valid) == {0, 1, 2, 3}
    assert loud(dataset.test) == {4, 5}
    assert {SPEAKERS[4], SPEAKERS[5]} == {"theo", "yweweler"}
    np.testing.assert_array_equal(dataset.test.cond, np.tile(np.arange(10), 6))
    assert dataset.num_classes == 10


def test_texts_are_in_time(load):
    """By counting: the symbol of each sample is that of its fifth of the word, to a frame."""
    for num in (400, 1234, 8000, 9000):
        text, length = symbols(7, num).repeat(80), min(num, 8000)
        fifth = np.arange(length) * 5 // length
        assert (text[-(-length // 80) * 80 :] == 0).all()
        assert set(text[:length]) == {36, 37, 38, 39, 40}
        near = [text[np.clip(np.arange(length) + shift, 0, length - 1)] - 36 for shift in (-160, 160)]
        assert ((near[0] <= fifth) & (fifth <= near[1])).all()
    dataset = load("fsdd_text")
    lengths = np.array([len(tone) for tone in tones("train")])
    np.testing.assert_array_equal(dataset.train.cond[:, 0], np.arange(60) // 10)
    np.testing.assert_array_equal((dataset.train.cond[:, 1:] > 0).sum(1), -(-lengths // 80))
    np.testing.assert_array_equal(dataset.sounds.conditions(np.arange(60)), dataset.train.cond)
    np.testing.assert_array_equal(dataset.sounds.digits(dataset.train.cond), np.arange(60) % 10)
    linear, sixteen_bit = load("fsdd_16bit_text"), load("fsdd_16bit")
    np.testing.assert_array_equal(linear.test.cond, dataset.test.cond)
    np.testing.assert_array_equal(linear.test.x, sixteen_bit.test.x)


def test_pictures_are_powers_of_short_pieces():
    """Decibels by numpy's FFT of each piece by itself, under 70 dB of range; a sine is brightest at its frequency."""
    rng = np.random.default_rng(0)
    tone = np.int16(8000 * np.sin(2 * np.pi * 1000 * np.arange(6000) / 8000) + 100 * rng.normal(size=6000))
    picture = sounds.pictures([tone])[0, ::-1, :, 0]
    centred = np.zeros(8000 + 256)
    centred[128 : 128 + 6000] = tone / 32768 - (tone / 32768).mean()
    hann = np.sin(np.pi * np.arange(128) / 128) ** 2
    pieces = np.stack([centred[128 + 125 * p - 64 :][:128] for p in range(64)])
    power = np.abs(np.fft.rfft(pieces * hann)[:, 1:].T / hann.sum()) ** 2
    decibels = 10 * np.log10(power + 1e-12)
    expected = 255 * np.clip(1 + (decibels - decibels.max()) / 70, 0, 1)
    assert np.abs(picture - expected).max() < 0.51
    assert (picture[:, :46].argmax(0) == 15).all(), "1000 Hz is sixteen times 62.5 Hz"
    assert (picture[:, 50:] == 0).all()
    assert (sounds.pictures([np.zeros(500, np.int16), np.zeros(0, np.int16)]) == 0).all()


def test_windows_are_pieces_of_the_sound_and_count_what_follows_enough():
    """Each window is looked for in its sound; frames are cut at the same place."""
    lengths, end = np.array([100, 640, 950, 1600] * 64), 256
    x = np.full((256, 1600), end)
    for row, num in zip(x, lengths, strict=True):
        row[:num] = np.random.default_rng(num).integers(0, 256, num)
    frames = np.arange(20)[None, :, None] + np.zeros((256, 1, 1))
    cut = jax.jit(lambda key: _windows(key, x, frames))
    firsts = {num: set() for num in lengths}
    for seed in range(4):
        pieces, counts, same = map(np.asarray, cut(jax.random.key(seed)))
        for piece, count, frame, row, num in zip(pieces, counts, same, x, lengths, strict=True):
            first = int(frame[0, 0]) * 80
            np.testing.assert_array_equal(frame[:, 0] * 80, first + 80 * np.arange(8))
            np.testing.assert_array_equal(piece, row[first : first + 640])
            np.testing.assert_array_equal(count, (np.arange(640) >= 50) | (first == 0))
            assert first <= max(0, num + 80 - 640)
            firsts[num].add(first)
    for num, latest in ((100, 0), (640, 80), (950, 390), (1600, 960)):
        assert set(range(0, latest, 80)) | {0} <= firsts[num] <= set(range(0, latest + 1, 80))


def _windows(key, x, frames):
    pieces, counts, same = sounds.windows(key, jax.numpy.asarray(x), width=640, hop=80, burn=50, end=256)
    return pieces, counts, same(frames)


def test_the_error_of_a_ratio_is_the_jackknife_s():
    """Bits over samples, leaving out one sound at a time."""
    rng = np.random.default_rng(0)
    samples = rng.integers(1000, 6000, 300).astype(float)
    nats = samples * rng.normal(3, 0.5, 300)
    bits, error = sounds.ratio(nats, samples)
    assert bits == pytest.approx(nats.sum() / np.log(2) / samples.sum())
    left = (nats.sum() - nats) / np.log(2) / (samples.sum() - samples)
    assert error == pytest.approx(np.sqrt(299 / 300 * ((left - left.mean()) ** 2).sum()), rel=0.01)


GOOD = np.int16(1000 * np.sin(np.arange(500)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (spoken.wav(GOOD, rate=16000), "expected 8000 Hz, 1 channel, 16 bits, got 16000 Hz, 1, 16"),
        (spoken.wav(GOOD, channels=2), "expected 8000 Hz, 1 channel, 16 bits, got 8000 Hz, 2, 16"),
        (spoken.wav(GOOD, width=1), "expected 8000 Hz, 1 channel, 16 bits, got 8000 Hz, 1, 8"),
        (spoken.wav(GOOD[:399]), "expected at least 400 samples, got 399"),
        (spoken.wav(0 * GOOD), "is silent: all its 500 samples are 0"),
        (spoken.wav(GOOD)[:20], "is no wav file that can be read: it ends too early"),
        (spoken.wav(GOOD)[:-100], "is cut short: expected 500 samples, got 450"),
        (b"RIFX" + spoken.wav(GOOD)[4:], "is no wav file that can be read: file does not start with RIFF id"),
    ],
)
def test_a_file_of_another_kind_is_refused(content, message):
    with pytest.raises(UserError) as error:
        sound("0_theo_0.wav", content)
    assert str(error.value).startswith("0_theo_0.wav")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("stem", ["11_theo_0", "x_theo_0", "3_anna_0", "3_theo_50", "3_theo"])
def test_labels_out_of_range_are_named(tmp_path, monkeypatch, stem):
    spoken.write(tmp_path, {"0_theo_5.wav": spoken.wav(GOOD), f"{stem}.wav": spoken.wav(GOOD)})
    monkeypatch.setenv("JAXGEN_DATA", str(tmp_path))
    with pytest.raises(UserError, match=f"a digit of 0 to 9, a speaker of george, .* a take of 0 to 49, got '{stem}'"):
        data.load("fsdd")


def test_an_archive_that_is_cut_short_or_lacks_a_part_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXGEN_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"fsdd: .*tar.gz is not there"):
        data.load("fsdd")
    path = spoken.write(tmp_path, {"0_theo_0.wav": spoken.wav(GOOD), "1_theo_5.wav": spoken.wav(GOOD)})
    with pytest.raises(UserError, match="the file has no recordings for the valid part"):
        data.load("fsdd")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"cannot read .*tar.gz: .*; get a fresh copy"):
        data.load("fsdd")


@real_files
def test_the_real_recordings_are_all_there():
    """The counts that the data set's own README states, and its official split."""
    dataset = data.load("fsdd")
    assert [len(part.x) for part in (dataset.train, dataset.valid, dataset.test)] == [2400, 300, 300]
    for part, takes in ((dataset.train, 40), (dataset.valid, 5), (dataset.test, 5)):
        np.testing.assert_array_equal(np.bincount(part.cond), np.full(60, takes))
    assert "20 of 3000 recordings are longer" in dataset.protocol
