"""The answers of a realtime talk: one of the conversation at a time, and any number beside it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from descant.engine.answer import Answer
from descant.engine.live import LiveSession
from descant.errors import DescantError, RequestError
from descant.server.errors import body_of_error, request_error
from descant.server.realtime_answer import AnswerTerms, RealtimeAnswer
from descant.server.realtime_items import MAX_ITEMS, item_record, message_of_item
from descant.server.realtime_session import MAX_INSTRUCTIONS, Modalities, SessionAudio, SessionPart
from descant.server.schema import checked
from descant.server.tools import read_tool_use
from descant.tools import ToolUse
from descant.types import Message, Text

if TYPE_CHECKING:
    from descant.server.realtime import RealtimeTalk

BESIDE_MOST = 8  # answers beside the conversation's at once
METADATA_MOST = 16


class ResponseWish(SessionPart):
    """One answer, as response.create wishes it; what it leaves out is the session's."""

    conversation: Literal["auto", "none"] = "auto"
    input: Annotated[list[dict[str, Any]], Field(max_length=MAX_ITEMS)] | None = None
    instructions: Annotated[str, Field(max_length=MAX_INSTRUCTIONS)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=2**31)] | Literal["inf"] | None = None
    metadata: Annotated[dict[str, str], Field(max_length=METADATA_MOST)] | None = None
    output_modalities: Annotated[Modalities, Field(min_length=1, max_length=2)] | None = None
    tools: Annotated[list[dict[str, Any]], Field(max_length=128)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    audio: dict[str, Any] | None = None


class RealtimeResponses:
    """active: the answer of the conversation that is being made; beside: those beside it."""

    def __init__(self, talk: RealtimeTalk):
        self.talk = talk
        self.active: RealtimeAnswer | None = None
        self.beside: set[RealtimeAnswer] = set()
        self.sounded = False  # something of this session was spoken: its voice stays

    # ------------------------------------------------------------ client events

    async def create(self, event: dict[str, Any]) -> None:
        """response.create."""
        given = self.talk.dialect.response(event.get("response") or {})
        wish = checked(ResponseWish, given, "response")
        if wish.conversation != "none" and self.active is None:
            await self.talk.input.settle()
        await self.begin(wish)

    async def cancel(self, event: dict[str, Any]) -> None:
        """response.cancel: of the answer that is named, or of the conversation's."""
        name = event.get("response_id")
        for response in [*([self.active] if self.active else []), *self.beside]:
            if response.id == name or (name is None and response is self.active):
                await self.stop(response, "client_cancelled")
                return
        raise RequestError(400, "response_cancel_not_active", "no answer is being made")

    # ------------------------------------------------------------ answers

    async def begin_by_turn(self) -> None:
        """A turn is over: it is answered, unless an answer is being made. What is wrong is told."""
        if self.active is not None:
            return
        try:
            await self.begin(ResponseWish())
        except DescantError as error:
            await self.talk.send("error", body_of_error(request_error(error)))

    async def begin(self, wish: ResponseWish) -> None:
        """Ask for an answer. Raises RequestError and what the engine says."""
        talk = self.talk
        if not talk.converses:
            raise RequestError(400, "invalid_state", "a transcription session gives no answers")
        terms, use = self.terms_of(wish)
        if terms.kept and self.active is not None:
            message = "an answer is being made; cancel it first"
            raise RequestError(400, "conversation_already_has_active_response", message)
        if not terms.kept and len(self.beside) >= BESIDE_MOST:
            raise RequestError(429, "too_many_responses", f"{BESIDE_MOST} answers are being made beside the talk")
        if terms.spoken:
            await talk.speak_up()
        live = await talk.session()
        voice = talk.state.voice(terms.voice) if terms.spoken else None
        options = {"max_tokens": terms.most_tokens, "voice": voice, "speech": terms.spoken, "tools": use}
        ask = await asyncio.to_thread(self.question, live, wish)
        answer: Answer = await asyncio.to_thread(partial(ask, instructions=wish.instructions, **options))
        response = RealtimeAnswer(talk, answer, terms)
        talk.input.rest()
        if terms.kept:
            self.active = response
        else:
            self.beside.add(response)
        response.task = talk.start(self._tell(response))

    def question(self, live: LiveSession, wish: ResponseWish) -> Any:
        """The method of the live session that asks: of the conversation, or beside it."""
        own = wish.input is not None
        if not own and wish.conversation == "auto":
            return partial(live.respond, go_on=True)
        items = self.talk.items
        if wish.input is None:
            return partial(live.respond_beside, [item.key for item in items.all if item.key is not None])
        coding = self.talk.config.audio.input.format.coding
        messages: list[int | Message] = []
        for place, given in enumerate(wish.input):
            where = f"response.input[{place}]"
            if given.get("type") == "item_reference":
                key = items.get(given.get("id"), where).key
                messages += [] if key is None else [key]
            else:
                messages.append(message_of_item(item_record(given), coding, where))
        return partial(live.respond_beside, messages)

    def terms_of(self, wish: ResponseWish) -> tuple[AnswerTerms, ToolUse | None]:
        """The terms of an answer: the session's, but for what is wished."""
        config = self.talk.config
        audio = checked(SessionAudio, wish.audio, "response.audio") if wish.audio else None
        out = config.audio.output if audio is None else audio.output
        named = wish.audio or {}
        voice = out.voice if "voice" in (named.get("output") or {}) else config.audio.output.voice
        name = voice if isinstance(voice, str) else voice.id
        if self.sounded and wish.conversation == "auto" and name != config.voice:
            raise voice_fixed()
        form = out.format if "format" in (named.get("output") or {}) else config.audio.output.format
        spoken = "audio" in (wish.output_modalities or config.output_modalities) and self.talk.state.omni.speaks
        most = config.most_tokens if wish.max_output_tokens is None else wish.max_output_tokens
        use = None
        if wish.tools is not None or wish.tool_choice is not None:
            tools = config.tools if wish.tools is None else wish.tools
            choice = config.tool_choice if wish.tool_choice is None else wish.tool_choice
            use = read_tool_use(tools, choice, None, "response.")
        kept = wish.conversation == "auto"
        beside = not kept or wish.input is not None
        most = most if isinstance(most, int) else None
        return AnswerTerms(spoken, kept, beside, form, config.audio.output.speed, name, wish.metadata, most), use

    async def interrupt(self) -> None:
        """The user speaks: the answer that is being made, or still heard, ends."""
        line = self.talk.channel.line
        played = None if line is None else line.clear()  # at once; what it means is told after it
        if self.active is not None:
            await self.stop(self.active, "turn_detected")
        await self.talk.cut_off(played)

    async def stop(self, response: RealtimeAnswer, reason: str) -> None:
        """End an answer before its end, and wait until that is told."""
        response.reason = reason
        if response is self.active and self.talk.live is not None:
            await asyncio.to_thread(self.talk.live.cancel)
        response.answer.cancel()
        if response.task is not None:
            await asyncio.wait([response.task])

    async def heard(self, patience_s: float) -> None:
        """Wait until the answer that is being made can be heard, or is over; no longer than so many seconds."""
        await asyncio.sleep(0)  # the turn is answered after it has become an item
        if self.active is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self.active.heard.wait()

    async def _tell(self, response: RealtimeAnswer) -> None:
        """One answer, told to its end; from there on the next one may begin."""
        talk = self.talk
        await response.tell()
        if response.finished is not None:
            talk.state.figures.add(response.finished)
        self.sounded = self.sounded or response.samples > 0
        if response is self.active:
            self.active = None
        self.beside.discard(response)
        await response.tell_end()
        if response.terms.kept:
            await self._keep(response)
            talk.input.await_user(response.unplayed_s(asyncio.get_running_loop().time()))
        if talk.channel.line is not None:
            await talk.channel.line.ended(response)

    async def _keep(self, response: RealtimeAnswer) -> None:
        """An answer to messages of its own joins the conversation by its text."""
        item = response.item
        if item is None or not response.terms.beside or self.talk.live is None:
            return
        said = Message("assistant", (Text(response.text),))
        item.key = await asyncio.to_thread(self.talk.live.insert, said)


def voice_fixed() -> RequestError:
    """The refusal of another voice, once something was spoken."""
    message = "the voice stays as it is once something was spoken; open another session"
    return RequestError(400, "cannot_update_voice", message, param="session.audio.output.voice")
