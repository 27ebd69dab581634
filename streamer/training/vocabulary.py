"""The tokenizer of a model: made from the training texts, or that of a pretrained part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from streamer.errors import ModelError
from streamer.model import repository
from streamer.model.nets.architecture import BuildError, Words
from streamer.model.nets.word_vectors import WordVectors
from streamer.model.spec import ModelSpec

UNKNOWN = "[UNK]"


def new_tokenizer(spec: ModelSpec, folder: Path, texts: Iterable[str], tell: Callable[[str], None]) -> Tokenizer | None:
    """The tokenizer that a model is trained with; ``None`` if it reads no text.

    An encoder of transformers has its own; with word vectors it has whole words; else it is byte-level BPE.

    Args:
        texts: Of the training examples.
        tell: Called with a line that says how many of the words have word vectors.

    Raises:
        ModelError: A file that the spec names is missing or broken.
    """
    if not spec.inputs.of_kind("text"):
        return None
    given = repository.backbone_tokenizer(spec, folder)
    if given is not None:
        return given
    options = spec.architecture.options("text")
    if isinstance(options, Words) and options.vectors:
        try:
            return word_tokenizer(texts, WordVectors(folder / options.vectors), options.vocabulary, tell)
        except BuildError as error:
            raise ModelError(str(error)) from None
    return train_tokenizer(texts)


def word_tokenizer(texts: Iterable[str], file: WordVectors, most: int, tell: Callable[[str], None]) -> Tokenizer:
    """Whole words: those of the texts, the most frequent first, then the file's, for later texts.

    Without case, unless there are capitals in the file's words.

    Args:
        most: Largest number of words.

    Raises:
        BuildError: The file is truncated or broken.
    """
    known = file.words(most)
    tokenizer = Tokenizer(models.WordLevel({UNKNOWN: 0}, unk_token=UNKNOWN))
    cased = any(word != word.lower() for word in known)
    steps = [normalizers.NFKC()] if cased else [normalizers.NFKC(), normalizers.Lowercase()]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    counts: Counter[str] = Counter()
    for text in texts:
        normal = tokenizer.normalizer.normalize_str(text)
        counts.update(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal))
    tell(_coverage(counts, file))
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    words = list(dict.fromkeys([UNKNOWN, *ordered, *known]))[: most + 1]
    tokenizer.model = models.WordLevel({word: number for number, word in enumerate(words)}, unk_token=UNKNOWN)
    return tokenizer


def _coverage(counts: Counter[str], file: WordVectors) -> str:
    found = file.vectors(counts)
    share = len(found) / max(1, len(counts))
    spoken = sum(counts[word] for word in found) / max(1, counts.total())
    return (
        f"{file.path.name} has a vector for {share:.1%} of the {len(counts):,} words of the training texts, "
        f"which are {spoken:.1%} of what is said"
    )


def train_tokenizer(texts: Iterable[str], size: int = 768) -> Tokenizer:
    """Byte-level BPE (Sennrich et al. 2016) without case: no text has unknown tokens.

    Args:
        size: Largest number of tokens; 256 of them are the bytes.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),  # a set, whose order changes from run to run
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
