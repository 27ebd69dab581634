"""Every encoder that a model.toml can name learns, respects its mask, and keeps the windows of a batch apart."""

from __future__ import annotations

import functools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchaudio
from safetensors.torch import load_file, save_file
from timm.data.config import resolve_data_config
from torch import nn

from streamer.errors import ModelError
from streamer.model import repository
from streamer.model.kinds.text import vocabulary
from streamer.model.nets.architecture import KINDS, Architecture, BuildError, Wav2Vec2
from streamer.model.nets.encoders.audio import wav2vec2_encoder
from streamer.model.nets.model import FusedModel
from streamer.model.spec import read_spec
from tests import small_nets
from tests.small_nets import there

WAV2VEC2 = {"encoder": "torchaudio:wav2vec2_model", "config": small_nets.TINY_WAV2VEC2}
HUBERT = {"encoder": "torchaudio:wav2vec2_model", "config": small_nets.TINY_HUBERT}
CHOICES: list[tuple[str, dict[str, Any]]] = [
    ("image", {"encoder": "cnn"}),
    ("image", {"encoder": "cnn", "pool": "attention"}),
    ("image", {"encoder": "timm:resnet10t"}),
    ("audio", {"encoder": "crnn"}),
    ("audio", {"encoder": "cnn"}),
    ("audio", {"encoder": "transformer"}),
    ("audio", WAV2VEC2),
    ("audio", HUBERT),
    ("text", {"encoder": "transformer"}),
    ("text", {"encoder": "embedding"}),
    ("text", {"encoder": "rnn"}),
    ("text", {"encoder": "lstm"}),
    ("text", {"encoder": "gru", "layers": 2}),
    ("text", {"encoder": "hf:bert"}),
    ("telemetry", {"encoder": "cnn"}),
    ("telemetry", {"encoder": "gru"}),
    ("telemetry", {"encoder": "transformer", "patch": 3}),
]
every_encoder = pytest.mark.parametrize(
    ("modality", "choice"), CHOICES, ids=["-".join(map(str, (m, c["encoder"], len(c)))) for m, c in CHOICES]
)


def chosen(modality: str, choice: dict[str, Any], folder: Path) -> FusedModel:
    choices: dict[str, Any] = {modality: choice}
    return small_nets.model((modality,), folder, **choices)


def encoder_of(model: FusedModel, modality: str) -> Any:
    """An encoder of a model, untyped, so that tests may use attributes of its class."""
    return model.encoders[modality]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("encoders")
    small_nets.tiny_bert(made / "bert")
    return made


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_every_kind_is_tried_here() -> None:
    tried = {(modality, choice["encoder"].partition(":")[0]) for modality, choice in CHOICES}
    assert tried == {(part, name) for part, kinds in KINDS.items() if part != "fusion" for name in kinds}


@every_encoder
def test_it_learns_what_its_modality_tells(modality: str, choice: dict[str, Any], folder: Path) -> None:
    module = chosen(modality, choice, folder)
    heavy = choice["encoder"].startswith("timm")
    small_nets.train(module, small_nets.cross_entropy, steps=12 if heavy else 40, rate=1e-3 if heavy else 5e-3)
    assert small_nets.accuracy(module) >= 0.95


@every_encoder
def test_what_a_mask_hides_cannot_change_the_answer(modality: str, choice: dict[str, Any], folder: Path) -> None:
    module = chosen(modality, choice, folder)
    gappy = small_nets.with_gaps(small_nets.windows(6)[0])
    told = small_nets.answers(module, gappy)
    assert torch.isfinite(told).all()
    assert torch.equal(told, small_nets.answers(module, small_nets.scrambled(gappy)))
    assert not torch.allclose(told, small_nets.answers(module, small_nets.windows(6)[0]), atol=1e-5)


@every_encoder
def test_what_a_mask_hides_cannot_change_training(modality: str, choice: dict[str, Any], folder: Path) -> None:
    gappy = small_nets.with_gaps(small_nets.windows(6)[0])
    states = []
    for inputs in (gappy, small_nets.scrambled(gappy)):
        module = chosen(modality, choice, folder).train()
        torch.manual_seed(0)
        total = torch.stack([logits.sum() for logits in module(inputs).logits.values()]).sum()
        total.backward()  # type: ignore[no-untyped-call]  # torch has no types here
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        assert gradients
        states.append([*gradients, *module.buffers()])
    assert all(torch.isfinite(one).all() and torch.equal(one, other) for one, other in zip(*states, strict=True))


@every_encoder
def test_windows_of_a_batch_do_not_touch_one_another(modality: str, choice: dict[str, Any], folder: Path) -> None:
    module = chosen(modality, choice, folder)
    small_nets.train(module, small_nets.cross_entropy, steps=2)  # so that batch norms have statistics
    inputs, order = small_nets.with_gaps(small_nets.windows(6)[0]), torch.tensor([4, 2, 0, 5, 3, 1])
    together = small_nets.answers(module, inputs)
    assert torch.allclose(small_nets.answers(module, small_nets.rows(inputs, order)), together[order], atol=1e-5)
    for one in range(6):
        assert torch.allclose(
            small_nets.answers(module, small_nets.rows(inputs, slice(one, one + 1))), together[one], atol=1e-5
        )


@every_encoder
def test_weights_that_were_saved_and_loaded_answer_the_same(
    modality: str, choice: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    module = chosen(modality, choice, folder)
    small_nets.train(module, small_nets.cross_entropy, steps=2)
    save_file({name: weight.contiguous() for name, weight in module.state_dict().items()}, tmp_path / "w.safetensors")
    again = chosen(modality, choice, folder)
    inputs = small_nets.with_gaps(small_nets.windows(6)[0])
    assert not torch.allclose(small_nets.answers(again, inputs), small_nets.answers(module, inputs), atol=1e-5)
    again.load_state_dict(load_file(tmp_path / "w.safetensors"))
    assert torch.equal(small_nets.answers(again, inputs), small_nets.answers(module, inputs))


@pytest.mark.parametrize("encoder", ["transformer", "embedding", "rnn", "lstm", "gru", "hf:bert"])
def test_padding_the_text_changes_nothing(encoder: str, folder: Path) -> None:
    module = small_nets.model(("text",), folder, text=encoder)
    inputs = small_nets.windows(4)[0]
    shorter = small_nets.with_gaps(inputs)._replace(text_mask_BT=torch.tensor([[True] * 3 + [False]] * 4))
    padded = shorter._replace(
        text_BT=nn.functional.pad(there(shorter.text_BT), (0, 2)),
        text_mask_BT=nn.functional.pad(there(shorter.text_mask_BT), (0, 2)),
        text_overlap_BT=nn.functional.pad(there(shorter.text_overlap_BT), (0, 2)),
    )
    assert torch.allclose(small_nets.answers(module, padded), small_nets.answers(module, shorter), atol=1e-5)


@pytest.mark.parametrize(("cell", "layer"), [("rnn", nn.RNN), ("lstm", nn.LSTM), ("gru", nn.GRU)])
def test_recurrent_layers_say_what_pytorchs_packed_ones_say(cell: str, layer: Any) -> None:
    module = encoder_of(small_nets.model(("text",), text={"encoder": cell}), "text").over_words
    packed = layer(32, 16, batch_first=True, bidirectional=True)
    weights = dict(module.there[0].named_parameters())
    weights |= {f"{name}_reverse": weight for name, weight in module.back[0].named_parameters()}
    packed.load_state_dict(weights)
    x_BTD, lengths = torch.randn(3, 5, 32), torch.tensor([5, 2, 4])
    mask_BT = torch.arange(5) < lengths[:, None]
    pack = nn.utils.rnn.pack_padded_sequence(x_BTD, lengths, batch_first=True, enforce_sorted=False)
    wanted, _ = nn.utils.rnn.pad_packed_sequence(packed(pack)[0], batch_first=True)
    assert torch.allclose((module(x_BTD, mask_BT) - x_BTD)[mask_BT], wanted[mask_BT], atol=1e-6)


# ---- backbones of timm


@pytest.mark.parametrize(("name", "side"), [("resnet18", 32), ("inception_v3", 75), ("vit_tiny_patch16_224", 32)])
def test_families_of_timm_are_there_by_name(name: str, side: int) -> None:
    module = small_nets.model(("image",), side=side, image={"encoder": f"timm:{name}", "frozen": True})
    inputs = small_nets.windows(2, side=side)[0]
    assert torch.isfinite(small_nets.answers(module, inputs)).all()


def test_frames_are_normalised_as_the_backbone_was_trained() -> None:
    encoder = encoder_of(small_nets.model(("image",), image="timm:resnet10t"), "image")
    seen = []
    encoder.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    inputs = small_nets.windows(2)[0]
    encoder.eval()(inputs.image_BFCHW, inputs.image_mask_BF)
    config = resolve_data_config({}, model=encoder.backbone)  # type: ignore[no-untyped-call]  # timm has no types here
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    wanted_BFCHW = (there(inputs.image_BFCHW) / 255 - mean) / std
    assert torch.allclose(seen[0], wanted_BFCHW.flatten(0, 1), atol=1e-6)


def test_a_frozen_backbone_stays_as_it_is_while_the_rest_learns(tmp_path: Path) -> None:
    teacher = small_nets.model(("image",), image="timm:resnet10t")
    small_nets.train(teacher, small_nets.cross_entropy, steps=12, rate=1e-3)
    save_file(encoder_of(teacher, "image").backbone.state_dict(), tmp_path / "taught.safetensors")
    choice = {"encoder": "timm:resnet10t", "pretrained": "taught.safetensors", "frozen": True}
    module = small_nets.model(("image",), tmp_path, image=choice)
    assert module.notes() == ["image: the backbone's 4,922,488 parameters are frozen"]
    backbone = encoder_of(module, "image").backbone
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    small_nets.train(module, small_nets.cross_entropy, steps=20)
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert not encoder_of(module.train(), "image").backbone.training
    assert small_nets.accuracy(module) >= 0.95


def test_frames_that_are_not_there_are_not_in_the_statistics_of_a_batch() -> None:
    inputs = small_nets.windows(6)[0]
    mask_BF = there(inputs.image_mask_BF)
    half = inputs._replace(image_mask_BF=mask_BF & torch.tensor([True, False]))
    first = inputs._replace(image_BFCHW=there(inputs.image_BFCHW)[:, :1], image_mask_BF=mask_BF[:, :1])
    buffers = []
    for given in (half, first):
        module = small_nets.model(("image",), image="timm:resnet10t").train()
        module(given)
        buffers.append(torch.cat([b.flatten() for b in encoder_of(module, "image").backbone.buffers()]))
    assert torch.allclose(buffers[0], buffers[1])


@pytest.mark.parametrize("frames", [0, 1])
def test_training_bears_a_batch_with_hardly_a_frame(frames: int) -> None:
    inputs = small_nets.windows(2)[0]
    mask = torch.zeros_like(there(inputs.image_mask_BF))
    mask[0, :frames] = True
    module = small_nets.model(("image",), image="timm:resnet10t").train()
    assert torch.isfinite(module(inputs._replace(image_mask_BF=mask)).embedding_BD).all()


@functools.cache
def resnet() -> nn.Module:
    torch.manual_seed(8)
    return timm.create_model("resnet10t", pretrained=False, num_classes=5)


@pytest.mark.parametrize("form", ["w.safetensors", "w.pth", "wrapped.pth", "legacy.bin"])
def test_pretrained_weights_come_from_a_file(form: str, tmp_path: Path) -> None:
    weights = resnet().state_dict()
    match form:
        case "w.safetensors":
            save_file(weights, tmp_path / form)
        case "wrapped.pth":
            torch.save(
                {"state_dict": {f"module.{name}": w for name, w in weights.items()}, "epoch": 3}, tmp_path / form
            )
        case _:
            torch.save(weights, tmp_path / form, _use_new_zipfile_serialization=form != "legacy.bin")
    module = small_nets.model(("image",), tmp_path, image={"encoder": "timm:resnet10t", "pretrained": form})
    own = encoder_of(module, "image").backbone.state_dict()
    assert own
    assert all(torch.equal(value, weights[name]) for name, value in own.items())


class Evil:
    """Unpickling it would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        import os

        return os.mkdir, (str(self.path),)


def broken_files(folder: Path) -> dict[str, str]:
    """Files that are not weights of a resnet10t -> the message about each."""
    weights = resnet().state_dict()
    save_file(weights, folder / "whole.safetensors")
    whole = (folder / "whole.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "long.safetensors").write_bytes(whole + b"more")
    (folder / "huge_header.safetensors").write_bytes((10**12).to_bytes(8, "little") + b"{}")
    (folder / "text.safetensors").write_text("no weights at all")
    save_file({name: w for name, w in weights.items() if name != "conv1.0.weight"}, folder / "less.safetensors")
    save_file({**weights, "extra": torch.ones(1)}, folder / "more.safetensors")
    save_file({**weights, "conv1.0.weight": torch.ones(2)}, folder / "shape.safetensors")
    save_file({**weights, "conv1.0.weight": weights["conv1.0.weight"] * float("nan")}, folder / "nan.safetensors")
    torch.save(weights, folder / "whole.pth")
    whole = (folder / "whole.pth").read_bytes()
    (folder / "cut.pth").write_bytes(whole[: len(whole) // 2])
    (folder / "text.pth").write_text("no weights at all")
    (folder / "empty.bin").write_bytes(b"")
    torch.save({"weights": Evil(folder / "owned")}, folder / "evil.pth")
    torch.save([1, 2], folder / "list.pth")
    with zipfile.ZipFile(folder / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(10_000_000))
    return {
        "nowhere.pth": "is not a file",
        "cut.safetensors": "truncated",
        "long.safetensors": "truncated",
        "huge_header.safetensors": "truncated",
        "text.safetensors": "truncated",
        "less.safetensors": "conv1.0.weight is missing",
        "more.safetensors": "extra is unknown",
        "shape.safetensors": "shape [2]",
        "nan.safetensors": "not finite",
        "cut.pth": "truncated",
        "text.pth": "truncated",
        "empty.bin": "truncated",
        "evil.pth": "not unpickled",
        "list.pth": "no weights by name",
        "bomb.pth": "compressed",
    }


def test_a_file_that_is_no_weights_of_the_backbone_is_one_line(tmp_path: Path) -> None:
    for name, said in broken_files(tmp_path).items():
        with pytest.raises(BuildError) as caught:
            small_nets.model(("image",), tmp_path, image={"encoder": "timm:resnet10t", "pretrained": name})
        assert said in str(caught.value), name
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "owned").exists()


def test_an_unknown_backbone_names_some_that_are_like_it() -> None:
    with pytest.raises(BuildError, match=r"no backbone 'resnet1800'; it has .*resnet"):
        small_nets.model(("image",), image="timm:resnet1800")


def test_frames_that_a_backbone_cannot_read_are_one_line() -> None:
    with pytest.raises(BuildError, match="timm:inception_v3 cannot be built for frames of 32 × 32 pixels"):
        small_nets.model(("image",), image="timm:inception_v3")


# ---- networks of torchaudio


@pytest.mark.parametrize("config", [small_nets.TINY_WAV2VEC2, small_nets.TINY_HUBERT], ids=["wav2vec2", "hubert"])
def test_a_whole_waveform_is_heard_as_torchaudio_hears_it(config: dict[str, Any]) -> None:
    torch.manual_seed(0)
    options = Wav2Vec2(of="wav2vec2_model", config=config)
    encoder = wav2vec2_encoder(options, small_nets.RATE_HZ, 32, Path(), pretrained=True).eval()
    original = torchaudio.models.wav2vec2_model(**config, aux_num_out=None).eval()
    original.load_state_dict(encoder.backbone.state_dict())
    audio_BS = torch.randn(2, 3000)
    if config is small_nets.TINY_HUBERT:
        given = torch.stack([nn.functional.layer_norm(audio_S, audio_S.shape) for audio_S in audio_BS])
    else:
        given = audio_BS
    tokens_BTD, mask_BT = encoder(audio_BS, torch.ones(2, 3000, dtype=torch.bool))
    assert mask_BT.all()
    assert torch.allclose(tokens_BTD, encoder.project(original(given)[0]), atol=1e-5)


def test_bundles_standardise_waveforms_where_every_convolution_has_a_layer_norm() -> None:
    for name in dir(torchaudio.pipelines):
        bundle = getattr(torchaudio.pipelines, name)
        if name.startswith(("WAV2VEC2", "HUBERT")):
            assert bundle._normalize_waveform == (bundle._params["extractor_mode"] == "layer_norm"), name


def test_weights_of_a_bundle_come_from_a_file(tmp_path: Path) -> None:
    torch.manual_seed(4)
    weights = torchaudio.models.wav2vec2_model(**small_nets.TINY_WAV2VEC2, aux_num_out=7).state_dict()
    torch.save(weights, tmp_path / "bundle.pth")
    audio = {**WAV2VEC2, "pretrained": "bundle.pth", "frozen": True}
    own = encoder_of(small_nets.model(("audio",), tmp_path, audio=audio), "audio").backbone.state_dict()
    assert own
    assert all(torch.equal(value, weights[name]) for name, value in own.items())
    (tmp_path / "bundle.pth").write_bytes((tmp_path / "bundle.pth").read_bytes()[:3000])
    with pytest.raises(BuildError, match=r"bundle\.pth is truncated"):
        small_nets.model(("audio",), tmp_path, audio=audio)
    torch.save(resnet().state_dict(), tmp_path / "bundle.pth")
    with pytest.raises(BuildError, match=r"does not fit: .* is missing"):
        small_nets.model(("audio",), tmp_path, audio=audio)


def test_a_waveform_shorter_than_a_step_is_heard() -> None:
    module = small_nets.model(("audio",), audio=WAV2VEC2)
    inputs = small_nets.windows(2)[0]
    audio_BS, mask_BS = there(inputs.audio_BS), there(inputs.audio_mask_BS)
    short = inputs._replace(audio_BS=audio_BS[:, :50], audio_mask_BS=mask_BS[:, :50])
    assert torch.isfinite(small_nets.answers(module, short)).all()


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ("torchaudio:wav2vec2_gigantic", "it has .*hubert_base.*wav2vec2_base"),
        ({"encoder": "torchaudio:wav2vec2_model", "config": {"layers": 3}}, "it takes extractor_mode"),
    ],
)
def test_an_unknown_network_or_argument_of_torchaudio_is_one_line(choice: Any, said: str) -> None:
    with pytest.raises(BuildError, match=said):
        small_nets.model(("audio",), audio=choice)


def test_networks_of_torchaudio_hear_16_khz_only() -> None:
    with pytest.raises(BuildError, match=r"hears 16000 Hz; inputs\.audio\.rate_hz = 8000"):
        wav2vec2_encoder(Wav2Vec2(of="hubert_base"), 8000, 32, Path(), pretrained=False)


# ---- folders of transformers


def test_a_folder_of_transformers_begins_with_its_weights_or_without(folder: Path) -> None:
    stored = load_file(folder / "bert" / "model.safetensors")["embeddings.word_embeddings.weight"]
    name = "backbone.model.embeddings.word_embeddings.weight"
    for choice, same in (({}, True), ({"pretrained": False}, False)):
        encoder = small_nets.model(("text",), folder, text={"encoder": "hf:bert", **choice}).encoders["text"]
        assert torch.equal(encoder.state_dict()[name], stored) == same


def test_words_are_read_between_the_tokens_that_the_tokenizer_puts_around_them(folder: Path) -> None:
    from transformers import BertModel

    encoder = encoder_of(small_nets.model(("text",), folder, text="hf:bert"), "text").eval()
    original: Any = BertModel.from_pretrained(folder / "bert")
    original.eval()
    ids_BT = torch.tensor([[4, 7, 9], [5, 6, 0]])
    mask_BT = torch.tensor([[True] * 3, [True, True, False]])
    tokens_BTD, _ = encoder(ids_BT, mask_BT, torch.ones(2, 3))
    with torch.no_grad():
        long = original(torch.tensor([[2, 4, 7, 9, 3]])).last_hidden_state[0, 1:4]
        short = original(torch.tensor([[2, 5, 6, 3]])).last_hidden_state[0, 1:3]
    assert torch.allclose(tokens_BTD[0], encoder.project(long), atol=1e-5)
    assert torch.allclose(tokens_BTD[1, :2], encoder.project(short), atol=1e-5)


def break_folder(bert: Path, how: str) -> None:
    weights = bert / "model.safetensors"
    match how:
        case "no config":
            (bert / "config.json").unlink()
        case "no weights":
            weights.unlink()
        case "cut":
            weights.write_bytes(weights.read_bytes()[:2000])
        case "foreign":
            save_file(resnet().state_dict(), weights, metadata={"format": "pt"})
        case "pickle":
            weights.unlink()
            torch.save({"weights": Evil(bert / "owned")}, bert / "pytorch_model.bin")
        case "bad config":
            (bert / "config.json").write_text("{")
        case "code":
            config = (bert / "config.json").read_text().replace('"bert"', '"evil"')
            (bert / "config.json").write_text(config.replace("{", '{"auto_map": {"AutoConfig": "evil.Config"},', 1))
            (bert / "evil.py").write_text(f"import os\nos.mkdir({str(bert / 'owned')!r})\nclass Config: pass\n")
        case "short":
            config = (bert / "config.json").read_text()
            (bert / "config.json").write_text(
                config.replace('"max_position_embeddings": 8', '"max_position_embeddings": 5')
            )
            state = load_file(weights)
            state["embeddings.position_embeddings.weight"] = state["embeddings.position_embeddings.weight"][:5].clone()
            save_file(state, weights, metadata={"format": "pt"})
        case "few words":
            config = (bert / "config.json").read_text()
            (bert / "config.json").write_text(config.replace('"vocab_size": 12', '"vocab_size": 9'))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("no config", "no config.json"),
        ("no weights", "cannot be loaded"),
        ("cut", "cannot be loaded"),
        ("foreign", "those of another model"),
        ("pickle", "cannot be loaded"),
        ("bad config", "cannot be loaded"),
        ("code", "cannot be loaded"),
        ("short", "cannot be loaded"),
        ("few words", "of another model"),
    ],
)
def test_a_broken_folder_of_transformers_is_one_line(how: str, said: str, tmp_path: Path) -> None:
    bert = small_nets.tiny_bert(tmp_path / "bert")
    break_folder(bert, how)
    with pytest.raises(BuildError) as caught:
        small_nets.model(("text",), tmp_path, text="hf:bert")
    assert said in str(caught.value)
    assert "bert" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (bert / "owned").exists()


SPEC = """
name = "toy"
version = "1"
window_ms = 1000
[inputs.text]
max_tokens = 4
[outputs.action]
labels = ["go", "stop"]
[architecture]
text = { encoder = "hf:bert", frozen = true }
"""


def test_a_model_folder_takes_the_tokenizer_of_the_encoder_and_is_read_without_its_weights(tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text(SPEC)
    small_nets.tiny_bert(tmp_path / "bert")
    spec = read_spec(tmp_path)
    tokenizer = repository.backbone_tokenizer(spec, tmp_path)
    assert tokenizer is not None
    assert vocabulary(tokenizer) == small_nets.VOCABULARY
    module = repository.new_module(spec, tmp_path, tokenizer)
    repository.write(tmp_path, module, tokenizer, {})
    (tmp_path / "bert" / "model.safetensors").unlink()
    again = repository.read(tmp_path).module
    inputs = small_nets.windows(3)[0]
    assert isinstance(again, FusedModel)
    assert isinstance(module, FusedModel)
    assert torch.equal(small_nets.answers(again, inputs), small_nets.answers(module, inputs))
    (tmp_path / "bert" / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"bert/tokenizer\.json is not a file"):
        repository.backbone_tokenizer(spec, tmp_path)


# ---- what a model.toml may say


@pytest.mark.parametrize(
    ("architecture", "said"),
    [
        ('size = "huge"', "known: tiny, small, medium"),
        ('image = "resnet18"', "architecture.image.encoder 'resnet18' is unknown; known: cnn, timm:…"),
        ('audio = { encoder = "mfcc" }', "known: crnn, cnn, transformer, torchaudio:…"),
        ('text = { encoder = "bag" }', "known: transformer, embedding, rnn, lstm, gru, hf:…"),
        ('telemetry = "lstm"', "known: cnn, gru, transformer"),
        ('fusion = "sum"', "architecture.fusion.name 'sum' is unknown; known: attention, bottleneck, gated, concat"),
        ('image = "timm"', "'timm' needs a backbone of timm, as in timm:resnet18"),
        ('image = "cnn:deep"', "'cnn:deep' takes nothing after its name"),
        (
            'image = { encoder = "cnn", frozen = true }',
            "frozen is unknown to 'cnn'; its options: pool, patch, channels",
        ),
        ('fusion = { name = "gated", layers = 2 }', "layers is unknown to 'gated'; it has no options"),
        ('image = { encoder = "cnn", patch = 0 }', "Expected `int` >= 1"),
        ('image = { encoder = "cnn", channels = [10] }', "10 is no multiple of 4"),
        ("width = 100", "width = 100 must be a multiple of twice heads = 4"),
        ("dropout = 1.0", "Expected `float` < 1.0"),
        ("layers = 2", "unknown field `layers`"),
        ('text = { encoder = "gru", vectors = "glove.txt" }', "vectors and dimensions"),
        ('text = { encoder = "gru", frozen = true }', "frozen is for embeddings that begin with vectors"),
    ],
)
def test_an_unknown_name_or_option_is_one_line_that_lists_the_known(
    architecture: str, said: str, tmp_path: Path
) -> None:
    inputs = "[inputs.image]\nframes = 1\nheight = 32\nwidth = 32\n[inputs.text]"
    toml = SPEC[: SPEC.index("[architecture]")].replace("[inputs.text]", inputs)
    (tmp_path / "model.toml").write_text(f"{toml}[architecture]\n{architecture}\n")
    with pytest.raises(ModelError) as caught:
        repository.new_module(read_spec(tmp_path), tmp_path, small_nets.tokenizer())
    assert said in str(caught.value)
    assert "model.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sizes_are_those_of_the_name_but_what_is_given() -> None:
    sizes = Architecture(size="tiny", width=64, dropout=0.3).sizes
    assert (sizes.width, sizes.dropout, sizes.heads) == (64, 0.3, Architecture(size="tiny").sizes.heads)
