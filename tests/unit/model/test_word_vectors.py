"""Word vectors of word2vec and GloVe, text and binary: read, checked, and copied into embeddings."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from streamer.errors import ModelError
from streamer.model import repository
from streamer.model.kinds.text import vocabulary
from streamer.model.nets.architecture import BuildError
from streamer.model.nets.model import FusedModel
from streamer.model.nets.word_vectors import VOCABULARY_FILE, WordVectors
from streamer.model.spec import read_spec
from streamer.training.vocabulary import new_tokenizer, word_tokenizer
from tests import small_nets

GLOVE = Path(__file__).parents[4] / "shared/data/text/glove.6B.100d.sample.txt.gz"
WORDS = ["the", "go", "stop", "42", "naïve"]
VECTORS = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
FORMATS = "word2vec.txt", "word2vec.txt.gz", "word2vec.bin", "word2vec-lines.bin", "glove.txt", "glove.bin"


def write(folder: Path, form: str) -> Path:
    """The words in a format, as written by its original tool."""
    path = folder / form
    lines = "".join(
        f"{word} {' '.join(map(repr, map(float, row)))}\n" for word, row in zip(WORDS, VECTORS, strict=True)
    )
    match form:
        case "word2vec.txt":
            path.write_text(f"5 8\n{lines}".replace("\n", " \n").replace("5 8 \n", "5 8\n"), "utf-8")  # as word2vec.c
        case "word2vec.txt.gz":
            path.write_bytes(gzip.compress(f"5 8\n{lines}".encode()))
        case "word2vec.bin" | "word2vec-lines.bin":
            end = b"\n" if "lines" in form else b""
            rows = (w.encode() + b" " + v.astype("<f4").tobytes() + end for w, v in zip(WORDS, VECTORS, strict=True))
            path.write_bytes(b"5 8\n" + b"".join(rows))
        case "glove.txt":
            path.write_text(lines, "utf-8")
        case "glove.bin":
            (folder / VOCABULARY_FILE).write_text("".join(f"{word} 7\n" for word in WORDS), "utf-8")
            bias = np.full((5, 1), 9.0)
            half = np.full_like(VECTORS, 0.5, np.float64)
            sides = np.hstack([VECTORS - half, bias]), np.hstack([half, bias])
            path.write_bytes(np.vstack(sides).astype("<f8").tobytes())
    return path


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_read(form: str, tmp_path: Path) -> None:
    file = WordVectors(write(tmp_path, form))
    assert file.dimensions == 8
    assert file.words(3) == WORDS[:3]
    assert file.words(100) == WORDS
    found = file.vectors({"go", "naïve", "unheard"})
    assert set(found) == {"go", "naïve"}
    assert np.allclose(found["go"], VECTORS[1], atol=1e-6)
    assert np.allclose(found["naïve"], VECTORS[4], atol=1e-6)


def test_a_word_with_spaces_is_read_as_gloves_largest_file_has_it(tmp_path: Path) -> None:
    (tmp_path / "g.txt").write_text("the 1 2 3\n. . . 4 5 6\n")
    found = WordVectors(tmp_path / "g.txt").vectors({". . ."})
    assert found[". . ."].tolist() == [4, 5, 6]


def test_real_glove_vectors_are_read() -> None:
    if not GLOVE.is_file():
        pytest.skip(f"no {GLOVE.name} here")
    file = WordVectors(GLOVE)
    assert file.dimensions == 100
    assert file.words(4) == ["the", ",", ".", "of"]
    found = file.vectors({"he", "his", "percent"})

    def alike(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
        return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))

    assert alike(found["he"], found["his"]) > 0.8 > alike(found["he"], found["percent"])


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("cut", [0.5, -1])
def test_a_truncated_file_is_one_line(form: str, cut: float, tmp_path: Path) -> None:
    path = write(tmp_path, form)
    content = path.read_bytes()
    end = b"\n" if form == "word2vec-lines.bin" else b""  # its last line break may be missing
    content = content.removesuffix(end)
    path.write_bytes(content[: int(len(content) * cut) if cut > 0 else int(cut)])
    with pytest.raises(BuildError, match="truncated") as caught:
        WordVectors(path).vectors({"naïve"})
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no file of word vectors"),
        (b"just a text\nof lines\n", "no file of word vectors"),
        (bytes(range(256)) * 40, "no file of word vectors"),
        (b"1000000000000 300\nthe " + bytes(1200), "claims 1,000,000,000,000 vectors of 300 numbers, which do not fit"),
        (b"2 1000000000000\nthe " + bytes(1200), "claims 2 vectors of 1,000,000,000,000 numbers"),
        (b"0 300\n", "claims 0 vectors"),
        (b"2 2\n" + b"x" * 100_000, "truncated"),
        (b"the 1 2 3\nof 1 2\n", "vector 2 has 2 of 3 numbers"),
        (b"the 1 2 3\nof 1 2 x\n", "the vector of 'of' is broken"),
        (b"the 1 2 3\nof 1 2 nan\n", "the vector of 'of' holds numbers that are not finite"),
        (b"3 2\nthe 1 2\nof 3 4\n", "has 2 vectors and claims 3"),
    ],
)
def test_a_foreign_or_absurd_file_is_one_line(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "vectors").write_bytes(content)
    with pytest.raises(BuildError) as caught:
        WordVectors(tmp_path / "vectors").vectors({"of"})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_header_in_a_compressed_file_is_not_believed_either(tmp_path: Path) -> None:
    (tmp_path / "v.gz").write_bytes(gzip.compress(b"1000000000000 300\nthe " + bytes(1200)))
    with pytest.raises(BuildError, match="truncated"):
        WordVectors(tmp_path / "v.gz").vectors({"the"})
    (tmp_path / "v.gz").write_bytes(b"not compressed")
    with pytest.raises(BuildError, match="cannot be read"):
        WordVectors(tmp_path / "v.gz")


def test_gloves_binary_needs_its_words(tmp_path: Path) -> None:
    path = write(tmp_path, "glove.bin")
    (tmp_path / VOCABULARY_FILE).unlink()
    with pytest.raises(BuildError, match=r"need vocab\.txt beside them"):
        WordVectors(path)
    (tmp_path / VOCABULARY_FILE).write_text("the 7\ngo 6\nstop 5\n4 4\n")
    with pytest.raises(BuildError, match=r"not of the 4 words of"):
        WordVectors(path)


# ---- embeddings that begin with them


def text_model(folder: Path, **choice: object) -> FusedModel:
    write(folder, "glove.txt")
    text = {"encoder": "gru", "vectors": "glove.txt", "dimensions": 8, **choice}
    return small_nets.model(("text",), folder, text=text)


@pytest.mark.parametrize("frozen", [False, True])
def test_embeddings_begin_with_the_vectors_and_learn_unless_frozen(frozen: bool, tmp_path: Path) -> None:
    module = text_model(tmp_path, frozen=frozen)
    encoder: Any = module.encoders["text"]
    embed = encoder.embed
    numbers = {word: small_nets.TOKENS.index(word) for word in ("the", "go", "stop")}
    first = embed.weight.detach().clone()
    for word, number in numbers.items():
        assert np.allclose(first[number], VECTORS[WORDS.index(word)], atol=1e-6)
    unknown = first[small_nets.TOKENS.index("car")]
    assert unknown.any() != frozen
    assert module.notes() == ["text: 3 of 12 tokens begin with their vector of glove.txt"]
    small_nets.train(module, small_nets.cross_entropy, steps=40)
    assert small_nets.accuracy(module) >= 0.95
    assert torch.equal(embed.weight, first) == frozen


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"dimensions": 9}, "vectors of 8 numbers, architecture.text.dimensions is 9"),
        ({"vectors": "nowhere.txt"}, "nowhere.txt is not a file"),
        ({"vectors": "other.txt", "dimensions": 2}, "a vector for none of the 12 tokens"),
    ],
)
def test_vectors_that_do_not_fit_are_one_line(choice: dict[str, object], said: str, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("chat 1 2\nchien 3 4\n")
    with pytest.raises(BuildError) as caught:
        text_model(tmp_path, **choice)
    assert said in str(caught.value)


def test_the_tokenizer_knows_the_words_of_the_texts_and_then_those_of_the_file(tmp_path: Path) -> None:
    told: list[str] = []
    file = WordVectors(write(tmp_path, "glove.txt"))
    tokenizer = word_tokenizer(["Go, go now!", "GO then"], file, 8, told.append)
    assert list(vocabulary(tokenizer).tokens) == [
        "[UNK]",
        "go",
        "!",
        ",",
        "now",
        "then",
        "the",
        "stop",
        "42",
    ]
    assert tokenizer.encode("Stop NOW then unheard").tokens == ["stop", "now", "then", "[UNK]"]
    assert told == [
        "glove.txt has a vector for 20.0% of the 5 words of the training texts, which are 42.9% of what is said"
    ]


def test_a_file_with_capitals_keeps_them(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("Paris 1 2\nstop 3 4\n")
    tokenizer = word_tokenizer([], WordVectors(tmp_path / "v.txt"), 10, lambda _: None)
    assert tokenizer.encode("Paris paris").tokens == ["Paris", "[UNK]"]


TOML = """
name = "toy"
version = "1"
window_ms = 1000
[inputs.text]
max_tokens = 4
[outputs.action]
labels = ["go", "stop"]
[architecture]
size = "tiny"
text = { encoder = "lstm", vectors = "glove.txt", dimensions = 8, frozen = true }
"""


def test_a_trained_model_is_read_without_the_file_of_vectors(tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text(TOML)
    write(tmp_path, "glove.txt")
    spec, told = read_spec(tmp_path), io.StringIO()
    tokenizer = new_tokenizer(spec, tmp_path, ["stop now", "go"], lambda line: print(line, file=told))
    module = repository.new_module(spec, tmp_path, tokenizer)
    repository.write(tmp_path, module, tokenizer, {})
    (tmp_path / "glove.txt").unlink()
    again, inputs = repository.read(tmp_path).module, small_nets.windows(3)[0]
    assert inputs.text_BT is not None
    assert isinstance(module, FusedModel)
    assert isinstance(again, FusedModel)
    inputs = inputs._replace(text_BT=inputs.text_BT.remainder(5))
    assert torch.equal(small_nets.answers(again, inputs), small_nets.answers(module, inputs))
    assert "66.7% of the 3 words" in told.getvalue()
    with pytest.raises(ModelError, match=r"glove\.txt is not a file"):
        new_tokenizer(spec, tmp_path, ["stop"], print)
    with pytest.raises(ModelError, match=r"model\.toml: .*glove\.txt is not a file"):
        repository.new_module(spec, tmp_path, tokenizer)
