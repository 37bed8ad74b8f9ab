"""When each word of a spoken text sounds: what two synthesisers know of themselves, and how to carry it over.

flite and espeak-ng are asked through their shared libraries (Debian: libflite1, libespeak-ng1), because their command
lines do not print words. A sound without known times is laid against the teacher's reading of the same text by dynamic
time warping on cepstra.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from descant.config import OUTPUT_RATE_HZ
from descant.engine.spoken_prefix import spoken_pieces
from descant.train.mel import HOP_SAMPLES, normalised_mel

FRAME_S = HOP_SAMPLES / OUTPUT_RATE_HZ


@dataclass(frozen=True)
class Reading:
    """A text as it was spoken. spans: (begin, end) in seconds of each of its words, in order."""

    text: str
    spans: tuple[tuple[float, float], ...]
    seconds: float


def function(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
    found = library[name]
    found.restype, found.argtypes = result, list(arguments)
    return found


class TimedFlite:
    """flite's own word times; a text is one utterance."""

    def __init__(self, voice: str = "slt") -> None:
        item, text = ctypes.c_void_p, ctypes.c_char_p
        library = ctypes.CDLL("libflite.so.1")
        function(library, "flite_init", None)()
        register = function(ctypes.CDLL(f"libflite_cmu_us_{voice}.so.1"), f"register_cmu_us_{voice}", item, item)
        self._voice = register(None)
        self._synth = function(library, "flite_synth_text", item, text, item)
        self._relation = function(library, "utt_relation", item, item, text)
        self._head = function(library, "relation_head", item, item)
        self._next = function(library, "item_next", item, item)
        self._number = function(library, "ffeature_float", ctypes.c_float, item, text)
        self._name = function(library, "ffeature_string", text, item, text)
        self._free = function(library, "delete_utterance", None, item)

    def _items(self, utterance: int, relation: bytes) -> list[int]:
        item, found = self._head(self._relation(utterance, relation)), [0][:0]
        while item:
            found.append(item)
            item = self._next(item)
        return found

    def read(self, text: str) -> Reading:
        utterance = self._synth(text.encode(), self._voice)
        path = b"R:SylStructure.daughter%s.daughter%s.R:Segment.%s"
        begin, stop = path % (b"1", b"1", b"p.end"), path % (b"n", b"n", b"end")
        spans = [
            (self._number(token, b"daughter1." + begin), self._number(token, b"daughtern." + stop))
            for token in self._items(utterance, b"Token")
            if self._name(token, b"daughter1.name") != b"0"  # what has no words is not spoken
        ]
        seconds = self._number(self._items(utterance, b"Segment")[-1], b"end")
        self._free(utterance)
        return Reading(text, tuple(spans), seconds)


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int), ("unique_identifier", ctypes.c_uint), ("text_position", ctypes.c_int),
        ("length", ctypes.c_int), ("audio_position", ctypes.c_int), ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p), ("id", _Id),
    ]  # fmt: skip


WORD_EVENT, PHONEME_EVENT = 1, 7
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class TimedEspeak:
    """espeak-ng's own word times: a word ends where the next begins, or where silence does."""

    def __init__(self, voice: str = "en-us") -> None:
        self._library = ctypes.CDLL("libespeak-ng.so.1")
        self._rate = self._library.espeak_Initialize(1, 200, None, 1)  # sound to the callback, phonemes as events
        self._library.espeak_SetVoiceByName(voice.encode())
        self._events: list[tuple[float, int]] = []  # (seconds, place in the text; -1: silence)
        self._samples = 0
        self._hold = _CALLBACK(self._take)  # the library keeps no reference of its own
        self._library.espeak_SetSynthCallback(self._hold)

    def _take(self, samples: Any, count: int, events: Any) -> int:
        self._samples += count
        for i in range(10_000):
            event = events[i]
            if event.type == 0:
                break
            if event.type == WORD_EVENT and event.length:
                self._events.append((event.audio_position / 1000, event.text_position - 1))
            elif event.type == PHONEME_EVENT and event.id.string in (b"_:", b"_"):
                self._events.append((event.audio_position / 1000, -1))
        return 0

    def read(self, text: str) -> Reading:
        self._events, self._samples = [], 0
        encoded = text.encode()
        self._library.espeak_Synth(encoded, ctypes.c_size_t(len(encoded) + 1), 0, 1, 0, 1, None, None)
        self._library.espeak_Synchronize()
        seconds, pieces = self._samples / self._rate, spoken_pieces(text)
        begins, ends = [float("inf")] * len(pieces), [0.0] * len(pieces)
        stops = [at for at, _ in self._events[1:]] + [seconds]
        for (at, place), stop in zip(self._events, stops, strict=True):
            number = next((n for n, (a, b) in enumerate(pieces) if a <= place < b), None)
            if number is not None:
                begins[number], ends[number] = min(begins[number], at), max(ends[number], stop)
        spans = tuple(span for span in zip(begins, ends, strict=True) if span[1] > span[0])
        return Reading(text, spans, seconds)


def joined(read: Callable[[str], Reading], sentences: list[str]) -> Reading:
    """Sentences read one after another, each with the silence that its voice puts around it."""
    spans, at = [(0.0, 0.0)][:0], 0.0
    for one in map(read, sentences):
        spans += [(at + a, at + b) for a, b in one.spans]
        at += one.seconds
    return Reading(" ".join(sentences), tuple(spans), at)


def cepstra(samples: np.ndarray) -> np.ndarray:
    """samples (W,) at 24 kHz -> (T, 39): 19 cepstra less their mean, their slopes, and loudness."""
    mel = normalised_mel(torch.from_numpy(np.asarray(samples, np.float32))[None], 80, 0.0, 1.0, 8000.0)[0].numpy()
    basis = np.cos(np.pi / 80 * (np.arange(80) + 0.5) * np.arange(1, 20)[:, None])
    cepstrum = mel @ basis.T
    loud = 3 * mel.mean(1, keepdims=True)
    parts = (cepstrum - cepstrum.mean(0), loud - loud.mean(), 2 * np.gradient(cepstrum, axis=0))
    return np.asarray(np.concatenate(parts, axis=1))


def warp(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The cheapest monotone path between two rows of features: the mean frame of ``b`` for each of ``a``, (T,)."""
    cost = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
    n, m = cost.shape
    best = np.full((n + 1, m + 1), np.inf)
    best[0, 0] = 0
    came = np.zeros((n, m), int)
    for i in range(n):
        for j in range(m):
            ways = (best[i, j], best[i, j + 1], best[i + 1, j])
            came[i, j] = int(np.argmin(ways))
            best[i + 1, j + 1] = ways[came[i, j]] + cost[i, j]
    partners = [[0][:0] for _ in range(n)]
    i, j = n - 1, m - 1
    while i >= 0 and j >= 0:
        partners[i].append(j)
        step = came[i, j]
        i, j = i - (step != 2), j - (step != 1)
    return np.array([np.mean(row) for row in partners])


def carried(reading: Reading, teacher: np.ndarray, other: np.ndarray) -> Reading:
    """A reading's word times, carried from the teacher's sound to another sound of the same text (24 kHz both)."""
    path = warp(cepstra(teacher), cepstra(other))

    def at(seconds: float) -> float:
        return float(path[min(int(seconds / FRAME_S), len(path) - 1)] + 0.5) * FRAME_S

    return Reading(reading.text, tuple((at(a), at(b)) for a, b in reading.spans), len(other) / OUTPUT_RATE_HZ)
