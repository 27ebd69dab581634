"""Words -> tokens, one for each. Shape suffixes: see ``inputs``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from streamer.errors import one_line
from streamer.model.nets.architecture import BuildError, HuggingFace
from streamer.model.nets.encoders import Tokens
from streamer.model.nets.layers import Backboned, Block, Recurrent, positions
from streamer.model.nets.word_vectors import WordVectors

WORD_STARTS = "Ġ", "▁"  # how byte-level BPE and SentencePiece write the space before a word


class Vocabulary(NamedTuple):
    """What a text encoder needs to know about the tokenizer.

    Attributes:
        tokens: By number.
        prefix, suffix: Numbers of the special tokens around a text, ``[CLS]`` and ``[SEP]``.
    """

    tokens: tuple[str, ...]
    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()


class TextEncoder(nn.Module):
    """Embeddings with their positions; each is a token. The encoders below add context.

    Args:
        dimensions: Of word vectors that initialise the embeddings, which a layer projects to the width; ``None``: there
            are none, and the embeddings are as wide as the tokens.
        frozen: The embeddings are not trained.
    """

    begun_with: str | None = None  # sentence: how many tokens have a vector from a file

    def __init__(self, vocabulary: int, width: int, dimensions: int | None = None, *, frozen: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, dimensions or width)
        self.embed.requires_grad_(not frozen)
        self.widen = nn.Linear(dimensions, width, bias=False) if dimensions else nn.Identity()
        self.missing = nn.Linear(1, width, bias=False)  # how much of the transcript is outside the window

    def forward(self, text_BT: Tensor, mask_BT: Tensor, overlap_BT: Tensor) -> Tokens:
        words_BTD = self.widen(self.embed(torch.where(mask_BT, text_BT, 0)))
        words_BTD = words_BTD + self.missing(torch.where(mask_BT, 1.0 - overlap_BT, 0.0)[..., None])
        words_BTD = words_BTD + positions(text_BT.shape[1], words_BTD.shape[-1], words_BTD.device)
        return self.in_context(words_BTD, mask_BT), mask_BT

    def in_context(self, words_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """Relate the words to one another; here, leave them as they are."""
        return words_BTD

    def begin_with(self, file: WordVectors, tokens: tuple[str, ...]) -> None:
        """Copy vectors from a file: the token's, or that of the word in lower case.

        A token without a vector gets a random one of the same spread, or 0 if the embeddings are frozen.

        Raises:
            BuildError: The file has other dimensions, cannot be read, or has none of the tokens.
        """
        weight_VC = self.embed.weight
        if file.dimensions != weight_VC.shape[1]:
            raise BuildError(
                f"{file.path} has vectors of {file.dimensions} numbers, architecture.text.dimensions is "
                f"{weight_VC.shape[1]}"
            )
        words = [token.lstrip("".join(WORD_STARTS)) for token in tokens]
        known = file.vectors({*words, *(word.lower() for word in words)})
        rows = {n: known.get(word, known.get(word.lower())) for n, word in enumerate(words)}
        found = {n: torch.from_numpy(vector) for n, vector in rows.items() if vector is not None}
        if not found:
            raise BuildError(f"{file.path} has a vector for none of the {len(tokens)} tokens of the tokenizer")
        spread = torch.stack(list(found.values())).std() * float(weight_VC.requires_grad)
        with torch.no_grad():
            weight_VC.normal_().mul_(spread)
            for n, vector in found.items():
                weight_VC[n] = vector
        self.begun_with = f"{len(found):,} of {len(tokens):,} tokens begin with their vector of {file.path.name}"


class TextTransformer(TextEncoder):
    """A small transformer over the window's words."""

    def __init__(
        self,
        vocabulary: int,
        layers: int,
        heads: int,
        width: int,
        dropout: float,
        dimensions: int | None = None,
        *,
        frozen: bool = False,
    ) -> None:
        super().__init__(vocabulary, width, dimensions, frozen=frozen)
        self.layers = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.nothing = nn.Parameter(torch.zeros(1, 1, width))  # attended to by a window without words

    def in_context(self, words_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """The words attend to one another."""
        tokens_BND = torch.cat([self.nothing.expand(words_BTD.shape[0], -1, -1), words_BTD], dim=1)
        attended_BN = functional.pad(mask_BT, (1, 0), value=True)
        for layer in self.layers:
            tokens_BND = layer(tokens_BND, attended_BN)
        return tokens_BND[:, 1:]


class TextRecurrent(TextEncoder):
    """Recurrent layers over the window's words, in both directions."""

    def __init__(
        self,
        cell: type[nn.RNN | nn.LSTM | nn.GRU],
        vocabulary: int,
        layers: int,
        width: int,
        dropout: float,
        dimensions: int | None = None,
        *,
        frozen: bool = False,
    ) -> None:
        super().__init__(vocabulary, width, dimensions, frozen=frozen)
        self.over_words = Recurrent(cell, width, layers, dropout)

    def in_context(self, words_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """The words in both directions."""
        return cast(Tensor, self.over_words(torch.where(mask_BT[..., None], words_BTD, 0.0), mask_BT))


class HuggingFaceEncoder(Backboned):
    """An encoder of transformers over the window's words, between its special tokens."""

    prefix_P: Tensor
    suffix_P: Tensor

    def __init__(self, model: nn.Module, vocabulary: Vocabulary, width: int, *, frozen: bool) -> None:
        super().__init__(_States(model), frozen=frozen)
        config = cast(Any, model).config
        self.pad = int(config.pad_token_id or 0)
        self.register_buffer("prefix_P", torch.tensor(vocabulary.prefix, dtype=torch.int64), persistent=False)
        self.register_buffer("suffix_P", torch.tensor(vocabulary.suffix, dtype=torch.int64), persistent=False)
        self.project = nn.Linear(int(config.hidden_size), width)
        self.missing = nn.Linear(1, width, bias=False)  # how much of the transcript is outside the window

    def forward(self, text_BT: Tensor, mask_BT: Tensor, overlap_BT: Tensor) -> Tokens:
        ids_BN, mask_BN = self._framed(text_BT, mask_BT)
        states_BNC = self.run(ids_BN, mask_BN.to(torch.int64))
        first = len(self.prefix_P)
        tokens_BTD = self.project(states_BNC[:, first : first + text_BT.shape[1]])
        return tokens_BTD + self.missing(torch.where(mask_BT, 1.0 - overlap_BT, 0.0)[..., None]), mask_BT

    def _framed(self, text_BT: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Prefix, words, and right after the last one the suffix; the rest is padding."""
        batch, steps = text_BT.shape
        first, after = len(self.prefix_P), len(self.suffix_P)
        words_BT = torch.where(mask_BT, text_BT, self.pad)
        ids_BN = torch.cat(
            [self.prefix_P.expand(batch, -1), functional.pad(words_BT, (0, after), value=self.pad)], dim=1
        )
        mask_BN = torch.cat([mask_BT.new_ones(batch, first), functional.pad(mask_BT, (0, after))], dim=1)
        at_T = torch.arange(steps, device=text_BT.device)
        length_B1 = ((at_T + 1) * mask_BT).amax(1, keepdim=True)
        place_BP = first + length_B1 + torch.arange(after, device=text_BT.device)
        ids_BN = ids_BN.scatter(1, place_BP, self.suffix_P.expand(batch, -1))
        mask_BN = mask_BN.scatter(1, place_BP, True)
        if first + after == 0:  # a row must have something to attend to
            mask_BN = mask_BN | functional.pad(~mask_BN.any(1, keepdim=True), (0, steps - 1))
        return ids_BN, mask_BN


class _States(nn.Module):
    """A model of transformers as a function of tensors: its last hidden states."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        if getattr(model, "pooler", None) is not None:
            model.pooler = None  # type: ignore[assignment] # its output is not used

    def forward(self, ids_BN: Tensor, mask_BN: Tensor) -> Tensor:
        states: Tensor = self.model(input_ids=ids_BN, attention_mask=mask_BN, return_dict=True).last_hidden_state
        return states


def hugging_face_encoder(
    options: HuggingFace, vocabulary: Vocabulary, max_tokens: int, width: int, folder: Path, *, pretrained: bool
) -> HuggingFaceEncoder:
    """Build an encoder from a folder of transformers and try it on a text of full length.

    Args:
        pretrained: Whether to read the folder's weights; without, its ``config.json`` is enough.

    Raises:
        BuildError: transformers is not installed, or the folder is not an encoder, truncated, or of another tokenizer.
    """
    place = folder / options.of
    try:
        from transformers import AutoConfig, AutoModel
    except ImportError:
        raise BuildError("encoder 'hf:…' needs transformers: pip install 'streamer-multimodal[backbones]'") from None
    if not (place / "config.json").is_file():
        raise BuildError(f"{place} is no folder of a model of transformers: it has no config.json")
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(place, **local)
        _refuse(config, vocabulary, place)
        if pretrained and options.pretrained:
            model, report = AutoModel.from_pretrained(
                place, config=config, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **local
            )
            _check_loaded(report, place)
        else:
            model = AutoModel.from_config(config, trust_remote_code=False)  # type: ignore[no-untyped-call]
        encoder = HuggingFaceEncoder(model, vocabulary, width, frozen=options.frozen)
        _try(encoder, max_tokens)
    except BuildError:
        raise
    except Exception as error:  # transformers raises whatever its hundreds of models do
        raise BuildError(f"{place} cannot be loaded: {one_line(error)}") from error
    return encoder


def _refuse(config: Any, vocabulary: Vocabulary, place: Path) -> None:
    if getattr(config, "is_encoder_decoder", False):
        raise BuildError(f"{place} is an encoder with a decoder; only encoders serve")
    if len(vocabulary.tokens) > config.vocab_size:
        raise BuildError(
            f"{place} knows {config.vocab_size} tokens, the tokenizer {len(vocabulary.tokens)}: it is of another model"
        )


def _check_loaded(report: dict[str, Any], place: Path) -> None:
    missing = [name for name in report["missing_keys"] if "pooler" not in name]  # which we do not use
    if missing or report.get("mismatched_keys"):
        name = sorted(map(str, missing or report["mismatched_keys"]))[0]
        raise BuildError(f"{place}: its weights are those of another model: {name} is missing or of another shape")


def _try(encoder: HuggingFaceEncoder, max_tokens: int) -> None:
    mask_BT = torch.ones(1, max_tokens, dtype=torch.bool)
    training = encoder.training
    with torch.no_grad():
        encoder.eval()(torch.zeros(1, max_tokens, dtype=torch.int64), mask_BT, mask_BT.float())
    encoder.train(training)
