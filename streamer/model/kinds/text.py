"""What models do with words: those that are said in the window, as tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from streamer.errors import BadRecord
from streamer.events import Event
from streamer.kinds.text import TextInput
from streamer.model import payloads
from streamer.model.handling import Cut, Cutting, Handling
from streamer.model.nets import architecture as named
from streamer.model.nets.architecture import Sizes, either
from streamer.model.nets.build import Plan
from streamer.model.nets.encoders.text import (
    TextEncoder,
    TextRecurrent,
    TextTransformer,
    Vocabulary,
    hugging_face_encoder,
)
from streamer.model.nets.word_vectors import WordVectors
from streamer.model.sample import Phrase, Sample


class Words(Handling[TextInput]):
    """See the module."""

    fields = ("text_BT", "text_mask_BT", "text_overlap_BT")

    def cut(self, sensor: str, events: Sequence[Event], wanted: TextInput | None, cutting: Cutting) -> Cut:
        phrases = []
        for event in events:
            try:
                phrase = Phrase(*payloads.spoken(event, cutting.window.start_us, cutting.window.end_us))
            except BadRecord as error:
                cutting.rejects.append((event, error))
                continue
            if phrase.text and phrase.overlap > 0:
                phrases.append(phrase)
        return Cut({"text": tuple(phrases)} if wanted else {}, bool(phrases), float(bool(phrases)))

    def collate(self, samples: Sequence[Sample], wanted: TextInput, tokenizer: Tokenizer | None) -> dict[str, Tensor]:
        """Tokens of all phrases of a window, one after another; of more than ``max_tokens`` only the newest are kept.

        Without a tokenizer there are no tensors.
        """
        if tokenizer is None:
            return {}
        rows = [
            [(token, phrase.overlap) for phrase in sample.text for token in _ids(tokenizer, phrase.text)][
                -wanted.max_tokens :
            ]
            for sample in samples
        ]
        width = max(1, *(len(row) for row in rows))
        text_BT = np.zeros((len(rows), width), np.int64)
        overlap_BT = np.zeros((len(rows), width), np.float32)
        mask_BT = np.zeros((len(rows), width), np.bool_)
        for index, row in enumerate(rows):
            text_BT[index, : len(row)] = [token for token, _ in row]
            overlap_BT[index, : len(row)] = [overlap for _, overlap in row]
            mask_BT[index, : len(row)] = True
        return {
            "text_BT": torch.from_numpy(text_BT),
            "text_mask_BT": torch.from_numpy(mask_BT),
            "text_overlap_BT": torch.from_numpy(overlap_BT),
        }

    def dimensions(self, wanted: TextInput, tokenizer: Tokenizer | None) -> dict[str, object]:
        words = vocabulary(tokenizer) if tokenizer is not None else None
        return {"vocabulary": words, "max_tokens": wanted.max_tokens}

    def encoder(self, plan: Plan) -> nn.Module:
        options, sizes, vocabulary = plan.architecture.options("text"), plan.sizes, plan.data.vocabulary
        assert vocabulary is not None
        if isinstance(options, named.HuggingFace):
            return hugging_face_encoder(
                options, vocabulary, plan.data.max_tokens, sizes.width, plan.folder, pretrained=plan.pretrained
            )
        assert isinstance(options, named.Words)
        encoder = _words(options, len(vocabulary.tokens), sizes)
        if options.vectors and plan.pretrained:
            encoder.begin_with(WordVectors(plan.folder / options.vectors), vocabulary.tokens)
        return encoder


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids without special tokens around the text: an encoder that needs those adds them around all phrases."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def _words(options: named.Words, tokens: int, sizes: Sizes) -> TextEncoder:
    width, size, frozen = sizes.width, options.dimensions, options.frozen
    match options:
        case named.TextTransformer():
            layers = either(options.layers, sizes.encoder_layers)
            return TextTransformer(tokens, layers, sizes.heads, width, sizes.dropout, size, frozen=frozen)
        case named.TextRnn():
            cells: dict[type[named.TextRnn], type[nn.RNN | nn.LSTM | nn.GRU]] = {
                named.TextRnn: nn.RNN,
                named.TextLstm: nn.LSTM,
                named.TextGru: nn.GRU,
            }
            layers = either(options.layers, sizes.encoder_layers)
            return TextRecurrent(cells[type(options)], tokens, layers, width, sizes.dropout, size, frozen=frozen)
        case _:
            return TextEncoder(tokens, width, size, frozen=frozen)


def vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """What a network needs to know about a tokenizer."""
    numbers: dict[str, int] = tokenizer.get_vocab()
    tokens = [""] * (1 + max(numbers.values(), default=0))
    for token, number in numbers.items():
        tokens[number] = token
    plain, framed = (tokenizer.encode("a", add_special_tokens=special).ids for special in (False, True))
    at = next((n for n in range(len(framed)) if framed[n : n + len(plain)] == plain), 0)
    return Vocabulary(tuple(tokens), tuple(framed[:at]), tuple(framed[at + len(plain) :]))
