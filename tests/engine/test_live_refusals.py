"""What a live session refuses: a typed error that says what to do, and then everything is as if it had not been tried.

Each case checks all of it: the error, the next answer (that of a session in which it never came), a bystander who is
answered meanwhile (as if alone), and what is left when everybody has gone (nothing).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from torch import Tensor

from descant.engine.engine import Engine
from descant.engine.limits import Limits
from descant.engine.live import LiveSession
from descant.errors import BusyError, DescantError, MediaError, OptionError, SessionError
from descant.tokens import EncoderInput
from descant.types import Image, Text
from tests.engine import rig, talks
from tests.engine.talks import GREY, NOISE, Said
from tests.inputs import media

Act = Callable[[LiveSession], object]
BYSTANDER = rig.request("a bystander", speech=talks.SPEECH)
ALONE = talks.alone(BYSTANDER)


def speak(session: LiveSession) -> None:
    session.add("look: ")
    session.push_audio(NOISE[:9000], 16000)
    session.push_frame(GREY, 0.5)


def go_on(session: LiveSession) -> None:
    session.push_audio(NOISE[9000:16000], 16000)
    session.push_frame(GREY, 1.0)
    session.add("what is it?")


def conversation(misbehave: Act, before: Act = speak, after: Act = go_on, engine: Engine | None = None) -> Said:
    """A turn with something wrong in the middle, beside a bystander; then everybody goes."""
    engine = engine or Engine(talks.MODELS)
    session, bystander = talks.opened(engine), engine.submit(BYSTANDER)
    before(session)
    for _ in range(4):
        engine.worker.step()
    misbehave(session)
    after(session)
    ours, other = talks.served(engine, session.respond(), bystander)
    talks.same(other, ALONE)
    session.close()
    talks.empty(engine)
    return ours


@pytest.fixture(scope="module")
def good() -> Said:
    return conversation(lambda session: None)


def bad_sound(code: str, pcm: object, rate: float = 16000) -> tuple[Act, str]:
    return lambda session: session.push_audio(pcm, rate), code  # type: ignore[arg-type]


def bad_frame(code: str, image: object, at: float = 1.0) -> tuple[Act, str]:
    return lambda session: session.push_frame(image, at), code


BAD: dict[str, tuple[Act, str]] = {
    "NaN": bad_sound("audio.not_finite", NOISE * np.nan),
    "infinite": bad_sound("audio.not_finite", np.array([0, np.inf])),
    "an odd number of bytes": bad_sound("audio.odd_bytes", b"\0\0\0"),
    "a changed rate": bad_sound("audio.rate_changed", NOISE, 24000),
    "a rate that is no number": bad_sound("audio.bad_rate", NOISE, float("nan")),
    "a rate of 0": bad_sound("audio.bad_rate", NOISE, 0),
    "stereo": bad_sound("audio.bad_array", np.zeros((9, 2), np.int16)),
    "a list": bad_sound("audio.bad_array", [0.1, 0.2]),
    "a word": bad_sound("audio.bad_array", "hello"),
    "more than the limit": bad_sound("audio.too_long", NOISE),
    "time running backwards": bad_frame("video.bad_time", GREY, 0.4),
    "a time that is no number": bad_frame("video.bad_time", GREY, float("nan")),
    "a time without end": bad_frame("video.bad_time", GREY, float("inf")),
    "another size": bad_frame("video.size_changed", media.picture(56, 84)),
    "too many frames": bad_frame("video.too_many_frames", GREY, 60.0),
    "grey": bad_frame("image.bad_array", GREY[:, :, 0]),
    "no picture": bad_frame("media.unknown_format", b"hello, world"),
    "a missing file": bad_frame("media.missing", "nowhere.png"),
    "a broken part": (lambda session: session.add(Text("lost"), Image(b"hello, world")), "media.unknown_format"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_and_nothing_else_happens(case: str, good: Said) -> None:
    push, code = BAD[case]

    def misbehave(session: LiveSession) -> None:
        with pytest.raises(MediaError) as caught:
            push(session)
        assert caught.value.code == code and len(str(caught.value)) > 40

    talks.same(conversation(misbehave), good)


WRONG: dict[str, tuple[Act, type[DescantError], str]] = {
    "a part that is none": (lambda session: session.add(7), OptionError, "expected Text"),  # type: ignore[arg-type]
    "no tokens": (lambda session: session.respond(max_tokens=0), OptionError, "max_tokens"),
    "truncate before anything was said": (lambda session: session.truncate(1.0), SessionError, "respond"),
    "seconds that are no number": (lambda session: session.truncate(float("nan")), OptionError, "give seconds"),
    "seconds before the beginning": (lambda session: session.truncate(-1.0), OptionError, "give seconds"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_makes_no_sense_is_refused_and_nothing_else_happens(case: str, good: Said) -> None:
    act, kind, words = WRONG[case]

    def misbehave(session: LiveSession) -> None:
        with pytest.raises(kind, match=words):
            act(session)

    talks.same(conversation(misbehave), good)


def test_respond_twice_is_refused_while_the_first_is_being_made() -> None:
    engine = Engine(talks.MODELS)
    session, bystander = talks.opened(engine), engine.submit(BYSTANDER)
    speak(session)
    first = session.respond()
    for _ in range(5):
        with pytest.raises(SessionError, match="cancel"):
            session.respond()
        engine.worker.step()
    ours, other = talks.served(engine, first, bystander)
    talks.same(ours, conversation(lambda session: None, after=lambda session: None))
    talks.same(other, ALONE)
    go_on(session)
    assert talks.served(engine, session.respond())[0].whole
    session.close()
    talks.empty(engine)


NO_TOKENS: dict[str, Act] = {
    "nothing": lambda session: None,
    "no parts": lambda session: session.add(),
    "no bytes": lambda session: session.push_audio(b"", 16000),
    "no samples": lambda session: session.push_audio(NOISE[:0], 16000),
}


@pytest.mark.parametrize("case", NO_TOKENS)
def test_an_empty_turn_is_refused_and_can_be_filled(case: str) -> None:
    def misbehave(session: LiveSession) -> None:
        NO_TOKENS[case](session)
        with pytest.raises(SessionError, match="nothing to answer"):
            session.respond()

    def shown(session: LiveSession) -> None:
        session.push_frame(GREY, 3.0)  # where no sound was, the first frame begins the turn

    ours = conversation(misbehave, lambda session: None, shown)
    talks.same(ours, conversation(lambda session: None, lambda session: None, shown))


@pytest.mark.parametrize("samples", [1, 319])
def test_sound_too_short_to_be_heard_may_go_on(samples: int) -> None:
    def misbehave(session: LiveSession) -> None:
        with pytest.raises(MediaError) as caught:
            session.respond()
        assert caught.value.code in ("audio.too_short", "audio.empty")

    def short(session: LiveSession) -> None:
        session.push_audio(np.zeros(samples, np.int16), 16000)

    talks.same(conversation(misbehave, short), conversation(lambda session: None, short))


def test_who_finds_the_queue_full_loses_nothing(good: Said) -> None:
    """The turn stays open: it can be asked again, and even goes on."""
    engine = Engine(talks.MODELS, Limits(sessions=1, waiting=1))

    def misbehave(session: LiveSession) -> None:
        waiting = engine.submit(BYSTANDER)
        for _ in range(2):
            with pytest.raises(BusyError, match="wait already") as caught:
                session.respond()
            assert caught.value.retry_s is None and "later" in str(caught.value)  # nothing was measured yet
        waiting.cancel()
        engine.worker.step()

    talks.same(conversation(misbehave, engine=engine), good)


def test_a_turn_that_waits_is_answered_as_it_was_asked(good: Said) -> None:
    """Neither what is said next, nor that all of it was read meanwhile, touches it."""
    engine = Engine(talks.MODELS, Limits(sessions=1))
    other = engine.submit(BYSTANDER)
    engine.worker.step()
    session = talks.opened(engine)
    speak(session)
    go_on(session)
    answer = session.respond()
    session.add("and this is the next turn")
    for _ in range(5):
        engine.worker.step()
        talks.sound(engine)
    ours, _ = talks.served(engine, answer, other)
    talks.same(ours, good)
    session.close()
    talks.empty(engine)


def test_more_sessions_than_there_may_be() -> None:
    engine = Engine(talks.MODELS, Limits(live_sessions=1))
    session = talks.opened(engine)
    with pytest.raises(BusyError, match="close one"):
        talks.opened(engine)
    session.close()
    engine.worker.step()
    talks.opened(engine).close()
    talks.empty(engine)


def test_instructions_longer_than_the_memory() -> None:
    engine = Engine(talks.MODELS)
    with pytest.raises(OptionError, match="shorten"):
        talks.opened(engine, talks.terms(context=10))
    talks.empty(engine)


def test_a_session_that_was_refused_holds_no_place() -> None:
    models = talks.MODELS
    mute = Engine(type(models)(models.thinker, None, None, models.tokenizer, models.stop_ids), Limits(live_sessions=1))
    with pytest.raises(OptionError, match="speech=False"):
        talks.opened(mute)
    talks.empty(mute)


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize("drop", [True, False])
def test_a_turn_larger_than_the_memory_is_refused_and_forgotten(drop: bool) -> None:
    engine = Engine(talks.MODELS)  # an answer that was refused has used up its seed
    session, clean = (talks.opened(engine, talks.terms(context=100, drop=drop, seed=seed)) for seed in (0, 1))
    session.add("x" * 200)
    engine.worker.step()
    (refused,) = talks.served(engine, session.respond())
    assert isinstance(refused.error, SessionError) and "say less" in str(refused.error)
    assert session.truncate(1.0) == ""
    for one in (session, clean):
        one.add("hello")
    talks.same(*talks.served(engine, session.respond(), clean.respond()))
    for one in (session, clean):
        one.close()
    talks.empty(engine)


@pytest.mark.parametrize("drop", [True, False])
def test_a_conversation_that_outgrows_its_memory(drop: bool) -> None:
    engine = Engine(talks.MODELS)
    session = talks.opened(engine, talks.terms(context=130, drop=drop))
    ends = []
    for _ in range(6):
        session.add("tell me of it")
        ends += talks.served(engine, session.respond())
        talks.sound(engine)
        assert len(engine.worker.slots[1].session.context.tokens) <= 130
    if drop:
        assert all(end.whole for end in ends)
    else:
        assert ends[0].whole and isinstance(ends[-1].error, SessionError) and "more context" in str(ends[-1].error)
    session.close()
    talks.empty(engine)


def test_a_conversation_that_the_engine_cannot_hold() -> None:
    engine = Engine(talks.MODELS, Limits(tokens=4000, talker_tokens=60))
    session = talks.opened(engine)
    session.add("x" * 60)
    (refused,) = talks.served(engine, session.respond())
    assert isinstance(refused.error, OptionError) and "lower max_tokens" in str(refused.error)
    session.add("a")
    assert talks.served(engine, session.respond())[0].whole
    session.close()
    talks.empty(engine)


# ---------------------------------------------------------------- content that breaks an encoder


@pytest.mark.parametrize("how", ["raises", "NaN"])
def test_content_that_breaks_an_encoder_harms_one_turn(
    how: str, good: Said, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    poison = talks.FORMATTER.turn()
    poison.add([Image(media.picture(56, 56, seed=5))])
    (span,) = poison.tokens().spans
    thinker, real = talks.MODELS.thinker, talks.MODELS.thinker.encode

    def encode(inputs: list[EncoderInput]) -> list[Tensor]:
        made = list(real(inputs))
        for place, one in enumerate(inputs):
            if one.digest == span.source.digest:
                if how == "raises":
                    raise ValueError("an encoder broke")
                made[place] = made[place] * float("nan")
        return made

    monkeypatch.setattr(thinker, "encode", encode)

    def misbehave(session: LiveSession) -> None:
        sick = talks.opened(session._engine)
        sick.add("look", Image(media.picture(56, 56, seed=5)))
        for _ in range(3):
            session._engine.worker.step()
        (failed,) = talks.served(session._engine, sick.respond())
        assert isinstance(failed.error, SessionError)
        assert ("an encoder broke" if how == "raises" else "not numbers") in str(failed.error)
        sick.add("and now?")  # without the turn that failed
        well = talks.opened(session._engine, talks.terms(seed=1))
        well.add("and now?")
        talks.same(*talks.served(session._engine, sick.respond(), well.respond()))
        monkeypatch.setattr(thinker, "encode", real)
        again = talks.opened(session._engine)  # and nobody adopts what was broken
        again.add("look", Image(media.picture(56, 56, seed=5)))
        assert talks.served(session._engine, again.respond())[0].whole
        for one in (sick, well, again):
            one.close()

    talks.same(conversation(misbehave), good)
