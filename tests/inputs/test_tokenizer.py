"""Laws of the tokenizer: text never reaches a special id, and streamed text is valid and joins to the whole."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from descant.errors import ConfigError, OptionError
from descant.export.tokenizer import byte_tokenizer, write_tokenizer
from descant.inputs import tokenizer as names
from descant.inputs.tokenizer import SPECIAL_TOKENS, Tokenizer
from tests.inputs.media import nano_tokenizer

TOKENIZER = nano_tokenizer()
texts = st.lists(st.one_of(st.text(max_size=8), st.sampled_from([*SPECIAL_TOKENS, "user", "\n", "🙂", "你好"]))).map(
    "".join
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(text=texts)
def test_text_never_reaches_a_special_id(text: str) -> None:
    ids = TOKENIZER.encode(text)
    assert not TOKENIZER.special_ids() & set(ids)
    assert TOKENIZER.decode(ids) == unicodedata.normalize("NFC", text)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(ids=st.lists(st.integers(0, TOKENIZER.vocab_size + 3), max_size=40), text=texts)
def test_streamed_text_is_valid_and_joins_to_the_whole(ids: list[int], text: str) -> None:
    """Any ids at all: cut characters, stray bytes, special tokens and rows without text among them."""
    for stream in (ids, TOKENIZER.encode(text), TOKENIZER.encode(text)[1::2]):
        decoder = TOKENIZER.incremental()
        deltas = [decoder.push(index) for index in stream]
        for delta in deltas:
            delta.encode()  # no lone surrogates
        assert "".join(deltas) + decoder.flush() == TOKENIZER.decode(stream)


def test_a_character_appears_with_its_last_byte_and_a_rest_is_replaced() -> None:
    decoder, ids = TOKENIZER.incremental(), TOKENIZER.encode("é🙂")
    assert [decoder.push(index) for index in ids] == ["", "é", "", "", "", "🙂"]
    assert decoder.flush() == ""
    assert [decoder.push(index) for index in ids[2:5]] == ["", "", ""]
    assert decoder.flush() == "\ufffd"


def test_role_words_are_one_token_and_other_text_is_bytes() -> None:
    assert len(TOKENIZER.encode("user\n")) == 2
    assert len(TOKENIZER.encode("the house is used")) == len("the house is used")


def test_older_layout_equals_the_new_one(tmp_path: Path) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    new.mkdir(), old.mkdir()
    write_tokenizer(byte_tokenizer([]), new)
    state = json.loads((new / "tokenizer.json").read_text())
    vocab = state["model"]["vocab"] | {"he": 256, "hel": 257}
    (old / "vocab.json").write_text(json.dumps(vocab))
    (old / "merges.txt").write_text("#version: 0.2\nh e\nhe l\n")
    (old / "added_tokens.json").write_text(json.dumps({name: 258 + i for i, name in enumerate(SPECIAL_TOKENS)}))
    tokenizer = Tokenizer.from_folder(old)
    assert tokenizer.encode("hello he") == [257, vocab["l"], vocab["o"], vocab["Ġ"], 256]
    assert tokenizer.special(names.IM_START) == 259
    assert Tokenizer.from_folder(new).special(names.IM_START) == 257


def _file(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("other.json", "{}", "no tokenizer in"),
        ("tokenizer.json", "", "is not JSON"),
        ("tokenizer.json", '{"model": {"type": "BPE"', "is not JSON"),
        ("tokenizer.json", "[1, 2]", "no BPE model"),
        ("tokenizer.json", '{"model": {"type": "Unigram", "vocab": []}}', "no BPE model"),
        ("tokenizer.json", '{"model": {"type": "BPE", "vocab": {}}}', "lacks 'merges'"),
        ("tokenizer.json", "[" * 100_000, "is not JSON"),
    ],
)
def test_damaged_files_are_refused(name: str, text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        Tokenizer.from_folder(_file(tmp_path, name, text))


def test_lone_surrogates_and_unknown_specials_are_refused() -> None:
    with pytest.raises(OptionError, match="U\\+D800"):
        TOKENIZER.encode("a\ud800")
    with pytest.raises(ConfigError, match="no special token"):
        TOKENIZER.special("<|nonsense|>")
    with pytest.raises(OptionError, match="cannot be a word"):
        byte_tokenizer(["two words"])
