"""A tokenizer made anew, and its files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, pre_tokenizers

from descant.errors import OptionError
from descant.inputs.tokenizer import (
    AUDIO,
    AUDIO_BOS,
    AUDIO_EOS,
    END_OF_TEXT,
    IM_END,
    IMAGE,
    SPECIAL_TOKENS,
    VIDEO,
    VISION_BOS,
    VISION_EOS,
    bpe_backend,
)


def byte_tokenizer(words: Sequence[str]) -> tokenizers.Tokenizer:
    """A tokenizer in which every byte is a token, except that each of ``words`` standing alone is one token.

    The words are reached by ``ignore_merges`` (a whole pre-token that is in the vocabulary is taken as it is) and not
    by merge rules, because rules for "user" would build "us" and "use" inside other words. Special tokens come last.
    """
    vocab = {symbol: index for index, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    for word in words:
        if not (word.isascii() and word.isalpha()) or word in vocab:
            raise OptionError(
                f"{word!r} cannot be a word of the byte tokenizer; expected ASCII letters, two or more, once"
            )
        vocab[word] = len(vocab)
    backend = bpe_backend(vocab, [], ignore_merges=True)
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL_TOKENS])
    return backend


def write_tokenizer(backend: tokenizers.Tokenizer, folder: str | Path) -> None:
    """Write ``tokenizer.json`` and the ``tokenizer_config.json`` with which other readers load it unchanged.

    The class named there is the generic one: transformers' Qwen2Tokenizer would rebuild the model from vocabulary and
    merges and lose ``ignore_merges``.
    """
    folder = Path(folder)
    backend.save(str(folder / "tokenizer.json"), pretty=True)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": IM_END,
        "pad_token": END_OF_TEXT,
        "model_max_length": 32768,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "extra_special_tokens": {
            "image_token": IMAGE,
            "audio_token": AUDIO,
            "video_token": VIDEO,
            "vision_bos_token": VISION_BOS,
            "vision_eos_token": VISION_EOS,
            "audio_bos_token": AUDIO_BOS,
            "audio_eos_token": AUDIO_EOS,
        },
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
