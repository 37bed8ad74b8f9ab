"""What the Talker eats, when it waits and when it stops; what a length limit, a stop id and a failure do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from descant.engine.sampling import BROKEN_ID, reciting
from descant.engine.session import PHASES_AFTER, Phase, Session, SpeechPhase, SpeechStream
from descant.errors import OptionError, SessionError
from descant.model.talker import step_row, tail_rows
from descant.train.teacher import opening_rows
from descant.types import AudioChunk, Finished, Sampling, TextDelta
from tests.engine import rig
from tests.engine.alone import run, stages_for, stream

REPLY = tuple(rig.TOKENIZER.encode("a little song for you"))
MODELS = rig.models()
STAGES = stages_for(MODELS)


class Waits(TorchDispatchMode):
    """Counts the times that the host asks for a value of a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += str(func).split(".")[1] in ("_local_scalar_dense", "item", "is_nonzero")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("how", [Sampling(), Sampling(0.9, 8, 0.8, 1.3)])
def test_the_host_waits_for_no_single_draw(how: Sampling) -> None:
    sessions = [STAGES.open(rig.request(text=how, seed=seed)) for seed in range(4)]
    rows = torch.randn(4, MODELS.thinker.cfg.text.vocab_size)
    rows[2, 7] = torch.nan
    for session, row in zip(sessions, rows, strict=True):
        session.text.logits = row
    with Waits() as waits:
        found = STAGES.draw_first(sessions)
    assert waits.count == 0
    assert [drawn == BROKEN_ID for drawn, _ in found] == [False, False, True, False]


def test_a_draw_that_fails_ends_its_session_alone() -> None:
    sessions = [spoken() for _ in range(3)]
    for session in sessions:
        begin(session)
    sessions[1].text.sampler.last = "no dice"  # type: ignore[assignment]
    STAGES.think(sessions)
    assert [session.text.ids for session in sessions] == [[REPLY[0]], [], [REPLY[0]]]
    assert [s.phase is Phase.FAILED for s in sessions] == [False, True, False]


def spoken(**changes: object) -> Session:
    """A session that recites REPLY; its codes are the greedy ones."""
    limits = Sampling(max_tokens=len(REPLY) + 1)
    return STAGES.open(rig.request(**({"forced": REPLY, "text": limits} | changes)))


@torch.inference_mode()
def begin(session: Session) -> None:
    STAGES.read({session: session.context.unread})


def watch_rows(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Every batch of rows that the Talker reads, (T, E) each."""
    seen: list[Tensor] = []
    proj = MODELS.talker.proj.forward

    def spy(rows: Tensor) -> Tensor:
        seen.append(rows[0].clone())
        return proj(rows)

    monkeypatch.setattr(MODELS.talker.proj, "forward", spy)
    return seen


def expected_rows(session: Session, reply: list[int]) -> Tensor:
    """Prompt rows, speaker row, first row, then a row for each code, built by the formulas of the model's page."""
    thinker, talker = MODELS.thinker, MODELS.talker
    ids, codes = rig.prompt().ids, torch.tensor(session.speech.codes)
    with torch.no_grad():
        embeds = thinker.embed_tokens(ids)
        hidden = thinker(embeds[None], torch.arange(len(ids)).expand(3, 1, -1))
        rows, tail = rig.rows_of(reply), tail_rows(thinker, talker.cfg)
        stream = torch.cat([rows[1:], tail[:1], tail[1:].expand(len(codes), -1)])[: len(codes) - 1]
        bos = thinker.embed_tokens(torch.tensor(rig.BOS))
        return torch.cat([opening_rows(talker, embeds + hidden[0], bos, rows[0]), step_row(talker, codes[:-1], stream)])


def test_the_talker_eats_the_prompt_then_one_reply_row_per_code_then_end_and_pads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen, session = watch_rows(monkeypatch), spoken()
    list(run(STAGES, session))
    assert len(session.speech.codes) == 40 > len(REPLY) + 2
    assert [len(rows) for rows in seen] == [15] + [1] * 40  # behind the prompt, the speaker's row
    torch.testing.assert_close(torch.cat(seen), expected_rows(session, list(REPLY)), rtol=1e-4, atol=1e-5)


def test_positions_run_on_from_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    read: dict[str, list[Tensor]] = {"thinker": [], "talker": []}
    for name, module in (("thinker", MODELS.thinker), ("talker", MODELS.talker)):
        forward = module.decoder.forward

        def spy(x: Tensor, positions: Tensor, *rest: object, name: str = name, forward: object = forward) -> object:
            read[name].append(positions[:, 0])
            return forward(x, positions, *rest)

        monkeypatch.setattr(module.decoder, "forward", spy)
    request = rig.request(forced=REPLY, text=Sampling(max_tokens=len(REPLY) + 1))
    far = replace(request, prompt=replace(request.prompt, extent=100))  # as after a picture: not the row's number
    list(stream(MODELS, far))
    prompt = len(far.prompt.ids)
    for name, after in (
        ("thinker", len(REPLY)),
        ("talker", 2 + 39),
    ):  # a speaker row and a first row, then a row a code
        expected = torch.cat([torch.arange(prompt), 100 + torch.arange(after)]).expand(3, -1)
        assert torch.equal(torch.cat(read[name], 1), expected)


def test_a_reply_cut_by_its_limit_speaks_its_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, session = watch_rows(monkeypatch), spoken(text=Sampling(max_tokens=5))
    events = list(run(STAGES, session))
    assert events[-1].reason == "length" and session.text.ids == list(REPLY[:5])
    torch.testing.assert_close(torch.cat(seen), expected_rows(session, list(REPLY[:5])), rtol=1e-4, atol=1e-5)


def read_of(session: Session) -> int:
    """Tokens that the Thinker has read when the text is complete."""
    begin(session)
    while session.phase is Phase.THINKING:
        STAGES.think([session])
    return session.text.kv.length


def test_the_stop_token_is_never_read_back() -> None:
    session = spoken()
    assert read_of(session) == len(rig.prompt()) + len(REPLY)
    assert rig.STOP not in session.text.ids


def test_without_speech_the_last_token_before_the_limit_is_not_read_back() -> None:
    session = spoken(voice=None, text=Sampling(max_tokens=5))
    assert read_of(session) == len(rig.prompt()) + 4
    assert not any(isinstance(event, AudioChunk) for event in run(STAGES, session))


@pytest.mark.parametrize("tries", [1, 3])
def test_the_talker_waits_for_a_slow_thinker(tries: int) -> None:
    session, prompt_done = spoken(), spoken()
    list(run(STAGES, prompt_done))
    begin(session)
    while session.phase is Phase.THINKING:
        STAGES.think([session])
        for _ in range(tries):
            STAGES.talk([session])
            ended = session.phase is not Phase.THINKING
            assert len(session.speech.codes) <= len(session.text.ids) + tries * ended
    while session.speech.singing:
        STAGES.talk([session])
    assert session.speech.codes == prompt_done.speech.codes


def test_a_thinker_that_is_far_ahead_changes_nothing() -> None:
    session, together = spoken(), spoken()
    list(run(STAGES, together))
    begin(session)
    while session.phase is Phase.THINKING:
        STAGES.think([session])
    assert len(session.speech.states) == len(REPLY) + 1  # and text_end
    while session.speech.singing:
        STAGES.talk([session])
    assert session.speech.codes == together.speech.codes


def test_feeding_the_pad_row_early_would_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two tests above can fail: a Talker that does not wait sings other codes."""
    honest, hasty = spoken(), spoken()
    list(run(STAGES, honest))
    real = SpeechStream.next_state

    def never_wait(speech: SpeechStream) -> Tensor | None:
        state = real(speech)
        return speech.tail[1] if state is None else state

    monkeypatch.setattr(SpeechStream, "next_state", never_wait)
    begin(hasty)
    while hasty.phase is Phase.THINKING or hasty.speech.singing:
        STAGES.think([hasty])
        for _ in range(2):
            STAGES.talk([hasty])
    assert hasty.speech.codes != honest.speech.codes


@pytest.mark.parametrize("stop", [rig.CODEC_PAD, rig.CODEC_END])
def test_a_stop_code_ends_the_sound_and_the_text_goes_on(stop: int) -> None:
    session = spoken()
    session.speech.sampler = reciting([3, 4, 5, stop])
    events = list(run(STAGES, session))
    assert session.speech.codes == [3, 4, 5]
    assert sum(len(e.samples) for e in events if isinstance(e, AudioChunk)) == 3 * 4 * 240
    assert events[-1].text == "a little song for you" and events[-1].reason == "stop"
    assert isinstance(events[-2], TextDelta)  # the sound was out before the text was complete


def test_the_talker_has_a_limit_of_its_own() -> None:
    session = spoken(speech=Sampling(max_tokens=7))
    assert list(run(STAGES, session))[-1].usage.codes == 7 == len(session.speech.codes)


def test_start_and_codes_without_a_row_in_the_table_are_never_sung() -> None:
    hot = Sampling(temperature=5.0, max_tokens=200)
    session = spoken(speech=hot)
    list(run(STAGES, session))
    assert rig.CODEC_START in MODELS.banned_codes and 44 in MODELS.banned_codes and 43 not in MODELS.banned_codes
    assert not MODELS.banned_codes & {rig.CODEC_PAD, rig.CODEC_END}
    assert set(session.speech.codes) < set(range(44))


def test_an_answer_that_stops_at_once_has_no_sound() -> None:
    events = list(stream(MODELS, rig.request(forced=())))
    assert len(events) == 1
    end = events[0]
    assert isinstance(end, Finished) and end.text == "" and end.reason == "stop"
    none = {
        "text_tokens": 0,
        "audio_tokens": 0,
        "codes": 0,
        "samples": 0,
        "underruns": 0,
        "text_cut": False,
        "speech_cut": False,
    }
    assert vars(end.usage) == {"prompt_tokens": 14, "prefilled_tokens": 14, **none}
    given = {name for name, value in vars(end.timings).items() if value}
    assert given == {"total_s"} and end.timings.first_audio_s is end.timings.rtf is None


def test_usage_and_timings_are_those_of_the_events() -> None:
    events = list(run(STAGES, spoken()))
    end, sound = events[-1], [e for e in events if isinstance(e, AudioChunk)]
    counts = {"text_tokens": len(REPLY), "codes": 40, "samples": 40 * 4 * 240, "underruns": 0}
    counts |= {"text_cut": False, "speech_cut": True, "audio_tokens": 0}
    assert vars(end.usage) == {"prompt_tokens": 14, "prefilled_tokens": 14, **counts}
    assert end.timings.first_text_s == next(e.t for e in events if isinstance(e, TextDelta))
    assert end.timings.first_audio_s == sound[0].t
    assert end.timings.audio_s == pytest.approx(1.6) and end.timings.total_s == end.t
    assert end.timings.rtf == pytest.approx(end.t / 1.6)


def test_a_failure_is_one_session_s_own(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: object) -> Tensor:
        raise RuntimeError("out of rows")

    other = run(STAGES, spoken())
    next(other)
    with monkeypatch.context() as patch:
        session = spoken()
        patch.setattr(session.text.writing, "push", broken)
        with pytest.raises(SessionError, match=r"failed while thinking: RuntimeError: out of rows\. .*ask again"):
            list(run(STAGES, session))
    assert session.phase is Phase.FAILED and session.id in caplog.text
    assert isinstance(list(other)[-1], Finished)
    assert isinstance(list(run(STAGES, spoken()))[-1], Finished)


def test_closing_the_iterator_cancels() -> None:
    session = spoken()
    events = run(STAGES, session)
    next(events)
    events.close()
    assert session.phase is Phase.CANCELLED
    assert list(events) == []


def test_speech_without_a_talker_is_refused() -> None:
    with pytest.raises(OptionError, match="speech=False"):
        stream(replace(MODELS, talker=None, token2wav=None), rig.request())


def test_no_gradient_and_no_mode_leaks_to_the_caller() -> None:
    for _ in run(STAGES, spoken()):
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def test_only_the_drawn_transitions_exist() -> None:
    for before in Phase:
        for after in Phase:
            session = spoken()
            session.phase = before
            if after in PHASES_AFTER[before]:
                session.enter(after)
                assert session.phase is after
            else:
                with pytest.raises(RuntimeError, match=f"{before.value} cannot enter {after.value}"):
                    session.enter(after)


def test_decode_after_the_last_sound_gives_nothing() -> None:
    session = spoken()
    list(run(STAGES, session))
    assert session.speech.phase is SpeechPhase.DONE
    STAGES.decode([session])
    assert session.events == []


def test_speech_only_goes_on() -> None:
    for before in SpeechPhase:
        for after in SpeechPhase:
            speech = spoken().speech
            speech.phase = before
            if after.value > before.value:
                speech.enter(after)
                assert speech.phase is after
            else:
                with pytest.raises(RuntimeError, match=f"{before.name} cannot enter {after.name}"):
                    speech.enter(after)


@pytest.mark.parametrize("where", ["thinker", "talker"])
def test_a_pass_that_fails_after_its_last_layer_has_moved_nothing(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sessions share a pass; it fails at its very end, is tried with each alone, and both answers are as ever."""
    honest = [list(run(STAGES, STAGES.open(rig.request(f"number {n}"))))[-1].text for n in range(2)]
    sessions = [STAGES.open(rig.request(f"number {n}")) for n in range(2)]
    step, failed = getattr(STAGES.steps, where), list[int]()
    forward = step.forward

    def fails_once_together(x: Tensor, *rest: object) -> object:
        out = forward(x, *rest)
        if len(x) > 1 and len(failed) < 3:
            failed.append(len(x))
            raise RuntimeError("after the pass")
        return out

    monkeypatch.setattr(step, "forward", fails_once_together)
    for session in sessions:
        begin(session)
    codes: list[list[int]] = []
    while not all(session.ended for session in sessions):
        STAGES.think(sessions)
        STAGES.talk(sessions)
        STAGES.decode(sessions)
        codes = [session.speech.codes for session in sessions]
        for session in sessions:
            session.finish_if_done()
    assert failed == [2] * 3 and ["".join(s.text.pieces) for s in sessions] == honest
    assert codes == [alone_codes(n) for n in range(2)]


def alone_codes(number: int) -> list[int]:
    session = STAGES.open(rig.request(f"number {number}"))
    list(run(STAGES, session))
    return session.speech.codes
