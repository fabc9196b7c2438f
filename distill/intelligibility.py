"""Word error rate by an offline speech recogniser: what is understood of a system, beside what is of the recording."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

import numpy as np
from torch import Tensor

from wavenet.audio import PCM16_SCALE, resample

RATE = 16_000  # Hz: the acoustic model's


class Heard(NamedTuple):
    """What was recognised, and the substitutions, deletions and insertions that lead there from the `words` spoken."""

    text: str
    errors: int
    words: int


def spoken_words(text: str) -> list[str]:
    """The words of a text as a recogniser writes them: lower case, no accents, no punctuation but apostrophes.

    Hyphens and dashes part words. Empty for a text with numerals, whose spoken form it does not tell.
    """
    plain = unicodedata.normalize("NFKD", text.replace("\u2019", "'").lower())
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    if re.search(r"\d", plain):
        return []
    words = (word.strip("'") for word in re.findall(r"[a-z']+", plain))
    return [word for word in words if word]


def compare(spoken: list[str], heard: list[str]) -> int:
    """Word errors: the least number of substitutions, deletions and insertions (package jiwer)."""
    import jiwer

    found = jiwer.process_words(" ".join(spoken), " ".join(heard))
    return int(found.substitutions + found.deletions + found.insertions)


class Recogniser:
    """US English, 16 kHz: the models and the trigram language model inside the package pocketsphinx."""

    def __init__(self) -> None:
        from pocketsphinx import Decoder

        # Means of a whole clip, not of those before it.
        self._decoder = Decoder(samprate=float(RATE), cmn="batch", loglevel="FATAL")

    def listen(self, wav: Tensor, sample_rate: int) -> list[str]:
        """The words in wav (T,)."""
        samples = resample(wav.detach().cpu().float(), sample_rate, RATE)
        pcm = samples.mul(PCM16_SCALE).round().clamp(-PCM16_SCALE, PCM16_SCALE - 1).numpy().astype(np.int16)
        self._decoder.reinit_feat()  # its noise estimate would go on from the clip before
        self._decoder.start_utt()
        self._decoder.process_raw(pcm.tobytes(), full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return spoken_words(found.hypstr) if found is not None else []

    def score(self, wav: Tensor, sample_rate: int, text: str) -> Heard | None:
        """wav (T,) against its text; None where the text holds no words (or numerals)."""
        spoken = spoken_words(text)
        if not spoken:
            return None
        heard = self.listen(wav, sample_rate)
        return Heard(" ".join(heard), compare(spoken, heard), len(spoken))


def word_rates(ours: Heard | None, recording: Heard | None) -> dict[str, float | None]:
    """One clip's word error rate and its gap to the recording's; None where the clip has no words."""
    if ours is None or recording is None:
        return {"wer": None, "wer_gap": None}
    return {"wer": ours.errors / ours.words, "wer_gap": (ours.errors - recording.errors) / ours.words}
