"""The worker's side of a live session: its turns, as rows, between and during its answers.

    settled   [ system, turn, reply, turn, reply, ... ]     what was said so far; each reply closed
    draft     the turn that is being made                   as its user's side has laid it out last

The law: at any time the context holds the rows of the whole conversation, as if given at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from descant.engine.context import Context
from descant.engine.session import Models, Request, Session, listening
from descant.errors import SessionError
from descant.inputs.tokenizer import Tokenizer
from descant.tokens import NO_TOKENS, PromptTokens, concatenate, text_tokens

FULL = 0.75  # of the context: how much a conversation that has outgrown it keeps, so that not every turn drops one


@dataclass
class Talk:
    """limit: tokens of context; drop: whether the oldest turns make room, or the answer is refused.
    request: what its answers have in common."""

    models: Models
    context: Context
    request: Request
    system: PromptTokens
    closing: PromptTokens
    limit: int
    drop: bool = True
    settled: list[PromptTokens] = field(default_factory=list)
    draft: PromptTokens = NO_TOKENS
    replies: list[list[int]] = field(default_factory=list)  # the ids of each reply
    answering: int = 0  # the number of the answer that was asked and has not ended
    last: int = 0  # and of the one that can still be cut

    def listen(self) -> Session:
        """The session in which the next turn is read."""
        return listening(self.models, self.request, self.context)

    def lay(self) -> None:
        """Put the rows of the conversation into the context. What is said before an answer has ended must wait."""
        self.context.set_tokens(concatenate([self.system, *self.settled, NO_TOKENS if self.answering else self.draft]))

    def hear(self, draft: PromptTokens) -> None:
        """The turn that is being made has changed."""
        self.draft = draft
        if not self.answering:
            self.lay()

    def ask(self, number: int, turn: PromptTokens, reply: int) -> int:
        """The turn is complete and ``reply`` tokens may answer it; returns how many old turns were dropped for it.

        SessionError when it does not fit; then the turn is forgotten, and the conversation goes on without it. What
        comes next is not laid behind a turn that waits for its answer.
        """
        self.draft, self.last = NO_TOKENS, 0
        kept, dropped = self.settled, 0

        def size() -> int:
            return len(self.system) + sum(map(len, kept)) + len(turn) + reply

        goal = self.limit if size() <= self.limit else int(FULL * self.limit)
        while self.drop and kept and size() > goal:
            kept, dropped = kept[2:], dropped + 1
        if size() > self.limit:
            self.lay()
            why = "even alone" if self.drop else f"after {len(self.replies)} turns"
            raise SessionError(
                f"a turn of {len(turn)} tokens and an answer of up to {reply} do not fit a context of {self.limit} "
                f"tokens {why}; say less, lower max_tokens, or open a session with more context"
            )
        self.settled = [*kept, turn]
        self.answering = number
        del self.replies[:dropped]
        self.lay()
        return dropped

    def refused(self) -> None:
        """The turn that was asked is forgotten, as if it had never been."""
        self.settled.pop()
        self.answering = 0
        self.lay()

    def answered(self, session: Session) -> None:
        """An answer has ended, in whatever way. A turn whose answer failed is forgotten, with what was read of it."""
        number, self.answering = self.answering, 0
        if session.error is not None:
            self.context.free()
            self.refused()
            return
        self.last = number
        ids = session.thought.ids
        self.context.append_reply(ids, session.kept or [])
        self._reply(ids)

    def withdraw(self) -> None:
        """The turn that was asked will not be answered: only what was said is kept."""
        self.last, self.answering = self.answering, 0
        self._reply([])

    def cut(self, number: int, characters: int) -> None:
        """Of the last reply, to the answer of that number, only so many characters were heard. Others stay."""
        if number != self.last:
            return
        self.settled.pop()
        ids = self.replies.pop()
        self._reply(ids[: tokens_within(self.models.tokenizer, ids, characters)])

    def _reply(self, ids: list[int]) -> None:
        """What was answered to the last turn."""
        self.settled.append(concatenate([text_tokens(ids), self.closing]))
        self.replies.append(list(ids))
        self.lay()


def tokens_within(tokenizer: Tokenizer, ids: list[int], characters: int) -> int:
    """How many leading ids say no more than ``characters``; never half of a character."""
    writer, length, kept = tokenizer.incremental(), 0, 0
    for place, index in enumerate(ids, start=1):
        text = writer.push(index)
        length += len(text)
        if length > characters:
            break
        if text:
            kept = place
    return kept
