"""Word errors: what counts as a word, how errors are counted, and a recogniser that hears."""

import pytest
import torch

from distill.intelligibility import Heard, Recogniser, compare, spoken_words, word_rates
from wavenet.config import AudioConfig
from wavenet.data import load_clip, open_corpus

AUDIO = AudioConfig(sample_rate=16000, n_fft=512, win_length=512, hop_length=128, n_mels=40, f_max=8000.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Lakes, and rivers -- hundreds!", ["lakes", "and", "rivers", "hundreds"]),
        ("There's the 'hitch', said O\u2019Brien.", ["there's", "the", "hitch", "said", "o'brien"]),
        ("A well-known caf\u00e9\u2014closed", ["a", "well", "known", "cafe", "closed"]),
        ("In 1908 he left.", []),
        ("... '' !", []),
        ("", []),
    ],
)
def test_words(text, words):
    assert spoken_words(text) == words


@pytest.mark.parametrize(
    ("heard", "errors"),
    [("a b c d", 0), ("a x c d", 1), ("a c d", 1), ("a b b c d", 1), ("x a b", 3), ("", 4), ("e f g h i j", 6)],
)
def test_errors_are_the_edit_distance(heard, errors):
    pytest.importorskip("jiwer")
    assert compare(["a", "b", "c", "d"], heard.split()) == errors


def test_rates_and_gap():
    recording = Heard("a b", 1, 4)
    assert word_rates(Heard("a", 3, 4), recording) == {"wer": 0.75, "wer_gap": 0.5}
    assert word_rates(recording, recording)["wer_gap"] == 0
    assert word_rates(None, recording) == {"wer": None, "wer_gap": None}


@pytest.fixture(scope="module")
def recogniser():
    pytest.importorskip("pocketsphinx")
    pytest.importorskip("jiwer")
    return Recogniser()


def clip(place):
    chosen = sorted(open_corpus("bundled", AUDIO).dev, key=lambda clip: clip.frames)[place]
    return load_clip(chosen, AUDIO), chosen.text


def test_a_recording_is_understood_and_zeroed_words_are_missed(recogniser):
    wav, text = clip(0)
    whole = recogniser.score(wav, 16000, text)
    assert whole.errors / whole.words <= 0.34
    assert whole.words == len(text.split())
    wav[len(wav) // 2 :] = 0
    half = recogniser.score(wav, 16000, text)
    assert half.errors >= whole.errors + 2
    assert recogniser.score(torch.zeros(16000), 16000, text).errors == whole.words
    assert recogniser.score(wav, 16000, "At 5 o'clock.") is None


@pytest.mark.slow
def test_noise_is_not_understood_and_order_does_not_matter(recogniser):
    (wav, text), (other, _) = clip(0), clip(1)
    first = recogniser.listen(wav, 16000)
    recogniser.listen(other, 16000)
    assert recogniser.listen(wav, 16000) == first
    heard = []
    for _ in range(2):  # to the last digit of the decoder's score, which tells more than words
        recogniser.listen(other, 16000)
        heard.append(recogniser._decoder.hyp().best_score)
    assert heard[0] == heard[1]
    noise = torch.randn(len(wav), generator=torch.Generator().manual_seed(0)) * wav.std()
    errors = [recogniser.score(wav + noise * 10 ** (-snr / 20), 16000, text).errors for snr in (40, 0)]
    assert errors[1] > errors[0] + 1
    # A moderate gain is none of the recogniser's business.
    assert compare(first, recogniser.listen(2 * wav, 16000)) <= 1
