"""The worker's side of a live session: its messages, as tokens, between and during its answers.

    settled   [ system, message, reply, message, ... ]      what was said so far; each reply opened and closed
    draft     the turn that is being made                   as its user's side has laid it out last

Messages can be put in anywhere, taken out and cut. The law: at any time the context holds the tokens of the whole
conversation, as if given at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from descant.engine.context import Context
from descant.engine.session import AnswerSettings, Session
from descant.errors import SessionError
from descant.inputs.tokenizer import TOOL_CALL, Tokenizer
from descant.tokens import NO_TOKENS, PromptTokens, concatenate, text_tokens

DROP_TO_SHARE = 0.75  # of the context: what is kept when old turns are dropped, so that not every turn drops one


@dataclass(frozen=True)
class Entry:
    """One message. key: its name; of a reply, the number of its answer. tokens: from its opening to its closing.

    ids: of a reply that was written here (None: the message was given).
    """

    key: int
    tokens: PromptTokens = field(repr=False)
    ids: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Arrangement:
    """The order in which messages stand from now on, by their keys; what is not named is gone, and what is not there
    is left out. added: messages that are new, the turn that was being made among them if ``commits``; system: the
    system turn (None: as it is)."""

    order: tuple[int, ...]
    added: tuple[Entry, ...] = ()
    system: PromptTokens | None = field(default=None, repr=False)
    commits: bool = False


@dataclass
class Conversation:
    """opening, closing: around a reply. max_tokens: of context; drop: whether the oldest turns make room, or the answer
    is refused."""

    tokenizer: Tokenizer
    context: Context
    system: PromptTokens
    opening: PromptTokens
    closing: PromptTokens
    max_tokens: int
    drop: bool = True
    settled: list[Entry] = field(default_factory=list)
    draft: PromptTokens = NO_TOKENS
    answering: int = 0  # the number of the answer that was asked and has not ended
    asked: int = 0  # the key of the turn that it answers (0: nothing was said anew)
    asked_system: PromptTokens | None = None  # the system turn of this answer alone
    waiting: list[Callable[[], None]] = field(default_factory=list)  # changes that come while an answer is made

    @property
    def replies(self) -> int:
        """Replies that the conversation holds."""
        return sum(entry.ids is not None for entry in self.settled)

    def tokens(self) -> PromptTokens:
        """All that is to be read now. What is said before an answer has ended must wait."""
        before = self.system if self.asked_system is None else self.asked_system
        after = self.opening if self.answering else self.draft
        return concatenate([before, *(entry.tokens for entry in self.settled), after])

    def update_tokens(self) -> None:
        """Put the conversation into the context."""
        self.context.set_tokens(self.tokens())

    def update_draft(self, draft: PromptTokens) -> None:
        """The turn that is being made has changed."""
        self.draft = draft
        if not self.answering:
            self.update_tokens()

    def arrange(self, new: Arrangement) -> None:
        """Put messages in, take some out, or change the system turn; while an answer is made, once it has ended."""
        if new.commits:
            self.draft = NO_TOKENS
        if self.answering:
            self.waiting.append(lambda: self.arrange(replace(new, commits=False)))
            return
        known = {entry.key: entry for entry in (*self.settled, *new.added)}
        self.settled = [known[key] for key in new.order if key in known]
        self.system = self.system if new.system is None else new.system
        self.update_tokens()

    def ask(self, number: int, turn: Entry | None, max_reply: int, system: PromptTokens | None = None) -> int:
        """At most ``max_reply`` tokens answer what was said, and ``turn`` at its end (None: nothing is new); returns
        how many old turns were dropped. system: the system turn of this answer alone.

        SessionError when it does not fit; then the turn is forgotten, and the conversation goes on without it. What
        comes next is not laid behind a turn that waits for its answer.
        """
        if turn is not None:
            self.draft = NO_TOKENS
        kept = [*self.settled, *([] if turn is None else [turn])]
        dropped = 0
        beside = len(self.system if system is None else system) + len(self.opening) + max_reply

        def size() -> int:
            return beside + sum(len(entry.tokens) for entry in kept)

        goal = self.max_tokens if size() <= self.max_tokens else int(DROP_TO_SHARE * self.max_tokens)
        while self.drop and len(kept) > 1 and size() > goal:
            kept = without_oldest(kept)
            dropped = dropped + 1
        if size() > self.max_tokens:
            self.update_tokens()
            why = "even alone" if self.drop else f"after {self.replies} turns"
            last = 0 if not kept else len(kept[-1].tokens) + len(self.opening)
            raise SessionError(
                f"a turn of {last} tokens and an answer of up to {max_reply} do not fit a context of "
                f"{self.max_tokens} tokens {why}; say less, lower max_tokens, or open a session with more context"
            )
        self.settled = kept
        self.answering = number
        self.asked = 0 if turn is None else turn.key
        self.asked_system = system
        self.update_tokens()
        return dropped

    def most_tokens(self, settings: AnswerSettings) -> tuple[int, int]:
        """The most that the answer which was asked may come to: tokens of the Thinker, and of the Talker."""
        tokens = len(self.context.tokens)
        read = 0 if self.context.talker_kv is None else tokens  # spoken or not
        spoken = 0 if settings.voice is None else 1 + settings.speech.max_tokens
        return tokens + settings.text.max_tokens, read + spoken

    def forget_turn(self) -> None:
        """The turn that was asked is forgotten, as if it had never been."""
        self.settled = [entry for entry in self.settled if entry.key != self.asked]
        self._rest()

    def end_answer(self, session: Session) -> None:
        """An answer has ended, in whatever way. A turn whose answer failed is forgotten, with what was read of it."""
        if session.error is not None:
            self.context.free()
            self.forget_turn()
            return
        ids = session.text.ids
        self.context.append_reply(ids, session.reply_states or [])
        self.settled.append(self._reply(self.answering, ids))
        self._rest()

    def withdraw(self) -> None:
        """The turn that was asked will not be answered: only what was said is kept."""
        self.settled.append(self._reply(self.answering, []))
        self._rest()

    def truncate_reply(self, number: int, characters: int) -> None:
        """Truncate the reply of answer ``number`` to its first ``characters``, if it is still there."""
        if self.answering:
            self.waiting.append(lambda: self.truncate_reply(number, characters))
            return
        for place, entry in enumerate(self.settled):
            if entry.key == number and entry.ids is not None:
                self.settled[place] = self._reply(number, ids_within(self.tokenizer, entry.ids, characters))
                self.update_tokens()

    def _reply(self, number: int, ids: Iterable[int]) -> Entry:
        """A reply, opened and closed."""
        written = tuple(ids)
        return Entry(number, concatenate([self.opening, text_tokens(written), self.closing]), written)

    def _rest(self) -> None:
        """No answer is made any more: what was to change meanwhile changes now."""
        self.answering = 0
        self.asked = 0
        self.asked_system = None
        self.update_tokens()
        waiting, self.waiting = self.waiting, []
        for change in waiting:
            change()


def without_oldest(entries: Sequence[Entry]) -> list[Entry]:
    """All messages but the oldest turn: its message, and what was replied to it."""
    rest = list(entries[1:])
    while len(rest) > 1 and rest[0].ids is not None:
        rest.pop(0)
    return rest


def ids_within(tokenizer: Tokenizer, ids: Sequence[int], characters: int) -> Sequence[int]:
    """The leading ids that say no more than ``characters``, and the calls of tools behind them, which were made."""
    begin = tokenizer.special(TOOL_CALL) if tokenizer.has_special(TOOL_CALL) else -1
    spoken = ids.index(begin) if begin in ids else len(ids)
    return [*ids[: tokens_within(tokenizer, ids[:spoken], characters)], *ids[spoken:]]


def tokens_within(tokenizer: Tokenizer, ids: Sequence[int], characters: int) -> int:
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
