"""The bench on tiny shapes: turns, medians, rows by name, kept figures, and a peer that is really the same model."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

from descant.bench import answer, decode, live, nano, reference, report, rows, shapes, together, voices
from descant.bench.harness import (
    Bench,
    BenchLine,
    Target,
    figure_line,
    growth_line,
    interleave,
    median,
    rate_line,
    skipped,
    threads,
    time_line,
)
from descant.bench.shapes import CODEPOINTS, Scale, codec, decoder, ears, omni, random_parts
from descant.cli.errors import run
from descant.errors import OptionError, SessionError
from descant.types import Timings
from descant.weights.fetch import embedded
from tests.stub import StubOmni

BODY = decoder(64, 1, 4, 64, shapes.VOCAB_SIZE), decoder(64, 1, 4, 64, shapes.CODE_IDS)
TIED = decoder(64, 1, 4, 64, shapes.VOCAB_SIZE, tied=True), BODY[1]
SOUND = codec(64, 2, 64, channels=16)
TINY = Scale(
    omni(*BODY, SOUND), omni(*TIED, SOUND), omni(*BODY, SOUND, ears(64, 1, 64)), prompt=6, words=3, codes=14, steps=2,
    probe=2**12, crowd=3, spoken=2.5, turn=0.5, turns=3, idle=(1, 2), held=40, voices=(1, 2, 3),
)  # fmt: skip


def tiny(**changes: Any) -> Bench:
    return Bench(**{"repeats": 1, "scale": TINY, "say": lambda line: None, **changes})


# ---------------------------------------------------------------- the harness


def test_sides_take_turns_and_the_warm_up_is_not_kept() -> None:
    order: list[str] = []

    def side(name: str) -> Callable[[], int]:
        return lambda: order.append(name) or len(order)  # type: ignore[func-returns-value]

    kept = interleave({"a": side("a"), "b": side("b")}, repeats=2, warmups=1)
    assert order == ["a", "b"] * 3
    assert kept == {"a": [3, 5], "b": [4, 6]}


def test_medians() -> None:
    assert median([9.0, 1.0, 2.0]) == 2.0 and median([1.0, 2.0]) == 1.5


def test_ratios_say_how_many_times_better() -> None:
    assert time_line("x", ours=2.0, theirs=6.0, target=Target("ratio >=", 3.0)).met is True
    assert time_line("x", 2.0, 5.9, Target("ratio >=", 3.0)).met is False
    assert rate_line("x", ours=6.0, theirs=2.0).ratio == 3.0
    assert time_line("x", 2.0, None, Target("ratio >=", 3.0)).met is None
    assert growth_line("x", after=1.3, before=1.0, target=Target("growth <=", 1.3)).met is True
    assert growth_line("x", 1.0, 2.0, Target("growth <=", 1.3)).ratio == 0.5
    assert growth_line("x", 1.4, 1.0, Target("growth <=", 1.3)).met is False
    assert figure_line("x", 0.3, Target("value <=", 0.3)).met is True
    assert figure_line("x", 0.31, Target("value <=", 0.3)).met is False
    assert figure_line("x", 0.84, Target("value >=", 0.85)).met is False


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with threads(before + 1) as count:
        assert count == torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with threads(None) as count:
        assert count == before
    with pytest.raises(ZeroDivisionError), threads(before + 1):
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


# ---------------------------------------------------------------- rows


def test_rows_by_name_and_by_model() -> None:
    assert rows.choose(None, None) == list(rows.BENCH_ROWS)
    assert rows.choose(["nano", "decode"], None) == ["decode", "nano"]
    assert rows.choose(None, "bench-tiny")[:3] == ["first-audio", "whole-answer", "live-turn"]
    with pytest.raises(OptionError, match=r"no row 'decod'.*choose from first-audio"):
        rows.choose(["decod"], None)
    with pytest.raises(OptionError, match="none of the rows decode measures nano"):
        rows.choose(["decode"], "nano")


def test_an_answer_beside_the_same_answer_of_the_peer() -> None:
    bench = tiny(compare="transformers")
    lines = rows.measure(bench, ["first-audio", "whole-answer"])
    firsts, (low, balanced, quality) = lines[:3], lines[3:]
    sides = answer.timed_answers(bench)
    assert set(sides) == {"low", "balanced", "quality", "transformers"}  # measured once for both rows
    assert {(len(t.ids), t.samples) for side in sides.values() for t in side} == {(3, 14 * 2 * 240)}
    for first, whole in zip(firsts, lines[3:], strict=True):
        assert first.value is not None and whole.value is not None and first.value <= whole.value
        assert first.peer == whole.peer == sides["transformers"][0].whole
    assert [line.target is not None for line in firsts] == [True, True, False]
    assert balanced.target is not None and low.target is None and quality.target is None
    assert set(sides["balanced"][0].stages) == {"queue", "read", "think", "talk", "decode"}
    assert "decode " in balanced.note and balanced.note.endswith(" s")


def test_whatever_is_drawn_is_written_and_can_be_read_back() -> None:
    ids = (0, 255, shapes.STOP_ID, shapes.VOCAB_SIZE - 1)
    writer = CODEPOINTS.incremental()
    assert CODEPOINTS.ids("".join(writer.push(index) for index in ids) + writer.flush()) == ids
    assert CODEPOINTS.special("<|AUDIO|>") == shapes.IDS.audio and CODEPOINTS.special("<|VIDEO|>") == shapes.IDS.video
    assert CODEPOINTS.special("<|im_end|>") == shapes.STOP_ID


def test_answers_together_beside_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    submit = together.Engine.submit

    def counted(engine: Any, request: Any) -> Any:
        seen.append(len(engine.worker.slots) + engine.worker.inbox.qsize())
        return submit(engine, request)

    monkeypatch.setattr(together.Engine, "submit", counted)
    judged, told = rows.measure(tiny(), ["together"])
    assert seen == 2 * ([0, 1] + [0, 1, 2] + [0, 0, 0])  # the warm-up, together, one after another; two shapes
    assert judged.target is not None and told.target is None and "not judged" in told.note
    for line in (judged, told):
        assert line.value and line.peer and line.ratio == line.value / line.peer


def test_an_answer_that_ends_early_is_no_rate() -> None:
    models = shapes.bench_models(random_parts(TINY.answer))
    eager = replace(models, stop_codes=frozenset(range(shapes.CODE_IDS)))
    crowd = together.Workload((shapes.random_prompt(4),), shapes.prepared_voice(models, TINY.answer), 2, 5)
    assert together.rate(shapes.endless(models), crowd, 1) > 0
    with pytest.raises(SessionError, match="2 tokens and codes were made where 7"):
        together.rate(eager, crowd, 1)


def test_a_turn_pushed_live_beside_the_same_turn_given_whole() -> None:
    home = live.live_bench(TINY)
    pushed, submitted = live.pushed(home, TINY), live.submitted(home, TINY)
    assert pushed.what == submitted.what and len(pushed.end.text) == live.WORDS_A_TURN
    assert pushed.end.usage.prefilled_tokens < submitted.end.usage.prefilled_tokens
    assert pushed.reading > 0 and submitted.reading == 0
    [line] = rows.measure(tiny(), ["live-turn"])
    assert line.ratio == pytest.approx(line.peer / line.value) and "times faster than spoken" in line.note  # type: ignore[operator]


def test_turns_that_differ_are_no_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    other = live.submitted(live.live_bench(TINY), replace(TINY, spoken=1.0))
    monkeypatch.setattr(live, "submitted", lambda home, scale: other)
    with pytest.raises(SessionError, match="did not answer alike"):
        live.live_turn(tiny())


def test_the_last_turn_of_a_conversation_beside_its_first() -> None:
    talk = live.conversation(live.live_bench(TINY), TINY)
    tokens = [turn.end.usage.prompt_tokens for turn in talk]
    assert len(tokens) == 3 and tokens[1] - tokens[0] == tokens[2] - tokens[1] > live.WORDS_A_TURN
    [line] = rows.measure(tiny(), ["tenth-turn"])
    assert line.name == "first text at turn 3" and f"{tokens[2]} tokens" in line.note
    assert line.ratio == line.value / line.peer  # type: ignore[operator]


def test_steps_beside_sessions_that_only_hold_their_context() -> None:
    home = live.live_bench(TINY)
    with live.room(home, TINY, 2, 1) as step:
        assert step() > 0
    with pytest.raises(SessionError, match="the answer ended"), live.room(home, TINY, 0, 1) as step:
        [step() for _ in range(60)]
    assert [line.name for line in rows.measure(tiny(), ["idle"])] == [
        "a step beside 1 idle sessions", "a step beside 2 idle sessions"
    ]  # fmt: skip


def test_idle_sessions_hold_what_is_said_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    engines: list[Any] = []

    class Kept(live.Engine):
        def __init__(self, models: Any) -> None:
            super().__init__(models)
            engines.append(self)

    monkeypatch.setattr(live, "Engine", Kept)
    with live.room(live.live_bench(TINY), TINY, 2, 1):
        contexts = [slot.session.context for slot in engines[0].worker.slots.values() if slot.conversation is not None]
        assert len(contexts) == 2
        for context in contexts:
            assert context.thinker_kv.length == len(context.tokens) > TINY.held and context.unread == 0


def test_decoding_beside_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "probe", lambda memory: [0.5, 0.25, 0.125])  # the median: 0.25 s
    monkeypatch.setattr(decode, "step_seconds", lambda *given: ([0.5, 0.1, 0.1], [0.2, 0.2]))
    lines = decode.decode(tiny())
    assert [line.name.split(",")[0] for line in lines] == ["Thinker decode"] * 2 + ["Talker decode"] * 2
    assert [line.peer for line in lines] == [None] * 4 and lines[0].value == 10 and lines[2].value == 5
    thinker = 4 * (64 * shapes.VOCAB_SIZE + 3 * 64 * 64 + 64 * (2 * 64 + 1) + 2 * 32 * (64 + 1) + 2 * 64)
    assert lines[1].value == pytest.approx(10 * thinker / (4 * TINY.probe / 0.25))


def test_decode_steps_are_counted_alike() -> None:
    parts, voice, prompt = random_parts(TINY.decode), shapes.random_voice(TINY.decode), shapes.random_prompt(6)
    models = shapes.bench_models(parts)
    ours = decode.step_seconds(models, prompt, shapes.prepared_voice(models, TINY.decode), 3)
    theirs = reference.Reference(TINY.decode, parts, voice).step_seconds(prompt, 3)
    assert [len(side) for side in (*ours, *theirs)] == [3, 3, 3, 3]
    assert all(second > 0 for side in (*ours, *theirs) for second in side)


def test_the_peer_holds_our_tensors_not_copies() -> None:
    parts = random_parts(TINY.answer)
    theirs = reference.Reference(TINY.answer, parts, shapes.random_voice(TINY.answer)).model.state_dict()
    ours = parts.tensors()["thinker.decoder.layers.0.mlp.up_proj.weight"]
    assert theirs["thinker.model.language_model.layers.0.mlp.up_proj.weight"].data_ptr() == ours.data_ptr()


def test_nano_is_timed_on_a_spoken_question() -> None:
    class Timed(StubOmni):
        def events(self, *, speech: bool) -> Any:
            *rest, last = super().events(speech=speech)
            timings = Timings(1.0, first_audio_s=0.2, rtf=0.5)
            yield from [*rest, type(last)(last.text, last.reason, last.usage, timings, last.t)]

    omni = Timed()
    lines = nano.spoken_rows(tiny(repeats=2), omni, Path("question.wav"))  # type: ignore[arg-type]
    assert [options["latency"] for _, options in omni.calls] == 3 * ["low", "balanced", "quality"]
    assert omni.calls[0][0][0].content[0].source == "question.wav"
    judged = [(line.value, line.met) for line in lines]
    assert judged == [(0.2, None), (0.5, None), (0.2, True), (0.5, False), (0.2, None), (0.5, None)]


def test_without_nano_its_row_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nano, "embedded", list)
    [line] = nano.nano(tiny())
    assert line.value is None and "make train-nano" in line.note


class Late(StubOmni):
    """More than two voices at once are late."""

    def speak(self, text: str, **options: Any) -> Any:
        super().speak(text, **options)
        return self.said(options["seed"])

    def said(self, place: int) -> Any:
        *_, last = self.events(speech=True)
        yield replace(last, usage=replace(last.usage, underruns=int(place > 1)))


def test_voices_are_counted_until_one_is_late() -> None:
    omni = Late()
    [line] = voices.voices_in_time(tiny(repeats=3), omni)  # type: ignore[arg-type]
    assert line.value == 2 and line.met is False and "1: 0, 2: 0, 3: 1" in line.note
    assert len(omni.calls) == 4 * (1 + 2 + 3)  # all at once, in turns


# ---------------------------------------------------------------- what is kept and shown


@pytest.fixture
def canned(monkeypatch: pytest.MonkeyPatch) -> list[BenchLine]:
    lines = [time_line("swift", 0.123456, 2.0, Target("ratio >=", 12.0), "a note"), skipped("slow", "not here")]
    monkeypatch.setattr(rows, "BENCH_ROWS", {"swift": rows.BenchRow(lambda bench: lines, "bench-tiny")})
    return lines


def test_the_command_prints_a_table_and_keeps_the_figures(
    canned: list[BenchLine], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "bench.json"
    assert run(["bench", "--rows", "swift", "--compare", "transformers", "--json", str(out), "--threads", "1"]) == 0
    shown = capsys.readouterr().out
    assert "16.20 x" in shown and "not here" in shown
    kept = json.loads(out.read_text())
    assert set(kept) == {"machine", "versions", "commit", "rows"}
    assert kept["machine"]["threads"] == 1 and kept["machine"]["cpu"]
    assert set(kept["versions"]) == {"python", "torch", "descant", "transformers"}
    swift = {"name": "swift", "value": 0.1235, "peer": 2.0, "ratio": 16.2, "target": 12.0, "met": True}
    more = {"unit": "s", "promise": "ratio >= 12", "note": "a note"}
    assert kept["rows"][0] == swift | more
    assert kept["rows"][1]["value"] is None and kept["rows"][1]["note"] == "skipped: not here"


def test_a_missing_peer_is_named_before_anything_is_measured(
    canned: list[BenchLine], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reference, "find_spec", lambda name: None)
    assert run(["bench", "--compare", "transformers"]) == 2
    told = capsys.readouterr()
    assert "pip install 'transformers>=5.23,<6'" in told.err and not told.out
    assert run(["bench"]) == 0  # alone it needs nothing


def test_a_commit_outside_of_a_repository_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "run_command", lambda *words: "")
    assert report.commit() == "unknown"


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A program of benchmarks/, which finds its neighbours beside it."""
    folder = Path(__file__).resolve().parent.parent / "benchmarks"
    monkeypatch.syspath_prepend(folder)
    spec = spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def test_the_picture_shows_every_row(canned: list[BenchLine], monkeypatch: pytest.MonkeyPatch) -> None:
    plot = script("plot", monkeypatch)
    lines = [
        *canned,
        figure_line("load < 1", 0.4, Target("value <=", 0.2), "s"),
        growth_line("slower", after=2.6, before=2.0, target=Target("growth <=", 1.95)),
    ]
    kept = report.record(lines, tiny(), threads=1)
    picture = ElementTree.fromstring(plot.draw(kept))
    words = [node.text for node in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert {"swift", "slow", "load < 1", "slower", "skipped: not here"} <= set(words)
    assert [plot.reach(row) for row in kept["rows"]] == [16.2 / 12, None, 0.5, 1.5]  # type: ignore[attr-defined]
    widths = [node.get("width") for node in picture.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert widths == ["126.0", "140.0", "46.7"]
    assert plot.table(kept).splitlines()[2:] == [
        "| swift | 0.123 s | 2 s | 16.20x | >= 12 | yes |",
        "| load < 1 | 0.4 s |  |  | <= 0.2 | **no** |",
        "| slower | 2.6 s | 2 s | 1.30x | <= 1.95 | yes |",
    ]


def test_the_timeline_shows_every_lane_and_what_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    timeline = script("timeline", monkeypatch)
    trace = timeline.Trace(asked=1.0, answer="Three & more.", heard=[0.1] * 50)
    trace.add("reading", 0.5, 0.6)
    trace.add("text", 1.1, 1.2)
    trace.add("text", 1.3, 1.3001)  # a look that did nothing
    trace.texts = [(1.2, "Three"), (1.25, " & more.")]
    trace.sounds, trace.said = [(1.4, 2400), (1.45, 2400), (1.9, 480)], [0.2] * 11
    assert timeline.heard_from(trace)[::5] == pytest.approx([1.4, 1.5, 1.9])  # the third piece was late
    picture = ElementTree.fromstring(timeline.draw(trace))
    space = "{http://www.w3.org/2000/svg}"
    words = [node.text for node in picture.iter(f"{space}text")]
    assert {*timeline.LANES, '"Three & more."', "the question is over"} <= set(words)
    assert "first text 200 ms, first sound 400 ms" in " ".join(map(str, words))
    assert len(list(picture.iter(f"{space}rect"))) == 3 and len(list(picture.iter(f"{space}polygon"))) == 2
    assert timeline.loudness(timeline.np.array([0.1, -0.5, 0.2, 0.0], "float32"), 100) == pytest.approx([0.5, 0.2])


@pytest.mark.skipif("nano" not in embedded(), reason="its weights are not in this checkout")
def test_the_timeline_is_a_recording_of_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    timeline = script("timeline", monkeypatch)
    samples = timeline.question()
    assert len(samples) / timeline.RATE == pytest.approx(timeline.BEFORE + 1.68125 + timeline.AFTER, abs=1e-3)
    assert 0 < abs(samples[: timeline.RATE]).max() < 0.01 < abs(samples).max()
    monkeypatch.setattr(timeline, "question", lambda: samples[20000:30000])
    with threads(1):
        trace = timeline.record()
    assert trace.asked >= 10000 / timeline.RATE  # it was spoken, not given
    assert set(trace.spans) == set(timeline.LANES) - {"microphone", "loudspeaker"}
    assert min(begin for begin, _ in trace.spans["reading"]) < trace.asked < trace.spans["text"][0][0]
    assert "".join(piece for _, piece in trace.texts) == trace.answer and len(trace.said) > 10
