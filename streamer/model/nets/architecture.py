"""What ``[architecture]`` of a ``model.toml`` may say: a size, and each part by its name with its options.

    [architecture]
    size = "small"                      # or single sizes: width, common, heads, dropout
    fusion = { name = "bottleneck", layers = 2 }
    image = { encoder = "timm:resnet18", pretrained = "resnet18.safetensors", frozen = true }
    text = { encoder = "gru", vectors = "glove.6B.100d.txt", dimensions = 100 }

Each kind of a part is a struct below; its fields are its options, and one left out (``None``) is taken from the size.
The name before a colon chooses the kind, what follows it belongs to that kind. Paths are relative to the model's
folder.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeVar

import msgspec

from streamer.errors import StreamerError

Count = Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]
Channels = Annotated[tuple[Count, ...], msgspec.Meta(min_length=1)]
Share = Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)]


class BuildError(StreamerError):
    """This network cannot be built; one line says why."""


class Sizes(msgspec.Struct, frozen=True):
    """What a size's name stands for. Channels: one number for each convolution.

    Attributes:
        width: Of tokens.
        common: Width of the common embedding space.
        heads: Of every attention.
        patch: Height and width, in pixels, of the patches of the first convolution on a frame.
        queries: Number of query vectors of the fusion by attention, and of bottleneck tokens.
    """

    width: int
    common: int
    heads: int
    patch: int
    image: tuple[int, ...]
    mels: int
    audio: tuple[int, ...]
    encoder_layers: int
    telemetry: tuple[int, ...]
    queries: int
    fusion_layers: int
    dropout: float = 0.1


SIZES: dict[str, Sizes] = {
    "tiny": Sizes(
        width=32,
        common=32,
        heads=2,
        patch=4,
        image=(8, 16),
        mels=32,
        audio=(8, 16),
        encoder_layers=1,
        telemetry=(16,),
        queries=2,
        fusion_layers=1,
    ),
    "small": Sizes(
        width=96,
        common=128,
        heads=4,
        patch=4,
        image=(24, 48, 96),
        mels=48,
        audio=(16, 32, 64),
        encoder_layers=1,
        telemetry=(32, 64),
        queries=4,
        fusion_layers=2,
    ),
    "medium": Sizes(
        width=256,
        common=256,
        heads=8,
        patch=4,
        image=(48, 96, 192, 256),
        mels=64,
        audio=(32, 64, 128),
        encoder_layers=2,
        telemetry=(64, 128),
        queries=8,
        fusion_layers=4,
    ),
}


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of one kind of a part.

    Attributes:
        of: What follows the colon of the name, ``resnet18`` in ``timm:resnet18``.
        OF: Describes it, for kinds that need it.
    """

    OF: ClassVar[str] = ""
    of: str = ""


class ImageOptions(Options, frozen=True):
    """Options of every image encoder.

    Attributes:
        pool: ``attention``: the frames of a window become one token by attention; else each frame is a token.
    """

    pool: Literal["none", "attention"] = "none"


class ImageCnn(ImageOptions, frozen=True):
    """Convolutions, the first on patches of ``patch`` × ``patch`` pixels."""

    patch: Count | None = None
    channels: Channels | None = None


class Timm(ImageOptions, frozen=True):
    """A backbone of timm, by timm's name: ResNet, Inception and hundreds more.

    Attributes:
        pretrained: File of weights (``.safetensors``, ``.pth``, ``.bin``); ``backbone``: that of the sense of this
            role; ``hub``: timm downloads them; else random.
        frozen: It is not trained.
    """

    OF: ClassVar[str] = "a backbone of timm, as in timm:resnet18"
    pretrained: str = ""
    frozen: bool = False


class AudioCnn(Options, frozen=True):
    """Log-mel, then convolutions that halve bands and time."""

    mels: Count | None = None
    channels: Channels | None = None


class AudioCrnn(AudioCnn, frozen=True):
    """The same with a GRU over time after it."""


class AudioTransformer(AudioCnn, frozen=True):
    """The same with a transformer over time after it."""

    layers: Count | None = None


class Wav2Vec2(Options, frozen=True):
    """wav2vec 2.0 or HuBERT of torchaudio, by the name of its factory.

    Attributes:
        pretrained: File of weights in the format of torchaudio's bundles; else random.
        frozen: It is not trained.
        config: Arguments of the factory ``wav2vec2_model``, which has no default sizes.
    """

    OF: ClassVar[str] = "a factory of torchaudio.models, as in torchaudio:hubert_base"
    pretrained: str = ""
    frozen: bool = False
    config: dict[str, Any] = {}


class Words(Options, frozen=True):
    """Each word's embedding is a token.

    Attributes:
        vectors: File of word vectors, word2vec or GloVe, text or binary, that initialise the embeddings.
        dimensions: Of these vectors.
        frozen: The embeddings are not trained (and 0 for a token without a vector).
        vocabulary: Largest number of words of a tokenizer made from word vectors: those of the training texts, then
            the file's, in the file's order.
    """

    vectors: str = ""
    dimensions: Count | None = None
    frozen: bool = False
    vocabulary: Count = 20_000


class TextRnn(Words, frozen=True):
    """A plain recurrent network over the words, in both directions."""

    layers: Count | None = None


class TextLstm(TextRnn, frozen=True):
    """The same with LSTM cells."""


class TextGru(TextRnn, frozen=True):
    """The same with GRU cells."""


class TextTransformer(Words, frozen=True):
    """A transformer over the words."""

    layers: Count | None = None


class HuggingFace(Options, frozen=True):
    """An encoder of transformers from a folder with config.json, model.safetensors and tokenizer.json.

    Attributes:
        pretrained: Whether it is initialised with the folder's weights.
        frozen: It is not trained.
    """

    OF: ClassVar[str] = "a folder, as in hf:bert"
    pretrained: bool = True
    frozen: bool = False


class TelemetryCnn(Options, frozen=True):
    """Convolutions that each halve the number of time steps."""

    channels: Channels | None = None


class TelemetryGru(Options, frozen=True):
    """A GRU over the grid points, in both directions."""

    layers: Count | None = None


class TelemetryTransformer(Options, frozen=True):
    """A transformer over patches of ``patch`` grid points."""

    layers: Count | None = None
    patch: Count = 4


class Concat(Options, frozen=True):
    """A layer on the concatenated means of all modalities, with flags of presence."""


class Gated(Options, frozen=True):
    """A sum of the modalities' means, each weighted by a gate that sees all of them."""


class AttentionFusion(Options, frozen=True):
    """Learned queries attend to all tokens."""

    layers: Count | None = None
    queries: Count | None = None


class Bottleneck(Options, frozen=True):
    """A transformer for each modality; they exchange information through a few tokens."""

    layers: Count | None = None
    tokens: Count | None = None


KINDS: dict[str, dict[str, type[Options]]] = {  # part -> name -> its options; the first is the default
    "image": {"cnn": ImageCnn, "timm": Timm},
    "audio": {"crnn": AudioCrnn, "cnn": AudioCnn, "transformer": AudioTransformer, "torchaudio": Wav2Vec2},
    "text": {
        "transformer": TextTransformer,
        "embedding": Words,
        "rnn": TextRnn,
        "lstm": TextLstm,
        "gru": TextGru,
        "hf": HuggingFace,
    },
    "telemetry": {"cnn": TelemetryCnn, "gru": TelemetryGru, "transformer": TelemetryTransformer},
    "fusion": {"attention": AttentionFusion, "bottleneck": Bottleneck, "gated": Gated, "concat": Concat},
}


class Architecture(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which network: see the module; absent if ``model.py`` builds the network.

    Attributes:
        size: A key of SIZES, for all options that are not given.
        fusion: ``name`` and its options, or the name alone.
        image, audio, text, telemetry: ``encoder`` and its options, or the encoder's name alone.
    """

    size: str = "small"
    width: Count | None = None
    common: Count | None = None
    heads: Count | None = None
    dropout: Share | None = None
    fusion: str | dict[str, Any] = {}
    image: str | dict[str, Any] = {}
    audio: str | dict[str, Any] = {}
    text: str | dict[str, Any] = {}
    telemetry: str | dict[str, Any] = {}

    @property
    def sizes(self) -> Sizes:
        """All sizes.

        Raises:
            BuildError: The size is unknown, or sizes do not fit together.
        """
        if self.size not in SIZES:
            raise BuildError(f"architecture.size {self.size!r} is unknown; known: {', '.join(SIZES)}")
        own = {name: getattr(self, name) for name in ("width", "common", "heads", "dropout")}
        sizes = msgspec.structs.replace(SIZES[self.size], **{k: v for k, v in own.items() if v is not None})
        if sizes.width % (2 * sizes.heads):
            raise BuildError(f"architecture.width = {sizes.width} must be a multiple of twice heads = {sizes.heads}")
        return sizes

    def options(self, part: str) -> Options:
        """The chosen kind of a part, with its options.

        Args:
            part: A key of KINDS.

        Raises:
            BuildError: The name or an option is unknown.
        """
        key = "name" if part == "fusion" else "encoder"
        given = getattr(self, part)
        table = {key: given} if isinstance(given, str) else given
        full = table.get(key, next(iter(KINDS[part])))
        name, colon, of = str(full).partition(":")
        kind = KINDS[part].get(name)
        if kind is None:
            known = ", ".join(f"{name}:…" if kind.OF else name for name, kind in KINDS[part].items())
            raise BuildError(f"architecture.{part}.{key} {full!r} is unknown; known: {known}")
        if bool(of) != bool(kind.OF) or bool(colon) != bool(kind.OF):
            needs = f"needs {kind.OF}" if kind.OF else f"takes nothing after its name: {name!r}"
            raise BuildError(f"architecture.{part}.{key} {full!r} {needs}")
        return _converted({k: v for k, v in table.items() if k != key}, kind, of, f"architecture.{part}", name)

    def check(self) -> None:
        """Check all of it, without building anything.

        Raises:
            BuildError: Something is unknown, or options do not fit together.
        """
        _ = self.sizes
        for part in KINDS:
            self.options(part)
        text = self.options("text")
        if isinstance(text, Words) and bool(text.vectors) != (text.dimensions is not None):
            raise BuildError("architecture.text: vectors and dimensions (numbers in each vector) go together")
        if isinstance(text, Words) and text.frozen and not text.vectors:
            raise BuildError("architecture.text: frozen is for embeddings that begin with vectors")


def _converted(table: dict[str, Any], kind: type[Options], of: str, where: str, name: str) -> Options:
    known = [field for field in kind.__struct_fields__ if field != "of"]
    unknown = next((option for option in table if option not in known), None)
    if unknown is not None:
        options = f"its options: {', '.join(known)}" if known else "it has no options"
        raise BuildError(f"{where}.{unknown} is unknown to {name!r}; {options}")
    try:
        return msgspec.convert({**table, "of": of}, kind)
    except msgspec.ValidationError as error:
        raise BuildError(f"{where}: {error}") from None


Kind = TypeVar("Kind")


def either(own: Kind | None, preset: Kind) -> Kind:
    """An option, or the size's default if it was left out."""
    return preset if own is None else own
