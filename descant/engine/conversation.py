"""The worker's side of a live session: its turns, as tokens, between and during its answers.

    settled   [ system, turn, reply, turn, reply, ... ]     what was said so far; each reply closed
    draft     the turn that is being made                   as its user's side has laid it out last

The law: at any time the context holds the tokens of the whole conversation, as if given at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from descant.engine.context import Context
from descant.engine.session import Session
from descant.errors import SessionError
from descant.inputs.tokenizer import Tokenizer
from descant.tokens import NO_TOKENS, PromptTokens, concatenate, text_tokens

DROP_TO_SHARE = 0.75  # of the context: what is kept when old turns are dropped, so that not every turn drops one


@dataclass
class Conversation:
    """max_tokens: of context; drop: whether the oldest turns make room, or the answer is refused."""

    tokenizer: Tokenizer
    context: Context
    system: PromptTokens
    closing: PromptTokens
    max_tokens: int
    drop: bool = True
    settled: list[PromptTokens] = field(default_factory=list)
    draft: PromptTokens = NO_TOKENS
    replies: list[list[int]] = field(default_factory=list)  # the ids of each reply
    answering: int = 0  # the number of the answer that was asked and has not ended
    last_answer: int = 0  # and of the one whose reply can still be truncated

    def update_tokens(self) -> None:
        """Put the conversation into the context. What is said before an answer has ended must wait."""
        draft = NO_TOKENS if self.answering else self.draft
        self.context.set_tokens(concatenate([self.system, *self.settled, draft]))

    def update_draft(self, draft: PromptTokens) -> None:
        """The turn that is being made has changed."""
        self.draft = draft
        if not self.answering:
            self.update_tokens()

    def ask(self, number: int, turn: PromptTokens, max_reply: int) -> int:
        """The turn is complete and at most ``max_reply`` tokens answer it; returns how many old turns were dropped.

        SessionError when it does not fit; then the turn is forgotten, and the conversation goes on without it. What
        comes next is not laid behind a turn that waits for its answer.
        """
        self.draft = NO_TOKENS
        self.last_answer = 0
        kept = self.settled
        dropped = 0

        def size() -> int:
            return len(self.system) + sum(map(len, kept)) + len(turn) + max_reply

        goal = self.max_tokens if size() <= self.max_tokens else int(DROP_TO_SHARE * self.max_tokens)
        while self.drop and kept and size() > goal:
            kept = kept[2:]
            dropped = dropped + 1
        if size() > self.max_tokens:
            self.update_tokens()
            why = "even alone" if self.drop else f"after {len(self.replies)} turns"
            raise SessionError(
                f"a turn of {len(turn)} tokens and an answer of up to {max_reply} do not fit a context of "
                f"{self.max_tokens} tokens {why}; say less, lower max_tokens, or open a session with more context"
            )
        self.settled = [*kept, turn]
        self.answering = number
        del self.replies[:dropped]
        self.update_tokens()
        return dropped

    def forget_turn(self) -> None:
        """The turn that was asked is forgotten, as if it had never been."""
        self.settled.pop()
        self.answering = 0
        self.update_tokens()

    def end_answer(self, session: Session) -> None:
        """An answer has ended, in whatever way. A turn whose answer failed is forgotten, with what was read of it."""
        number = self.answering
        self.answering = 0
        if session.error is not None:
            self.context.free()
            self.forget_turn()
            return
        self.last_answer = number
        ids = session.text.ids
        self.context.append_reply(ids, session.reply_states or [])
        self._append_reply(ids)

    def withdraw(self) -> None:
        """The turn that was asked will not be answered: only what was said is kept."""
        self.last_answer = self.answering
        self.answering = 0
        self._append_reply([])

    def truncate_reply(self, number: int, characters: int) -> None:
        """Truncate the reply of answer ``number`` to its first ``characters``, if it was the last answer."""
        if number != self.last_answer:
            return
        self.settled.pop()
        ids = self.replies.pop()
        self._append_reply(ids[: tokens_within(self.tokenizer, ids, characters)])

    def _append_reply(self, ids: list[int]) -> None:
        """Close the last turn with what was answered to it."""
        self.settled.append(concatenate([text_tokens(ids), self.closing]))
        self.replies.append(list(ids))
        self.update_tokens()


def tokens_within(tokenizer: Tokenizer, ids: list[int], characters: int) -> int:
    """Count the leading ids that say no more than ``characters``; never half of a character."""
    writer = tokenizer.incremental()
    length = 0
    kept = 0
    for place, index in enumerate(ids, start=1):
        text = writer.push(index)
        length += len(text)
        if length > characters:
            break
        if text:
            kept = place
    return kept
