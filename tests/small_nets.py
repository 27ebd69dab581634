"""Windows whose label every modality shows, tiny versions of pretrained networks, and training of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from torch.nn import functional

from streamer.model import Inputs
from streamer.model.nets.architecture import Architecture
from streamer.model.nets.build import Data, build
from streamer.model.nets.encoders.text import Vocabulary
from streamer.model.nets.heads import Head
from streamer.model.nets.model import FusedModel

T = TypeVar("T")
MODALITIES = "image", "audio", "text", "telemetry"
RATE_HZ = 16_000
SPECIAL = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
WORDS = "go", "stop", "now", "please", "car", "the", "a", "then"
TOKENS = (*SPECIAL, *WORDS)
VOCABULARY = Vocabulary(TOKENS, prefix=(2,), suffix=(3,))
TINY_WAV2VEC2 = {
    "extractor_mode": "group_norm",
    "extractor_conv_layer_config": [[8, 10, 5], [8, 8, 8], [8, 4, 4]],
    "extractor_conv_bias": False,
    "encoder_embed_dim": 16,
    "encoder_projection_dropout": 0.0,
    "encoder_pos_conv_kernel": 4,
    "encoder_pos_conv_groups": 2,
    "encoder_num_layers": 1,
    "encoder_num_heads": 2,
    "encoder_attention_dropout": 0.0,
    "encoder_ff_interm_features": 16,
    "encoder_ff_interm_dropout": 0.0,
    "encoder_dropout": 0.0,
    "encoder_layer_norm_first": False,
    "encoder_layer_drop": 0.0,
}
TINY_HUBERT = {**TINY_WAV2VEC2, "extractor_mode": "layer_norm", "encoder_layer_norm_first": True}


def windows(count: int, seed: int = 0, side: int = 32) -> tuple[Inputs, Tensor]:
    """Half of the windows say ``stop``: their frames are bright on the left, their sound is high, and so on.

    Returns:
        The windows, and which of them say ``stop`` [B].
    """
    random = torch.Generator().manual_seed(seed)
    label_B = torch.arange(count) % 2
    stop_B = label_B.float()
    image_BFCHW = torch.rand(count, 2, 3, side, side, generator=random) * 100
    image_BFCHW[..., : side // 2] += 150 * stop_B[:, None, None, None, None]
    seconds_S = torch.arange(RATE_HZ // 4) / RATE_HZ
    tone_BS = torch.sin(2 * torch.pi * (400 + 2000 * stop_B[:, None]) * seconds_S)
    text_BT = torch.randint(6, len(TOKENS), (count, 4), generator=random)
    text_BT[:, 1] = 4 + label_B
    telemetry_BCT = torch.randn(count, 2, 20, generator=random)
    telemetry_BCT[:, 0] -= 3 * stop_B[:, None]

    def mask(*shape: int) -> Tensor:
        return torch.ones(count, *shape, dtype=torch.bool)

    inputs = Inputs(
        image_BFCHW=image_BFCHW.to(torch.uint8),
        image_mask_BF=mask(2),
        audio_BS=0.1 * tone_BS + 0.02 * torch.randn(count, len(seconds_S), generator=random),
        audio_mask_BS=mask(len(seconds_S)),
        text_BT=text_BT,
        text_mask_BT=mask(4),
        text_overlap_BT=torch.ones(count, 4),
        telemetry_BCT=telemetry_BCT,
        telemetry_mask_BCT=mask(2, 20),
    )
    return inputs, label_B


def there(part: T | None) -> T:
    """An input that a window or a batch has."""
    assert part is not None
    return part


def with_gaps(inputs: Inputs, seed: int = 0) -> Inputs:
    """The same windows with a piece of every modality masked, and all of a modality in some windows."""
    random = torch.Generator().manual_seed(seed)

    def some(mask: Tensor) -> Tensor:
        return mask & (torch.rand(mask.shape, generator=random) < 0.7)

    audio_mask_BS = there(inputs.audio_mask_BS).clone()
    audio_mask_BS[::2, 1000:2000] = False
    audio_mask_BS[1] = False
    gappy = inputs._replace(
        image_mask_BF=some(there(inputs.image_mask_BF)),
        audio_mask_BS=audio_mask_BS,
        text_mask_BT=some(there(inputs.text_mask_BT)),
        telemetry_mask_BCT=some(there(inputs.telemetry_mask_BCT)),
    )
    for mask in (gappy.image_mask_BF, gappy.text_mask_BT, gappy.telemetry_mask_BCT):
        there(mask)[2] = False
    return gappy


def scrambled(inputs: Inputs) -> Inputs:
    """The same windows with other content wherever a mask is False, NaN where it can be."""
    nan, text_mask_BT = torch.tensor(float("nan")), there(inputs.text_mask_BT)
    image_BFCHW, seen_BF111 = there(inputs.image_BFCHW), there(inputs.image_mask_BF)[:, :, None, None, None]
    return inputs._replace(
        image_BFCHW=torch.where(seen_BF111, image_BFCHW, 255 - image_BFCHW),
        audio_BS=torch.where(there(inputs.audio_mask_BS), there(inputs.audio_BS), nan),
        text_BT=torch.where(text_mask_BT, there(inputs.text_BT), 1),
        text_overlap_BT=torch.where(text_mask_BT, there(inputs.text_overlap_BT), nan),
        telemetry_BCT=torch.where(there(inputs.telemetry_mask_BCT), there(inputs.telemetry_BCT), nan),
    )


def rows(inputs: Inputs, index: Any) -> Inputs:
    return inputs.each(lambda part: part[index])


def model(
    modalities: tuple[str, ...] = MODALITIES,
    folder: Path = Path(),
    heads: Mapping[str, Head] | None = None,
    side: int = 32,
    **choices: Any,
) -> FusedModel:
    """A tiny model for :func:`windows` with some of the modalities."""
    data = Data(
        image_size=(side, side) if "image" in modalities else None,
        audio_rate_hz=RATE_HZ if "audio" in modalities else None,
        vocabulary=VOCABULARY if "text" in modalities else None,
        max_tokens=4,
        telemetry_channels=2 if "telemetry" in modalities else None,
    )
    architecture = Architecture(**{"size": "tiny", "dropout": 0.0, **choices})
    torch.manual_seed(0)
    return build(architecture, data, heads or {"action": Head(2)}, folder, pretrained=True)


def train(
    module: FusedModel,
    loss_of: Callable[[dict[str, Tensor], Tensor], Tensor],
    steps: int,
    rate: float = 5e-3,
    *,
    solo: bool = False,
) -> None:
    """Fit to 64 windows, batches of 16.

    Args:
        solo: In half of the steps each window is shown through one modality alone.
    """
    inputs, label_B = windows(64, seed=1)
    torch.manual_seed(0)
    optimiser = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], rate)
    module.train()
    for step in range(steps):
        index_B = torch.arange(16 * (step % 4), 16 * (step % 4) + 16)
        shown = rows(inputs, index_B)
        loss = loss_of(module(alone(shown) if solo and step % 2 else shown).logits, label_B[index_B])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
    module.eval()


def alone(inputs: Inputs) -> Inputs:
    """Each window through one modality, in turn."""
    masks = {}
    for turn, name in enumerate(MODALITIES):
        field = next(field for field in Inputs._fields if field.startswith(f"{name}_mask"))
        mask = getattr(inputs, field).clone()
        mask[(torch.arange(len(mask)) // 2) % 4 != turn] = False
        masks[field] = mask
    return inputs._replace(**masks)


def cross_entropy(logits: dict[str, Tensor], label_B: Tensor) -> Tensor:
    return functional.cross_entropy(logits["action"], label_B)


def accuracy(module: FusedModel) -> float:
    """Accuracy on windows not used in training."""
    inputs, label_B = windows(64, seed=2)
    with torch.inference_mode():
        return float((module.eval()(inputs).logits["action"].argmax(1) == label_B).float().mean())


def answers(module: FusedModel, inputs: Inputs) -> Tensor:
    with torch.inference_mode():
        outputs = module.eval()(inputs)
    return torch.cat([*outputs.logits.values(), outputs.embedding_BD], dim=1)


def tokenizer() -> Tokenizer:
    """A tokenizer like BERT's: words between [CLS] and [SEP]."""
    made = Tokenizer(models.WordLevel({word: n for n, word in enumerate(TOKENS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return made


def tiny_bert(folder: Path, seed: int = 3) -> Path:
    """A folder written by ``save_pretrained``."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(TOKENS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=8,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    BertModel(config).save_pretrained(folder)  # type: ignore[no-untyped-call]  # transformers has no types here
    tokenizer().save(str(folder / "tokenizer.json"))
    return folder
