"""The runners of voice activity and of the recognisers, on real recordings."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from streamer.errors import UsageError
from streamer.senses import files, speech, voice
from streamer.senses.wordtimes import WordTimes
from streamer.settings import Settings
from tests.speech import needs_recogniser, novel, plain


def test_voice_is_heard_while_somebody_speaks_and_equally_at_each_run(data: Path) -> None:
    settings = Settings.load()
    needs_recogniser(settings)
    network = voice.VoiceNetwork(files.find("voice", settings).files["model"])
    spoken_S = novel(data)[1].samples_S
    sound_S = np.concatenate([np.zeros(16_000, np.float32), spoken_S, np.zeros(16_000, np.float32)])
    frames = sound_S[: len(sound_S) // 512 * 512].reshape(-1, 512)
    runs = []
    for _ in range(2):
        activity = voice.VoiceActivity(network)
        runs.append([activity.probability(frame) for frame in frames])
    assert runs[0] == runs[1]
    assert max(runs[0][:30]) < 0.2
    assert np.mean(np.array(runs[0][40:-40]) > 0.5) > 0.8
    assert max(runs[0][-20:]) < 0.2


def test_moonshine_hears_a_sentence_and_says_how_sure_it_is(data: Path) -> None:
    settings = Settings.load()
    needs_recogniser(settings)
    recogniser = speech.load(files.find("speech", settings))
    sentence = novel(data)[1]
    heard = recogniser.hear(sentence.samples_S)
    assert plain(heard.text) == plain(sentence.words)
    assert heard.words == ()
    assert heard.language == "en"
    assert heard.confidence is not None
    assert 0.5 < heard.confidence <= 1.0
    assert recogniser.hear(sentence.samples_S) == heard
    assert recogniser.hear(np.zeros(100, np.float32)).text in ("", "you", "You")


def test_whisper_hears_words_with_their_times(data: Path, senses_dir: Path) -> None:
    pytest.importorskip("faster_whisper", reason="faster-whisper is not installed (extra: whisper)")
    settings = Settings.load(senses_dir=senses_dir, senses={"speech": "whisper-tiny-en"})
    try:
        sense = files.find("speech", settings)
    except UsageError as error:
        pytest.skip(str(error))
    sentence = novel(data)[0]
    heard = speech.load(sense).hear(sentence.samples_S)
    assert plain(heard.text) == plain(sentence.words)
    assert plain(" ".join(word.text for word in heard.words)) == plain(sentence.words)
    times_s = [time_s for word in heard.words for time_s in (word.start_s, word.end_s)]
    assert times_s == sorted(times_s)
    assert times_s[-1] <= sentence.seconds + 0.1
    assert heard.confidence is not None
    assert 0.5 < heard.confidence <= 1.0


def test_words_get_the_times_at_which_they_were_said(data: Path) -> None:
    pytest.importorskip("pocketsphinx", reason="pocketsphinx is not installed (extra: senses)")
    times = WordTimes()
    silence_S = np.zeros(16_000, np.float32)
    sentence = novel(data)[1]
    found = times.of("He was not an ill-disposed young man.", np.concatenate([silence_S, sentence.samples_S]))
    assert [word.text for word in found] == ["He", "was", "not", "an", "ill-disposed", "young", "man."]
    assert found[0].start_s == pytest.approx(1.2, abs=0.1)
    assert found[-1].end_s == pytest.approx(1.0 + sentence.seconds, abs=0.4)
    assert all(before.end_s <= after.start_s + 1e-6 for before, after in pairwise(found))
    again = times.of("He was not an ill-disposed young man.", np.concatenate([silence_S, sentence.samples_S]))
    assert again == found


def test_no_time_is_invented_for_words_that_have_no_known_sound(data: Path) -> None:
    pytest.importorskip("pocketsphinx", reason="pocketsphinx is not installed (extra: senses)")
    times = WordTimes()
    assert times.of("He was not an xqzzt young man", novel(data)[1].samples_S) == ()
    assert times.of("He paid 90210", novel(data)[1].samples_S) == ()


def test_pieces_of_a_tokenizer_are_bytes_text_or_controls() -> None:
    long = b"\xe2\x96\x81" + b"a" * 200
    content = b"\x05<unk>\x03<s>\x06<0x41>\x02<>\x04\xe2\x96\x81b" + bytes([128 + 203 % 128, 203 // 128]) + long
    assert speech.pieces(content) == [b"", b"", b"A", b"<>", b"\xe2\x96\x81b", long]


def test_a_folder_that_no_library_reads_is_an_error_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("faster_whisper", reason="faster-whisper is not installed (extra: whisper)")
    (tmp_path / "model.bin").write_bytes(b"no model")
    with pytest.raises(UsageError, match="does not load"):
        speech.load(files.Sense("speech", str(tmp_path), None, {}, str(tmp_path), None, "v"))
