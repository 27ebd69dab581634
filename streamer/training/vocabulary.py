"""A tokenizer from the training texts."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers


def train_tokenizer(texts: Iterable[str], size: int = 768) -> Tokenizer:
    """Byte-level BPE (Sennrich et al. 2016) without case: no text has a token that it does not know.

    Args:
        size: Most tokens; 256 of them are the bytes.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),  # a set: its order would change from run to run
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
