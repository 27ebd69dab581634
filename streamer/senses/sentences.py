"""Sentences as vectors that are alike where the meaning is, by a network of the role ``sentences``.

all-MiniLM-L6-v2 of Sentence-Transformers (Reimers and Gurevych 2019): the mean of the tokens' vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from streamer.errors import UsageError, extra, one_line
from streamer.senses import files
from streamer.senses.sessions import files_of, session
from streamer.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from tokenizers import Tokenizer

ROLE = "sentences"
MAX_TOKENS = 256  # that the network was trained on; of longer texts the beginning is kept
BATCH = 32  # sentences of one run


class SentenceEncoder:
    """MiniLM with weights of 8 bits; the version is that of its files.

    Attributes:
        size: Of a vector.
    """

    size = 384

    def __init__(self, settings: Settings) -> None:
        """Load the network.

        Raises:
            UsageError: It is not there, or cannot be run; says how to get it.
        """
        sense = files.find(ROLE, settings)
        self.version = sense.version
        located = files_of(sense)
        self._tokenizer = _tokenizer(located["tokenizer"])
        self._session = session(located["model"], name=sense.name)
        self._inputs = {given.name for given in self._session.get_inputs()}

    def encode(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of sentences.

        Returns:
            float32 [N, 384], each of length 1.
        """
        vectors_ND = np.zeros((len(sentences), self.size), np.float32)
        order = sorted(range(len(sentences)), key=lambda n: len(sentences[n]))  # those of one run are equally long
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            vectors_ND[rows] = self._encode([sentences[n] for n in rows])
        return vectors_ND

    def _encode(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        tokens = self._tokenizer.encode_batch(list(sentences))
        ids_NT = np.array([one.ids for one in tokens], np.int64)
        mask_NT = np.array([one.attention_mask for one in tokens], np.int64)
        given = {"input_ids": ids_NT, "attention_mask": mask_NT, "token_type_ids": np.zeros_like(ids_NT)}
        (tokens_NTD,) = self._session.run(None, {name: given[name] for name in self._inputs})
        summed_ND = (tokens_NTD * mask_NT[..., None]).sum(axis=1)
        vectors_ND: NDArray[np.float32] = summed_ND / np.maximum(
            np.linalg.norm(summed_ND, axis=1, keepdims=True), 1e-12
        )
        return vectors_ND


def _tokenizer(path: Path) -> Tokenizer:
    with extra("senses", "reading tokenizers"):
        from tokenizers import Tokenizer
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises plain Exception
        raise UsageError(f"{path} is no tokenizer: {one_line(error)}") from error
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding()
    return tokenizer
