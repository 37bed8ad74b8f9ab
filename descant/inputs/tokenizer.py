"""Text <-> ids: Qwen's byte-level BPE, with a hard wall between text and special tokens.

Two views of one tokenizer file: ``encode`` never yields a special id, whatever the text says; special ids are asked for
by name (``special``). That wall is what keeps a user from forging a turn or a media placeholder by typing one.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from descant.config import ThinkerConfig
from descant.errors import ConfigError, OptionError
from descant.files import is_there, read_file

# ---------------------------------------------------------------- the 22 special tokens of Qwen2.5-Omni, in id order

END_OF_TEXT = "<|endoftext|>"
IM_START = "<|im_start|>"
IM_END = "<|im_end|>"
AUDIO = "<|AUDIO|>"
AUDIO_BOS = "<|audio_bos|>"
AUDIO_EOS = "<|audio_eos|>"
BOX_END = "<|box_end|>"
QUAD_START = "<|quad_start|>"
QUAD_END = "<|quad_end|>"
VISION_BOS = "<|vision_bos|>"
VISION_EOS = "<|vision_eos|>"
VISION_PAD = "<|vision_pad|>"
IMAGE = "<|IMAGE|>"
VIDEO = "<|VIDEO|>"
TOOL_CALL = "<tool_call>"
TOOL_CALL_END = "</tool_call>"
FIM_PREFIX = "<|fim_prefix|>"
FIM_MIDDLE = "<|fim_middle|>"
FIM_SUFFIX = "<|fim_suffix|>"
FIM_PAD = "<|fim_pad|>"
REPO_NAME = "<|repo_name|>"
FILE_SEP = "<|file_sep|>"

SPECIAL_TOKENS = (
    END_OF_TEXT, IM_START, IM_END, AUDIO, AUDIO_BOS, AUDIO_EOS, BOX_END, QUAD_START, QUAD_END, VISION_BOS, VISION_EOS,
    VISION_PAD, IMAGE, VIDEO, TOOL_CALL, TOOL_CALL_END, FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX, FIM_PAD, REPO_NAME,
    FILE_SEP,
)  # fmt: skip

# Qwen2's pre-tokenizer: contractions, words with a leading mark, single digits, punctuation, line ends, spaces.
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MAX_FILE_BYTES = 64 << 20  # the official tokenizer.json has 7 MB; anything huge is no tokenizer


def check_unicode(text: str) -> bytes:
    """Text as UTF-8. Raises OptionError on lone surrogates."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise OptionError(
            f"the text holds a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start}; "
            "expected valid Unicode. Decode the source as UTF-8 with errors='replace'."
        ) from None


class Tokenizer:
    """Encodes text, decodes ids, and knows the special tokens by name. Immutable and safe to share."""

    def __init__(self, backend: tokenizers.Tokenizer):
        """backend: a byte-level BPE tokenizer whose added tokens are the special ones."""
        state = json.loads(backend.to_str())
        added = backend.get_added_tokens_decoder()
        self._specials = {token.content: index for index, token in added.items()}
        state["added_tokens"] = []  # the text view does not know them, so text cannot reach them
        state["post_processor"] = None
        self._text = tokenizers.Tokenizer.from_str(json.dumps(state))
        self._bytes = _byte_table(backend.get_vocab(with_added_tokens=False), self._specials)
        for index, token in added.items():
            self._bytes[index] = b"" if token.special else token.content.encode()
        self.vocab_size = backend.get_vocab_size(with_added_tokens=True)

    @classmethod
    def from_folder(cls, folder: str | Path) -> Tokenizer:
        """Read ``tokenizer.json``, or the older official layout ``vocab.json`` + ``merges.txt``.

        Raises ConfigError when neither is there or a file cannot be read as such.
        """
        folder = Path(folder)
        if is_there(folder / "tokenizer.json"):
            return made(cls, _from_json, folder / "tokenizer.json")
        if is_there(folder / "vocab.json") and is_there(folder / "merges.txt"):
            return made(cls, _from_vocab_and_merges, folder)
        raise ConfigError(
            f"no tokenizer in {folder}: expected tokenizer.json, or vocab.json with merges.txt. "
            "Copy the tokenizer files of the model there."
        )

    def encode(self, text: str) -> list[int]:
        """Ids of plain text. Strings that look like special tokens stay text. Raises OptionError on lone surrogates."""
        check_unicode(text)
        ids: list[int] = self._text.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids; special tokens and ids without text are skipped, broken UTF-8 becomes U+FFFD."""
        return b"".join(self._bytes.get(int(i), b"") for i in ids).decode("utf-8", "replace")

    def token_bytes(self, index: int) -> bytes:
        """The bytes of one id; empty for special tokens and for rows that have no text."""
        return self._bytes.get(index, b"")

    def incremental(self) -> Incremental:
        """A fresh decoder for one stream of ids."""
        return Incremental(self)

    def special(self, name: str) -> int:
        """Id of a special token by its string, e.g. ``special(IM_START)``. Raises ConfigError when there is none."""
        if name not in self._specials:
            raise ConfigError(
                f"the tokenizer has no special token {name!r}; it has {', '.join(sorted(self._specials))}"
            )
        return self._specials[name]

    def has_special(self, name: str) -> bool:
        """True if there is a special token of this string."""
        return name in self._specials

    def check_fits(self, cfg: ThinkerConfig) -> None:
        """Refuse a tokenizer whose ids are not those of the model. Raises ConfigError."""
        vocab = cfg.text.vocab_size
        highest = max(self._bytes, default=0)
        if highest >= vocab:
            raise ConfigError(
                f"the tokenizer has ids up to {highest}, and the model {vocab} rows for them. "
                "Take the tokenizer that belongs to this checkpoint."
            )
        ids = cfg.ids
        wanted = {
            AUDIO: ids.audio,
            IMAGE: ids.image,
            VIDEO: ids.video,
            AUDIO_BOS: ids.audio_start,
            AUDIO_EOS: ids.audio_end,
            VISION_BOS: ids.vision_start,
            VISION_EOS: ids.vision_end,
        }
        for name in (IM_START, IM_END):
            self.special(name)
        for name, expected in wanted.items():
            if self._specials.get(name, expected) != expected:
                raise ConfigError(
                    f"the tokenizer gives {name} the id {self._specials[name]}, and config.json {expected}. "
                    "Take the tokenizer that belongs to this checkpoint."
                )

    def special_ids(self) -> frozenset[int]:
        """Every id that text can never reach."""
        return frozenset(self._specials.values())


class Incremental:
    """Decodes one stream of ids: every delta is valid Unicode, and the deltas join to ``decode`` of all ids.

    Bytes of an unfinished character wait for the next id; ``flush`` at the end turns a rest into U+FFFD.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, index: int) -> str:
        """The text that this id completes; empty while a character is unfinished."""
        return self._decoder.decode(self._tokenizer.token_bytes(int(index)))

    def flush(self) -> str:
        """End of the stream: what waits becomes U+FFFD. The decoder is fresh afterwards."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


def bpe_backend(vocab: dict[str, int], merges: list[tuple[str, str]], *, ignore_merges: bool) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=ignore_merges))
    backend.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(SPLIT_PATTERN), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def made(
    kind: Callable[[tokenizers.Tokenizer], Tokenizer], read: Callable[[Path], tokenizers.Tokenizer], path: Path
) -> Tokenizer:
    """A tokenizer of files. Whatever the library says of them is a ConfigError: it raises bare Exceptions, and panics
    of its own language, which derive from BaseException."""
    try:
        return kind(read(path))
    except (ConfigError, KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        raise ConfigError(
            f"{path} makes no tokenizer ({type(error).__name__}: {error}). Fetch the model's tokenizer files again."
        ) from None


def _read(path: Path) -> str:
    data = read_file(path, MAX_FILE_BYTES, lambda _, why: ConfigError(why))
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text; expected a tokenizer file. Fetch it again.") from None


def _parse(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON ({error}). Fetch it again.") from None


def _from_json(path: Path) -> tokenizers.Tokenizer:
    # The library reports every fault as a bare Exception, so the shape of the file is checked before it sees it.
    text = _read(path)
    state = _parse(text, path)
    model = state.get("model") if isinstance(state, dict) else None
    if not isinstance(model, dict) or model.get("type") != "BPE" or not isinstance(model.get("vocab"), dict):
        raise ConfigError(
            f"{path} holds no BPE model; expected the tokenizer.json of a Qwen2-type model. Fetch it again."
        )
    if not isinstance(model.get("merges"), list) or not isinstance(state.get("added_tokens"), list):
        raise ConfigError(f"{path} lacks 'merges' or 'added_tokens'; it seems damaged. Fetch it again.")
    return tokenizers.Tokenizer.from_str(text)


def _from_vocab_and_merges(folder: Path) -> tokenizers.Tokenizer:
    """The older layout: vocab.json, merges.txt, and the added tokens in one of two small files."""
    vocab = _parse(_read(folder / "vocab.json"), folder / "vocab.json")
    lines = _read(folder / "merges.txt").splitlines()
    pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    if not isinstance(vocab, dict) or any(len(pair) != 2 for pair in pairs):
        raise ConfigError(f"vocab.json or merges.txt in {folder} is damaged. Fetch the model's tokenizer files again.")
    backend = bpe_backend(vocab, [(left, right) for left, right in pairs], ignore_merges=False)
    for name, index, special in sorted(_added_tokens(folder), key=lambda row: row[1]):
        backend.add_special_tokens([AddedToken(name, special=special, normalized=False)])
        if backend.token_to_id(name) != index:
            raise ConfigError(
                f"special token {name!r} should have id {index} but the vocabulary gives {backend.token_to_id(name)}; "
                f"vocab.json and the added tokens in {folder} do not belong together."
            )
    return backend


def _added_tokens(folder: Path) -> list[tuple[str, int, bool]]:
    """(string, id, special) of every added token, from tokenizer_config.json or added_tokens.json."""
    path = folder / "tokenizer_config.json"
    table = _parse(_read(path), path).get("added_tokens_decoder") if is_there(path) else None
    if table:
        return [(row["content"], int(index), bool(row.get("special", True))) for index, row in table.items()]
    path = folder / "added_tokens.json"
    if is_there(path):
        return [(name, int(index), True) for name, index in _parse(_read(path), path).items()]
    raise ConfigError(
        f"no added tokens in {folder}: expected tokenizer_config.json or added_tokens.json beside vocab.json"
    )


@lru_cache(maxsize=1)
def _symbol_to_byte() -> dict[str, int]:
    """The byte-level alphabet (from GPT-2): printable Latin-1 stands for itself, other bytes for U+0100 onwards."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(plain)]
    table = {chr(byte): byte for byte in plain}
    table.update({chr(256 + place): byte for place, byte in enumerate(others)})
    return table


def _byte_table(vocab: dict[str, int], specials: dict[str, int]) -> dict[int, bytes]:
    """id -> bytes for every ordinary token. Raises ConfigError when the vocabulary is not byte-level."""
    alphabet = _symbol_to_byte()
    table: dict[int, bytes] = {}
    for token, index in vocab.items():
        if token in specials:
            continue
        try:
            table[index] = bytes(alphabet[symbol] for symbol in token)
        except KeyError:
            raise ConfigError(
                f"token {token!r} (id {index}) is not byte-level; expected a Qwen2-type tokenizer"
            ) from None
    return table
