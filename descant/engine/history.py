"""A live session's conversation as its user knows it: which messages there are, and in which order.

The messages themselves are the worker's (`engine/conversation.py`), which may drop the oldest to make room.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from descant.engine.answer import AnswerRecord
from descant.engine.conversation import Arrangement, Entry
from descant.errors import OptionError, SessionError, shortened
from descant.inputs.turn import TurnFormatter
from descant.tokens import PromptTokens, concatenate
from descant.types import Message, Text


@dataclass
class GivenReply:
    """An answer of the conversation. kept: characters of it that were not cut off."""

    record: AnswerRecord
    kept: int = sys.maxsize

    @property
    def text(self) -> str:
        return self.record.text[: self.kept]


@dataclass
class History:
    """order: the keys of all messages and answers; replies: the answers, by key.

    given: the messages, by key, as long as the worker holds them.
    """

    order: list[int] = field(default_factory=list)
    replies: dict[int, GivenReply] = field(default_factory=dict)
    given: WeakValueDictionary[int, Entry] = field(default_factory=WeakValueDictionary)

    def place_after(self, key: int | None) -> int:
        """The place behind a message (None: the end; 0: the beginning). Raises OptionError."""
        if key is None:
            return len(self.order)
        return self._place_of(key) + 1 if key != 0 else 0

    def put(self, entry: Entry, place: int) -> Arrangement:
        """A new message stands at a place."""
        self.order.insert(place, entry.key)
        self.given[entry.key] = entry
        return Arrangement(tuple(self.order), (entry,))

    def answered_by(self, record: AnswerRecord) -> None:
        """An answer stands at the end."""
        self.order.append(record.number)
        self.replies[record.number] = GivenReply(record)

    def take_out(self, key: int) -> Arrangement:
        """A message is gone. Raises OptionError."""
        del self.order[self._place_of(key)]
        self.replies.pop(key, None)
        return Arrangement(tuple(self.order))

    def copy(self, other: History, formatter: TurnFormatter) -> Arrangement:
        """All messages of another conversation that are still held, its answers by their texts. Raises SessionError
        where there are messages already."""
        if self.order:
            raise SessionError("something was said in this session already; begin with another's messages before that")
        held = [key for key in other.order if key in other.replies or key in other.given]
        entries = tuple(Entry(key, other._tokens_of(key, formatter)) for key in held)
        for entry in entries:
            entry.tokens.hash_media()
            self.put(entry, len(self.order))
        return Arrangement(tuple(self.order), entries)

    def reply(self, key: int) -> GivenReply:
        """An answer. Raises OptionError."""
        if key not in self.replies:
            raise OptionError(f"key={shortened(key)} is of no answer of this conversation")
        return self.replies[key]

    def tokens(self, messages: Sequence[int | Message], formatter: TurnFormatter) -> PromptTokens:
        """Messages by their keys, and messages of one's own, one after another. Raises SessionError where one is not
        held any more, and what is wrong with media."""
        return concatenate([self._tokens_of(message, formatter) for message in messages])

    def _place_of(self, key: int) -> int:
        if key not in self.order:
            raise OptionError(f"key={shortened(key)} is of no message of this conversation")
        return self.order.index(key)

    def _tokens_of(self, message: int | Message, formatter: TurnFormatter) -> PromptTokens:
        if isinstance(message, Message):
            return formatter.message(message.role, message.content)
        if (reply := self.replies.get(message)) is not None:
            return formatter.message("assistant", [*([Text(reply.text)] if reply.text else []), *reply.record.calls])
        if (entry := self.given.get(message)) is None:
            raise SessionError(f"message {message} is not held any more: it was deleted, or made room for others")
        return entry.tokens
