"""The pairs of sentences against their files, batches of like lengths against all rows, BLEU against sacrebleu."""

import dataclasses
import gzip
import html
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sacrebleu

from experiments import bleu, data, decoders, evaluate, report, sample, sweep, train, trained
from experiments.configs import translator_multi30k
from experiments.data import translation
from experiments.data.records import Buckets, Dataset, Split
from experiments.errors import UserError
from jaxgen.nets import causal
from jaxgen.nets.transformer_blocks import GPT2
from jaxgen.nets.translator import Translator
from jaxgen.types import Batch

ENGLISH = ["a dog runs", "two men, in hats, sit!", "the  snow", "a man and a dog", "dogs are running in the snow"]
GERMAN = ["ein Hund läuft", "zwei Männer mit Hüten sitzen!", "der  Schnee", "ein Mann und ein Hund", "Hunde im Schnee"]
LONG = " ".join(f"{number}" for number in range(1000, 1060))
SMALL = {"width": 8, "depth": 1, "num_heads": 2, "hidden": 8, "dropout": 0.0}


def write(folder, stem, english, german):
    for language, sentences in (("en", english), ("de", german)):
        path = folder / "multi30k" / f"{stem}.{language}.gz"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress("".join(f"{s}\n" for s in sentences).encode()))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Multi30k's files, of few sentences; one of the training pairs is longer than a row."""
    write(tmp_path, "train", [*ENGLISH * 6, LONG], [*GERMAN * 6, "Zahlen"])
    for stem in ("val", "test_2016_flickr"):
        write(tmp_path, stem, ENGLISH * 4, GERMAN * 4)
    monkeypatch.setenv("JAXGEN_DATA", str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_tokens_are_the_sentences():
    """Written again, rows are the lines of the files; both directions share one vocabulary."""
    one, other = data.load("multi30k_de_en"), data.load("multi30k_en_de")
    assert one.texts.write(one.test.x) == ENGLISH * 4
    assert one.texts.write_source(one.test.cond) == GERMAN * 4
    np.testing.assert_array_equal(one.test.cond, np.where(other.test.x == 0, 0, other.test.x))
    assert one.num_levels == one.num_classes > one.train.x.max()
    assert "of 31, 20, 20 pairs of train, val and test_2016_flickr, 1, 0, 0 are cut off" in one.protocol
    assert (one.train.cond[-1] > 0).sum() < translation.LENGTH
    assert (one.train.x[-1] > 0).all()  # cut off, without an end
    assert LONG.startswith(one.texts.write(one.train.x[-1:])[0])
    np.testing.assert_array_equal(one.texts.read_sources(GERMAN), one.test.cond[:5])


@pytest.mark.usefixtures("folder")
def test_the_vocabulary_is_the_same_again():
    first = data.load("multi30k_de_en")
    translation._shared_vocabulary.cache_clear()
    assert data.load("multi30k_de_en").protocol == first.protocol


def test_any_text_can_be_read(folder):
    """Bytes are tokens: letters that no training sentence has are written as they were."""
    texts = data.load("multi30k_en_de").texts
    strange = ["naïve 日本 €", "<end>"]
    assert texts.write_source(texts.read_sources(strange)) == strange
    del folder


@pytest.mark.parametrize(
    ("sentences", "message"),
    [
        (["a dog", "  "], "sources: sentence 2 of 2 is empty"),
        ([LONG], r"a source has at most 40 tokens, got \d+ for '1000 1001"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_sources_that_cannot_be_are_named(sentences, message):
    with pytest.raises(UserError, match=message):
        data.load("multi30k_en_de").texts.read_sources(sentences)


def test_bad_files_are_named(folder, monkeypatch):
    texts = data.load("multi30k_de_en").texts
    with pytest.raises(UserError, match=r"tokens must be from 0 to \d+, got 99999"):
        texts.write(np.array([[3, 99999]]))
    write(folder, "val", ENGLISH, ["ein", "", "zwei", "drei", "vier"])
    with pytest.raises(UserError, match="multi30k_de_en, valid part: sentence 2 of 5 is empty"):
        data.load("multi30k_de_en")
    write(folder, "val", ENGLISH, GERMAN[:3])
    with pytest.raises(UserError, match=r"val.de.gz and .*val.en.gz hold 3 and 5 sentences"):
        data.load("multi30k_de_en")
    (folder / "multi30k" / "val.de.gz").unlink()
    with pytest.raises(UserError, match=r"data set multi30k_de_en: .*val.de.gz is not there"):
        data.load("multi30k_de_en")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match=r"tokenizers .*pip install -e '\.\[text\]'"):
        data.load("multi30k_de_en")


def test_nothing_is_imported_before_it_is_needed():
    """Listing data sets and reading the help of every command must work without the extra."""
    code = "import sys; sys.modules.update(tokenizers=None, sacrebleu=None); from experiments import data; "
    code += "import experiments.configs.translator_multi30k; data.describe(); print('fine')"
    assert "fine" in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_batches_of_like_lengths_hold_every_row_once_an_epoch():
    """A row holds its number up to its length: the batches of three epochs hold each row three times, uncut."""
    lengths = np.random.default_rng(0).integers(1, 9, 50)
    rows = np.where(np.arange(8) < lengths[:, None], 1 + np.arange(50)[:, None], 0)
    split = Split(rows, rows)
    made = Dataset("made", split, split, split, 51, 51, "", buckets=Buckets(lengths, (2, 5, 8)))
    batches = [data.batch(made, 3, step, 5) for step in range(30)]
    counts = np.zeros(51, int)
    for batch in batches:
        np.testing.assert_array_equal(batch.x, batch.cond)
        numbers = batch.x[:, 0]
        longest = lengths[numbers - 1].max()
        assert batch.x.shape == (5, min(width for width in (2, 5, 8) if width >= longest))
        np.testing.assert_array_equal((batch.x != 0).sum(1), lengths[numbers - 1])
        counts[numbers] += 1
    assert (counts[1:] == 3).all()
    assert sum(batch.x.shape[1] for batch in batches) < 0.8 * 8 * len(batches)
    np.testing.assert_array_equal(data.batch(made, 3, 17, 5).x, batches[17].x)
    assert any(batch.x.shape != data.batch(made, 4, step, 5).x.shape for step, batch in enumerate(batches))


@pytest.mark.usefixtures("folder")
def test_losses_and_numbers_are_those_of_the_model():
    """Without smoothing the loss is -log_prob, cut or not; with it, by hand; nats per token is -log_prob by tokens."""
    dataset = data.load("multi30k_de_en")
    split = Split(dataset.test.x[:5], dataset.test.cond[:5])
    build = lambda **fields: translator_multi30k.build(  # noqa: E731
        translator_multi30k.Config(**{**SMALL, **fields}), dataset
    )
    plain, spread = build(smoothing=0.0), build(smoothing=0.25)
    full = Batch(*map(jnp.asarray, split))
    params, _ = jax.jit(plain.model.init)(jax.random.key(0), full)
    whole = np.asarray(jax.jit(plain.model.log_prob)(params, *full))
    cut = Batch(full.x[:, :16], full.cond[:, :16])
    assert (split.x[:, 15:] == 0).all()
    for batch in (full, cut):
        loss = jax.jit(plain.model.loss)(params, (), jax.random.key(1), batch)[0]
        np.testing.assert_allclose(loss, -whole.mean(), rtol=1e-5)
    value, error = plain.evaluations["cross-entropy"].compute(params, None, dataset, split)
    num = (split.x != 0).sum(1) + 1
    np.testing.assert_allclose(value, -whole.sum() / num.sum(), rtol=1e-5)
    assert error == pytest.approx(np.std(-whole - value * num) / num.mean() / np.sqrt(5), rel=1e-3)
    log_p = np.asarray(jax.nn.log_softmax(_logits(params, dataset, cut)))
    target = 0.75 * np.eye(dataset.num_levels)[np.asarray(cut.x)] + 0.25 / dataset.num_levels
    there = np.arange(16) < num[:, None]
    expected = -((target * log_p).sum(-1) * there).sum(1).mean()
    loss = jax.jit(spread.model.loss)(params, (), jax.random.key(1), cut)[0]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def _logits(params, dataset, batch):
    sizes = {name: SMALL[name] for name in ("width", "depth", "num_heads", "hidden")}
    net = Translator(dataset.num_levels, dataset.num_levels, 40, 40, style=GPT2, **sizes)
    return jax.jit(lambda params, x, cond: causal.outputs(net, params, x, cond))(params, *batch)


def test_bleu_is_that_of_sacrebleu():
    """The score by its other function; the half width is about twice the deviation of the resampled scores."""
    ours, references = [*ENGLISH[:4], "dogs run in snow"] * 8, ENGLISH * 8
    value, error, signature = bleu.score(ours, references)
    assert value == pytest.approx(sacrebleu.corpus_bleu(ours, [references]).score)
    assert 0 < error < 30
    assert "bs:1000" in signature
    assert "tok:13a" in signature
    assert bleu.score(references, references)[0] == pytest.approx(100)
    assert bleu.score(["x"], ["y"])[0] == 0


@pytest.fixture
def run(folder, tmp_path):
    directory = tmp_path / "run"
    flags = [text for name, value in SMALL.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    argv = ["translator_multi30k", "--workdir", str(directory), "--steps", "2", "--batch-size", "5", *flags]
    assert train.main([*argv, "--parallel", "jit", "--log-every", "1"]) == 0
    del folder
    return directory


def test_the_commands_translate(run, capsys, monkeypatch):
    """Of a run: texts of own sources and of the test part with references, numbers with protocols, and a sweep."""
    monkeypatch.setenv("COLUMNS", "400")  # so that no protocol is broken into lines
    assert sample.main([str(run), "--parallel", "jit", "--source", "ein Hund", "--set", "decoder=greedy"]) == 0
    assert "source: ein Hund\nours: " in capsys.readouterr().out
    assert sample.main([str(run), "--parallel", "jit", "--num", "21", "--set", "num_beams=2"]) == 0
    (path,) = (run / "samples").glob("step000002_seed0_num21_num_beams=2.txt")
    blocks = path.read_text().strip().split("\n\n")
    assert len(blocks) == 21
    assert blocks[20].startswith(f"source: {GERMAN[0]}\nours: ")
    assert blocks[20].endswith(f"reference: {ENGLISH[0]}")
    assert evaluate.main([str(run), "--num", "20", "--parallel", "jit", "--set", "decoder=greedy"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "nats per token" in text
    assert "given the source" in text
    assert "bits/dim" not in text  # by the padded length, it would be a number of nothing
    assert "greedy; sacrebleu nrefs:1|bs:1000" in text
    assert sweep.main([str(run), "--num", "20", "--parallel", "jit", "--over", "decoder=draw"]) == 0
    assert "BLEU" in capsys.readouterr().out
    assert report.main([str(run), "--output", str(run / "report.html")]) == 0
    page = html.unescape((run / "report.html").read_text())
    assert blocks[0] in page
    assert "num_beams=2" in page


def test_a_draw_of_one_token_is_greedy(run):
    """And texts of a run's model with `top_k=1` are those of its most probable tokens by the full pass."""
    found = {}
    for name, change in {"greedy": ["decoder=greedy"], "top": ["decoder=draw", "top_k=1"]}.items():
        opened = trained.open_trained(str(run), changes=change)
        cond = jnp.asarray(opened.run.dataset.test.cond[:5])
        found[name] = np.asarray(
            jax.jit(opened.run.experiment.model.sample, static_argnums=2)(opened.params, jax.random.key(0), 5, cond)
        )
    np.testing.assert_array_equal(found["greedy"], found["top"])
    logits = np.asarray(_logits(opened.params, opened.run.dataset, Batch(jnp.asarray(found["top"]), cond)))
    ended = np.cumsum(found["top"] == 0, 1) - (found["top"] == 0) > 0
    np.testing.assert_array_equal(np.where(ended, 0, logits.argmax(-1)), found["top"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"decoder": "best"}, "--decoder must be one of beam, greedy, draw, got 'best'"),
        ({"top_k": -1}, "--top-k must be at least 1, or 0 for all tokens, got -1"),
        ({"temperature": 0.0}, "temperature must be above 0, got 0"),
        ({"top_p": 1.5}, r"top_p needs a probability in \(0, 1\], got 1.5"),
        ({"num_beams": 0}, "--num-beams must be at least 1 and --length-power at least 0, got 0 and 1"),
        ({"smoothing": 1.0}, "--smoothing and --dropout must be from 0 to below 1, got 1.0 and"),
        ({"conditional": False}, "a translator needs its sources"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_bad_flags_are_named(fields, message):
    small = dataclasses.replace(translator_multi30k.Config(**SMALL), **fields)
    with pytest.raises((UserError, ValueError), match=message):
        translator_multi30k.build(small, data.load("multi30k_de_en"))


def test_other_data_is_refused():
    with pytest.raises(UserError, match="a translator is of pairs of texts, and digits has none"):
        translator_multi30k.build(translator_multi30k.Config(), data.load("digits"))


def test_what_is_said_of_a_decoder():
    filters = {"temperature": 0.7, "top_k": 5, "top_p": 0.9}
    drawn = "drawn, temperature 0.7, the 5 most probable, the most probable 0.9 of probability"
    assert decoders.said("draw", **filters) == drawn
    assert decoders.said("greedy", **filters) == "greedy"
