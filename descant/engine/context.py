"""One conversation's tokens: those that the caches of both decoders hold, and those that are still to be read.

    tokens      [ system | user ... assistant | reply | user ... ]      what the caches are to hold
    thinker_kv  ==================================>                     read by the Thinker
    talker_kv   =====================>                                  read by the Talker, token for token behind it

While it answers, the Thinker goes on behind the tokens with its reply, and the Talker with codes. Afterwards the Talker
forgets its codes, and reads the reply as part of the prompt: its states (hidden + embedding) were kept, so that nothing
of an earlier turn passes through the Thinker again.

Axes: T tokens, D the Thinker's width, G tokens of a reply.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from descant.nn.pages import PageTable
from descant.tokens import NO_TOKENS, MediaSpan, PromptTokens, filled_rows, page_keys, unchanged


class Context:
    """One conversation's share of the stores. talker_kv None: it is never spoken. tenant: whose pages may be shared."""

    def __init__(self, thinker_kv: PageTable, talker_kv: PageTable | None, tenant: str = ""):
        self.thinker_kv = thinker_kv
        self.talker_kv = talker_kv
        self.tenant = tenant
        self.tokens = NO_TOKENS
        self.reply_states: list[Tensor] = []  # (D,) each: what the Talker is behind with, from ``talker_kv.length`` on
        self._keys: list[bytes] = []  # of the first full pages
        self._features: dict[int, Tensor] = {}  # by the first index of a span: encoded, and not yet read to their end

    @property
    def behind(self) -> int:
        """Tokens that the Thinker has read and the Talker has not."""
        if self.talker_kv is None:
            return 0
        return max(0, self.thinker_kv.length - self.talker_kv.length)  # behind a prompt it reads a row of its own

    @property
    def unread(self) -> int:
        """Tokens that one of the two has not read."""
        return len(self.tokens) - self.thinker_kv.length + self.behind

    @property
    def encoded(self) -> int:
        """Encoder rows that are held."""
        return sum(len(rows) for rows in list(self._features.values()))

    @property
    def tables(self) -> list[PageTable]:
        return [self.thinker_kv] if self.talker_kv is None else [self.thinker_kv, self.talker_kv]

    def set_tokens(self, tokens: PromptTokens) -> None:
        """Replace the tokens; what was read of the old ones is forgotten from the first difference on."""
        kept = unchanged(self.tokens, tokens)
        self.tokens = tokens
        self._features = {first: features for first, features in self._features.items() if first < kept}
        self._rewind(kept)

    def reopen(self) -> None:
        """Have the last token read again, if it was read already: its logits begin the answer."""
        self._rewind(len(self.tokens) - 1)

    def _rewind(self, length: int) -> None:
        for table in self.tables:
            table.truncate(min(table.length, length))
        del self.reply_states[max(0, self.behind) :]
        del self._keys[length // self.thinker_kv.store.size :]

    def append_reply(self, ids: Sequence[int], states: Sequence[Tensor]) -> None:
        """End a reply: what the Thinker read of it joins the tokens; states (D,) of each are for the Talker."""
        prompt = len(self.tokens)
        read = self.thinker_kv.length - len(self.tokens)
        if read < 0:  # it was over before it began, and the Talker may still be behind with the reply before it
            return
        self.tokens = self.tokens.with_reply(ids[:read])
        if self.talker_kv is not None:
            self.talker_kv.truncate(min(prompt, self.talker_kv.length))
            self.reply_states = list(states[:read])

    def heard(self, tokens: int) -> None:
        """Count reply tokens that the Talker has read."""
        assert self.talker_kv is not None
        self.talker_kv.advance(tokens)
        del self.reply_states[:tokens]

    def free(self) -> None:
        """Give everything back; the tokens can be read again. Doing it twice is harmless."""
        for table in self.tables:
            table.free()
        self._features.clear()
        self.reply_states.clear()

    # ---------------------------------------------------------------- reading

    def spans(self, start: int, stop: int) -> list[MediaSpan]:
        """The media that fill tokens of start .. stop - 1."""
        return [span for span in self.tokens.spans if span.first < stop and span.last >= start]

    def unseen(self, start: int, stop: int) -> list[MediaSpan]:
        """Those of them that are not encoded: a span is encoded when its first token is read."""
        return [span for span in self.spans(start, stop) if span.first not in self._features]

    def keep_features(self, spans: Sequence[MediaSpan], features: Sequence[Tensor]) -> None:
        """Keep what the encoders gave for spans, until their last token is read."""
        self._features.update({span.first: rows for span, rows in zip(spans, features, strict=True)})

    def forget_features(self, stop: int) -> None:
        """Let go of the media that were read to their end, now that ``stop`` tokens are read."""
        for span in self.tokens.spans:
            if span.first in self._features and span.last < stop:
                del self._features[span.first]

    def filled_rows(self, start: int, stop: int) -> tuple[list[Tensor], list[Tensor]]:
        """The tokens of start .. stop - 1 that media fill, and their rows; see ``tokens.filled_rows``."""
        spans = self.spans(start, stop)
        return filled_rows(spans, [self._features[span.first] for span in spans], start, stop)

    # ---------------------------------------------------------------- sharing

    def adopt(self) -> int:
        """Take over what others have read of the same beginning; the last token is always left. Returns how many."""
        if any(table.pages for table in self.tables):
            return 0
        keys = self._page_keys()[: (len(self.tokens) - 1) // self.thinker_kv.store.size]
        shared = min(table.adopt(keys) for table in self.tables)
        for table in self.tables:
            table.truncate(shared)
        return shared

    def publish(self) -> None:
        """Let others adopt the full pages of what was read."""
        for table in self.tables:
            table.publish(self._page_keys())

    def _page_keys(self) -> list[bytes]:
        self._keys += page_keys(self.tokens, self.thinker_kv.store.size, self.tenant.encode(), self._keys)
        return self._keys
