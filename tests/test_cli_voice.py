# ruff: noqa: F811 - a fixture of another file
"""A talk with microphone and loudspeaker: by key, hands-free, with a headset, interrupted, and without any of it."""

from __future__ import annotations

import io
import json
import random
import sys
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from descant.cli import chat, chat_commands, handset, sound_card
from descant.cli.errors import run
from descant.cli.handset import Handset
from descant.cli.level_meter import BARS, bar_of
from descant.cli.shell import ChatShell, MicMode
from descant.cli.spoken_turn import ECHO_S, TurnListener
from descant.errors import DescantError, SessionError
from descant.omni import Omni, load
from descant.server import silero
from descant.types import AnswerOptions, Audio, Event, Text
from tests import tiny
from tests.sound import FakeSounddevice, Sound
from tests.stub import StubOmni, StubSession
from tests.test_cli import omni, put  # noqa: F401 - a fixture
from tests.test_sound_card import noise

RATE = 24000
PAUSE = np.zeros(RATE, np.float32)


def speech(seconds: float) -> Sound:
    """Loud, and never 0."""
    return noise(round(seconds * RATE)) * np.float32(0.9)


@dataclass
class Scene:
    """Who sits at the terminal. steps: what happens at each look at the keys while nobody is answered, and heard: while
    somebody is: each may speak, or let the loudspeaker play, and returns the keys that were pressed."""

    library: FakeSounddevice = field(default_factory=FakeSounddevice)
    steps: list[Callable[[], str]] = field(default_factory=list)
    heard: list[Callable[[], str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)  # that are typed at the prompt
    begun: list[str] = field(default_factory=list)  # what stood at each prompt already
    looks: int = 0
    waiting: str = ""

    def look(self, *, answered: bool) -> str:
        self.looks += 1
        assert self.looks < 200, "nobody ends this"
        if self.waiting:
            keys, self.waiting = self.waiting, ""
            return keys
        steps = self.heard if answered else self.steps
        if not steps and answered and self.library.outputs and self.library.outputs[-1].active:
            self.all_came()
            if not self.heard:
                self.library.outputs[-1].pull(RATE // 10)
        return steps.pop(0)() if steps else ""

    def all_came(self) -> str:
        """The whole answer was made before anything else happens."""
        speaker = self.library.outputs[-1].callback.__self__  # type: ignore[attr-defined]
        if not speaker._closing:
            self.looks -= 1
            self.heard.insert(0, self.all_came)
        return ""

    def say(self, samples: Sound, keys: str = "") -> Callable[[], str]:
        return lambda: (self.library.inputs[-1].say(samples), keys)[1]

    def play(self, frames: int, keys: str = "") -> Callable[[], str]:
        return lambda: (self.library.outputs[-1].pull(frames), keys)[1]

    def read_line(self, begun: str = "") -> str | None:
        self.begun.append(begun)
        return self.lines.pop(0) if self.lines else None


class ScriptedKeyboard:
    scene: Scene

    def __enter__(self) -> ScriptedKeyboard:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def waits(self, wait_s: float) -> bool:
        self.scene.waiting = self.scene.look(answered=False)
        return bool(self.scene.waiting)

    def pressed(self, wait_s: float = 0.0) -> str:
        return self.scene.look(answered=not wait_s)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scene:
    made = Scene()
    monkeypatch.setattr(ScriptedKeyboard, "scene", made, raising=False)
    monkeypatch.setattr(handset, "Keyboard", ScriptedKeyboard)
    monkeypatch.setattr(handset, "read_line", made.read_line)
    monkeypatch.setattr(handset, "HAS_KEYS", True)
    monkeypatch.setattr(sound_card, "STALLED_S", 1e9)  # the clock of these scenes stands still
    monkeypatch.setenv("PATH", "")
    monkeypatch.chdir(tmp_path)
    return made


@pytest.fixture(autouse=True)
def by_loudness(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is loud is speech."""
    monkeypatch.setattr(silero, "model_path", lambda: None)


def shell_of(scene: Scene, omni: StubOmni, mode: MicMode = "push", *, speech: bool = True) -> ChatShell:
    out = Path("talk") if speech else None
    Path("talk").mkdir(exist_ok=True)
    shell = ChatShell(omni, out, False, None, {"speech": speech}, omni.session(speech=speech))  # type: ignore[arg-type]
    shell.handset = Handset(scene.library, mode, speech=speech)
    return shell


def talk_of(shell: ChatShell) -> StubSession:
    assert isinstance(shell.session, StubSession)
    return shell.session


def converse(shell: ChatShell) -> None:
    """All turns until the person leaves."""
    assert shell.handset is not None
    while (line := shell.handset.next_line(shell.live)) is not None:
        chat.one_turn(shell, line)


# ---------------------------------------------------------------- turns by key


def test_enter_begins_a_turn_and_enter_ends_it(scene: Scene) -> None:
    omni, said = StubOmni(), speech(1.0)
    shell = shell_of(scene, omni)
    scene.lines = [""]
    scene.steps = [scene.say(said[:7000]), scene.say(said[7000:20000]), scene.say(said[20000:], "\n")]
    converse(shell)
    assert (talk_of(shell).turns[0] == said).all() and len(omni.calls) == 1
    (turn,) = shell.turns
    (part,) = turn.parts
    assert isinstance(part, Audio) and part.rate == RATE and (part.source == said).all()
    assert scene.library.inputs[0].ends[-1] == "close"


@pytest.mark.parametrize("key", ["\n", "\r", " "])
def test_the_end_of_a_turn_is_heard_to_its_last_sample(scene: Scene, key: str) -> None:
    shell = shell_of(scene, StubOmni())
    scene.lines = [""]

    def end() -> str:
        scene.library.inputs[-1].tail = speech(0.1)  # under way when the key is pressed
        return key

    scene.steps = [scene.say(speech(0.4)), end]
    converse(shell)
    assert len(talk_of(shell).turns[0]) == round(0.5 * RATE)


def interrupting() -> str:
    raise KeyboardInterrupt


@pytest.mark.parametrize("end", [lambda: "\x1b", interrupting], ids=["escape", "control-c"])
def test_a_turn_is_taken_back(scene: Scene, end: Callable[[], str]) -> None:
    omni = StubOmni()
    shell = shell_of(scene, omni)
    scene.lines = ["", "typed"]
    scene.steps = [scene.say(speech(1.0)), end]
    converse(shell)
    assert [len(turn) for turn in talk_of(shell).turns] == [0] and len(omni.calls) == 1
    assert shell.turns[0].parts == (Text("typed"),)


def test_a_microphone_that_is_not_allowed_is_told(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    shell = shell_of(scene, StubOmni())
    scene.lines = ["", "typed"]
    scene.steps = [scene.say(PAUSE), lambda: "\n"]
    converse(shell)
    assert "is this terminal not allowed to use it?" in capsys.readouterr().err
    assert [len(turn) for turn in talk_of(shell).turns] == [0] and len(shell.turns) == 1


def test_what_is_attached_is_spoken_about_or_sent_alone(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    put("a.png")
    omni = StubOmni()
    shell = shell_of(scene, omni)
    scene.lines = ["", "/image a.png", "", "/image a.png", ""]
    scene.steps = [lambda: "\n", scene.say(speech(1.0), "\n"), lambda: "\n"]
    converse(shell)
    assert "nothing was said" in capsys.readouterr().err
    assert [len(turn.parts) for turn in shell.turns] == [2, 1]


def test_a_spoken_question_is_saved_and_asked_again(scene: Scene) -> None:
    omni = StubOmni()
    shell = shell_of(scene, omni)
    scene.lines = ["", "/save kept", "/retry"]
    scene.steps = [scene.say(speech(0.5), "\n")]
    converse(shell)
    question = json.loads(Path("kept/talk.json").read_text())[0]["content"][0]
    with wave.open(question["audio"]) as file:
        assert (file.getframerate(), file.getnframes()) == (RATE, RATE // 2)
    (again,) = omni.calls[-1][0][0].content
    assert isinstance(again, Audio) and len(again.source) == RATE // 2 and len(shell.turns) == 1


@pytest.mark.parametrize("how", ["unplugged", "silent"])
def test_a_microphone_that_goes_away_leaves_the_talk(
    scene: Scene, how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    omni = StubOmni()
    shell = shell_of(scene, omni)
    scene.lines = ["", "typed", ""]

    def gone() -> str:
        if how == "unplugged":
            scene.library.inputs[-1].active = False
        else:
            monkeypatch.setattr(sound_card, "STALLED_S", -1.0)
        return ""

    scene.steps = [scene.say(speech(1.0)), gone]
    converse(shell)
    monkeypatch.undo()
    assert capsys.readouterr().err.count("the microphone has gone away; type your questions") == 1
    assert shell.handset is not None and not shell.handset.pushes
    assert [len(turn) for turn in talk_of(shell).turns] == [0] and len(omni.calls) == 1


# ---------------------------------------------------------------- interruption


@pytest.mark.parametrize("rate", [24000, 44100, 48000])
@pytest.mark.parametrize("key", [" ", "\x1b", "\n", None], ids=["space", "escape", "enter", "control-c"])
def test_only_what_was_heard_stays(
    scene: Scene, rate: int, key: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    scene.library = FakeSounddevice(rate, latency=0.1)
    omni = StubOmni()
    shell = shell_of(scene, omni)
    scene.lines = ["Hello"]
    frames = round(0.32 * rate)
    scene.heard = [
        scene.all_came,
        scene.play(frames, key) if key else lambda: (scene.play(frames)(), interrupting())[1],
    ]
    scene.steps = [lambda: "\x1b"]  # of the turn that Enter begins
    converse(shell)
    session = talk_of(shell)
    assert session.heard == [pytest.approx(0.22, abs=1 / rate)]  # what left, but for what is under way
    assert scene.library.outputs[0].ends == ["abort", "close"]
    assert [turn.said for turn in shell.turns] == ["Seven plus"] == [session.messages[-1].content[0].text]  # type: ignore[union-attr]
    assert "heard: Seven plus\x1b[2m five is twelve.\x1b[0m\n" in capsys.readouterr().err
    assert len(scene.library.inputs) == (key == "\n")


def test_an_answer_is_heard_to_its_end(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    shell = shell_of(scene, StubOmni())
    scene.lines = ["Hello", "/play", "Again"]
    converse(shell)
    heard = [np.concatenate([block[:, 0] for block in stream.played]) for stream in scene.library.outputs]
    tone = np.sin(np.arange(2400) * 0.1).astype(np.float32) * 0.5
    whole = np.tile(tone, 5)
    assert [stream.ends for stream in scene.library.outputs] == [["stop", "close"]] * 3
    for sound in (heard[0], heard[2]):
        assert (sound[: len(whole)] == whole).all() and not sound[len(whole) :].any()
    assert np.abs(heard[1][: len(whole)] - whole).max() < 1e-4
    assert not talk_of(shell).heard and len(shell.turns) == 2
    assert "heard:" not in capsys.readouterr().err


def test_what_is_typed_while_it_speaks_begins_the_next_line(scene: Scene) -> None:
    shell = shell_of(scene, StubOmni())
    scene.lines = ["Hello"]
    scene.heard = [scene.all_came, lambda: "\x1b[A", lambda: "Noo", lambda: "\x7f", lambda: " w", lambda: "\n"]
    converse(shell)
    assert scene.begun == ["", "No w"] and len(talk_of(shell).heard) == 1 and not scene.library.inputs


def test_an_answer_that_fails_leaves_the_talk(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    omni = StubOmni()
    shell = shell_of(scene, omni)
    good = omni.events

    def events(*, speech: bool) -> Iterator[Event]:
        yield from list(good(speech=speech))[:4]
        raise SessionError("it failed")

    scene.lines = ["Hello", "Again"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(omni, "events", events)
        assert shell.handset is not None
        chat.one_turn(shell, str(shell.handset.next_line(shell.live)))
    converse(shell)
    assert "  it failed" in capsys.readouterr().err and len(shell.turns) == 1
    assert [stream.ends[-1] for stream in scene.library.outputs] == ["close", "close"]


def test_a_loudspeaker_that_goes_away_leaves_the_text(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    shell = shell_of(scene, StubOmni())

    def gone() -> str:
        scene.library.outputs[-1].active = False
        return ""

    scene.lines = ["Hello", "Again"]
    scene.heard = [scene.all_came, gone]
    converse(shell)
    out, err = capsys.readouterr()
    assert out == "Seven plus five is twelve.\n" * 2 and err.count("the loudspeaker has gone away") == 1
    assert [turn.said for turn in shell.turns] == ["Seven plus five is twelve."] * 2
    assert not talk_of(shell).heard and len(scene.library.outputs) == 2


def test_without_a_loudspeaker_a_program_plays_an_answer_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.library.missing = {"output"}
    heard: list[tuple[str, Path]] = []
    monkeypatch.setattr(chat_commands, "find_player", lambda: "a-player")
    monkeypatch.setattr(chat_commands, "play_file", lambda name, path: heard.append((name, path)))
    shell = shell_of(scene, StubOmni())
    scene.lines = ["Hello", "/play"]
    converse(shell)
    assert heard == [("a-player", Path("talk/answer-1.wav"))]


def test_without_a_loudspeaker_answers_are_read(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.library.missing = {"output"}
    shell = shell_of(scene, StubOmni())
    scene.lines = ["Hello", "Again"]
    converse(shell)
    out, err = capsys.readouterr()
    assert out == "Seven plus five is twelve.\n" * 2 and err.count("no loudspeaker: ") == 1


# ---------------------------------------------------------------- without a key


def recorded(listener_rate: int, pieces: list[Sound]) -> tuple[StubSession, list[tuple[str, int]], TurnListener]:
    """What a listener makes of sound that comes in these pieces: its session, its turns, itself."""
    library = FakeSounddevice(listener_rate)
    listener = TurnListener(sound_card.Microphone(library))
    session = StubOmni().session()
    marks = []
    for piece in pieces:
        library.inputs[0].say(piece)
        while (mark := listener.hear(session)) is not None:  # type: ignore[arg-type]
            marks.append((mark, listener.turn.samples))
    return session, marks, listener


@pytest.mark.parametrize("seed", range(10))
def test_turns_are_the_same_in_any_cuts(seed: int) -> None:
    rng = random.Random(seed)
    rate = rng.choice([16000, 44100, 48000])
    room = np.random.default_rng(seed).normal(0, 1e-4, round(3.9 * rate)).astype(np.float32)
    sound = room.copy()
    for begin, end in ((0.4, 1.0), (1.05, 1.2), (1.9, 1.92), (2.4, 3.1)):  # a turn, a click, a turn
        sound[round(begin * rate) : round(end * rate)] += noise(round(end * rate) - round(begin * rate))
    whole = recorded(rate, [sound])
    cut = recorded(rate, np.split(sound, sorted(rng.sample(range(1, len(sound)), 60))))
    assert [mark for mark, _ in whole[1]] == ["began", "ended"] * 2 and cut[1] == whole[1]
    assert cut[2].turn.sound is not None and whole[2].turn.sound is not None
    assert (cut[2].turn.sound.source == whole[2].turn.sound.source).all()


def test_a_turn_has_what_was_just_before_it_and_a_click_is_none() -> None:
    sound = np.concatenate([PAUSE, speech(0.03), PAUSE, speech(0.8), PAUSE])
    session, marks, listener = recorded(RATE, [sound])
    assert [mark for mark, _ in marks] == ["began", "ended"]
    assert listener.turn.sound is not None
    pushed = listener.turn.sound.source
    assert isinstance(pushed, np.ndarray) and (np.concatenate(session.pushed) == pushed).all()
    assert 0.8 + 0.3 + 0.5 <= len(pushed) / RATE <= 0.8 + 0.3 + 0.5 + 0.2
    assert not pushed[: round(0.25 * RATE)].any()  # the padding, and no click


def test_hands_free_hears_a_turn_and_answers_it(scene: Scene) -> None:
    omni = StubOmni()
    shell = shell_of(scene, omni, "hands-free")
    scene.steps = [scene.say(PAUSE), scene.say(speech(0.7)), scene.say(PAUSE), lambda: "t"]
    scene.lines = ["typed"]
    converse(shell)
    assert [len(turn.parts) for turn in shell.turns] == [1, 1] and len(omni.calls) == 2
    spoken, typed = talk_of(shell).turns
    assert len(spoken) > 0.7 * RATE and not len(typed)
    assert shell.turns[1].parts == (Text("typed"),)


@pytest.mark.parametrize("mode, interrupted", [("hands-free", False), ("headset", True)])
def test_without_a_headset_it_does_not_hear_itself(scene: Scene, mode: MicMode, interrupted: bool) -> None:
    """The microphone hears what the loudspeaker plays."""
    shell = shell_of(scene, StubOmni(), mode)
    scene.steps = [scene.say(speech(0.7)), scene.say(PAUSE), lambda: "x"]

    def echo() -> str:
        scene.library.inputs[-1].say(scene.library.outputs[-1].pull(RATE // 10) + speech(0.1))
        return ""

    scene.heard = [echo] * 5
    converse(shell)
    assert bool(talk_of(shell).heard) == interrupted
    if not interrupted:
        assert len(shell.turns) == 1 and not talk_of(shell).pushed


def test_the_room_s_echo_is_no_turn(scene: Scene) -> None:
    shell = shell_of(scene, StubOmni(), "hands-free")
    late = scene.say(speech(0.9 * ECHO_S))
    scene.steps = [scene.say(speech(0.7)), scene.say(PAUSE), late, scene.say(PAUSE), lambda: "x"]
    converse(shell)
    assert len(shell.turns) == 1 and not talk_of(shell).pushed


def test_who_speaks_into_a_headset_interrupts_and_is_answered(scene: Scene) -> None:
    omni = StubOmni()
    shell = shell_of(scene, omni, "headset")
    scene.steps = [scene.say(speech(0.7)), scene.say(PAUSE), scene.say(speech(0.5)), scene.say(PAUSE), lambda: "x"]
    scene.heard = [scene.all_came, scene.play(7200), scene.say(speech(0.2))]
    converse(shell)
    session = talk_of(shell)
    assert session.heard == [pytest.approx(0.3)] and len(omni.calls) == 2
    assert [turn.said for turn in shell.turns] == ["Seven plus five", omni.text]
    assert len(session.turns[1]) >= 0.7 * RATE  # from its first moment on, though it was said into an answer


def test_a_line_that_is_begun_takes_back_what_was_being_said(scene: Scene) -> None:
    shell = shell_of(scene, StubOmni(), "hands-free")
    scene.steps = [scene.say(speech(0.7)), lambda: "t", lambda: "x"]
    scene.lines = ["typed"]
    converse(shell)
    assert [len(turn) for turn in talk_of(shell).turns] == [0]


def test_open_ears_that_go_away_leave_the_talk(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    shell = shell_of(scene, StubOmni(), "hands-free")

    def gone() -> str:
        scene.library.inputs[-1].active = False
        return ""

    scene.steps = [scene.say(speech(0.7)), gone]
    scene.lines = ["typed", "again"]
    converse(shell)
    assert capsys.readouterr().err.count("the microphone has gone away; type your questions") == 1
    assert [len(turn) for turn in talk_of(shell).turns] == [0, 0]


# ---------------------------------------------------------------- where there is none of it


@pytest.mark.parametrize("mode", ["push", "hands-free", "headset"])
@pytest.mark.parametrize("why", ["missing", "refused"])
def test_a_missing_microphone_is_one_line(
    scene: Scene, mode: MicMode, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    scene.library = FakeSounddevice(missing={"input"} if why == "missing" else set())
    scene.library.refuses = why == "refused"
    shell = shell_of(scene, StubOmni(), mode, speech=False)
    scene.lines = ["", "typed"]
    converse(shell)
    assert capsys.readouterr().err.count("; type your questions") == 1
    assert len(shell.turns) == 1


def test_a_pipe_never_asks_for_devices(omni: StubOmni, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handset, "open_handset", lambda *_, **__: pytest.fail("devices were asked for"))
    done = io.StringIO("Hello\n\nAgain\n")
    monkeypatch.setattr(sys, "stdin", done)
    assert run(["chat", "--mic", "hands-free"]) == 0 and len(omni.calls) == 2


@pytest.mark.parametrize("mic, told", [(None, False), ("off", False), ("push", True), ("headset", True)])
def test_without_sounddevice_there_is_only_typing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mic: MicMode | None, told: bool
) -> None:
    monkeypatch.setattr(handset, "sound_library", lambda: None)
    assert handset.open_handset(mic, speech=True) is None
    assert ("pip install 'descant[mic]'" in capsys.readouterr().err) == told


def test_a_broken_sounddevice_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> None:
        raise DescantError("sounddevice finds no PortAudio")

    monkeypatch.setattr(handset, "sound_library", broken)
    assert handset.open_handset("off", speech=True) is handset.open_handset(None, speech=True) is None
    assert capsys.readouterr().err == "  sounddevice finds no PortAudio\n"


def test_a_server_is_spoken_to_by_its_page(omni: StubOmni, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["chat", "--url", "http://127.0.0.1:9", "--mic", "push"]) == 2
    assert "the page of descant serve" in capsys.readouterr().err


def test_the_meter_follows_loudness() -> None:
    bars = [BARS.index(bar_of(np.full(480, level, np.float32))) for level in (0.0, 0.003, 0.01, 0.05, 0.2, 1.0)]
    assert bars == sorted(bars) and bars[0] == 0 and bars[-1] == len(BARS) - 1 and len(set(bars)) >= 5
    assert bar_of(np.zeros(0, np.float32)) == BARS[0]


# ---------------------------------------------------------------- with a model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Omni:
    return load(tiny.write_descant(tmp_path_factory.mktemp("voice") / "tiny"))


def test_a_model_knows_what_was_heard_of_its_answer(scene: Scene, model: Omni) -> None:
    """A spoken question, answered, interrupted, taken back and asked again, in one conversation."""
    scene.library = FakeSounddevice(44100, latency=0.01)
    options: AnswerOptions = {"speech": True, "max_tokens": 40, "seed": 1}
    shell = ChatShell(model, None, False, None, options, model.session(**options))
    shell.handset = Handset(scene.library, "push", speech=True)
    scene.lines = [""]
    scene.steps = [scene.say(noise(44100), "\n")]
    scene.heard = [scene.all_came, scene.play(9000, " ")]
    converse(shell)
    (turn,) = shell.turns
    record = shell.live._history.reply(turn.keys[-1])
    assert record.text == turn.said and len(turn.said) < len(record.record.text)
    scene.lines = ["And now?", "/undo", "/retry"]
    scene.heard = []
    converse(shell)
    (again,) = shell.turns
    assert again.parts == turn.parts and again.keys == shell.live.keys
    shell.session.close()
