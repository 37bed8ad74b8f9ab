"""Typed questions and files, in a real browser."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.page.conftest import DEMO, Tab, tab_of
from tests.server.conftest import Running

QUIET_RMS = 0.02
CLOCK_MS = 60  # between two looks at the clock of the sound, and what is on its way to the ear


@pytest.fixture(scope="module")
def window(browser: Callable[..., Any]) -> Any:
    return browser().new_context(viewport={"width": 1280, "height": 800}, locale="en")


@pytest.fixture
def tab(window: Any, served: Running) -> Iterator[Tab]:
    with tab_of(window, served.url + "/#seed=1") as tab:
        yield tab


def samples_in(base64: str) -> np.ndarray:
    return np.frombuffer(b64decode(base64)[44:], "<i2").astype(np.float32) / 32768


def test_a_typed_question_is_answered_in_text_and_aloud(tab: Tab) -> None:
    tab.ask("What is seven plus five?")
    assert tab.answer() == "Seven plus five is twelve."
    question, answer = tab.kept()
    assert question["text"] == "What is seven plus five?" and answer["state"] == "done"
    sound = samples_in(answer["sound"])
    assert np.sqrt(np.mean(sound**2)) > QUIET_RMS
    trace = answer["trace"]
    assert trace["asked"] <= trace["sent"] <= trace["text"] <= trace["played"] and trace["sound"] <= trace["played"]
    tab.page.wait_for_function("() => document.querySelector('button[aria-label=Stop]') === null")
    ended = tab.kept()[1]["trace"]["ended"]
    assert ended - trace["played"] >= 1000 * len(sound) / 24_000 - CLOCK_MS  # all of it was played
    tab.shot("typed")


FILES = {
    "stars.png": ("How many shapes are there?", "I see three shapes."),
    "sound.wav": ("What do you hear?", "I hear a siren."),
    "video.mp4": ("Which colour was shown when the beep sounded?", "In second one it was purple."),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_asked_about(name: str, tab: Tab) -> None:
    question, answer = FILES[name]
    tab.page.set_input_files("input[type=file][multiple]", DEMO / name)
    tab.page.wait_for_selector(f"figcaption:has-text('{name}')")
    tab.ask(question)
    assert tab.answer() == answer
    tab.shot(f"file-{name.rpartition('.')[2]}")


DROP = """async ([bytes, name, type]) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], name, { type }));
  const at = document.querySelector(".page");
  for (const kind of ["dragover", "drop"]) at.dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true }));
}"""


def test_a_picture_that_is_dropped_is_asked_about_and_what_is_no_medium_is_refused(tab: Tab) -> None:
    tab.page.evaluate(DROP, [list((DEMO / "stars.png").read_bytes()), "stars.png", "image/png"])
    tab.page.evaluate(DROP, [[1, 2, 3], "letter.docx", "application/msword"])
    assert "letter.docx is no picture, sound or video" in tab.page.inner_text(".composer .fault")
    tab.shot("attached")
    tab.ask("How many shapes are there?")
    assert tab.answer() == "I see three shapes."


def test_a_broken_picture_says_why(tab: Tab) -> None:
    tab.page.evaluate(DROP, [[1, 2, 3], "broken.png", "image/png"])
    tab.ask("What is it?")
    tab.page.wait_for_selector("article.model .fault")
    assert "No answer:" in tab.page.inner_text("article.model .fault")
    tab.shot("refused-file")


def test_stopping_silences_within_200_ms_and_greys_what_was_not_heard(tab: Tab) -> None:
    tab.ask("What can you do?")
    tab.page.wait_for_function("() => document.querySelectorAll('article.model .prose').length > 0")
    tab.page.wait_for_timeout(1500)
    tab.page.keyboard.press("Escape")
    tab.page.wait_for_selector(".unheard")
    answer = tab.kept()[-1]
    assert answer["state"] == "stopped" and 0 < answer["heard"] < len(answer["text"])
    assert answer["trace"]["silent"] - answer["trace"]["stopAt"] < 200
    tab.shot("interrupted")


def test_a_question_is_edited_and_an_answer_made_again(tab: Tab) -> None:
    tab.ask("What is seven plus five?")
    tab.answer()
    tab.page.click("article.model button[aria-label='Answer again']")
    tab.page.wait_for_selector("article.model[aria-busy='true']")  # the first answer has made room for the second
    assert tab.answer() == "Seven plus five is twelve."
    tab.page.hover("article.user")
    tab.page.click("article.user button[aria-label='Edit and ask again']")
    tab.page.fill(".editor textarea", "What day comes after Monday?")
    tab.page.press(".editor textarea", "Enter")
    assert tab.answered("After Monday comes Tuesday.")
    tab.answer()
    assert len(tab.kept()) == 2


def test_the_composer_remembers_and_breaks_lines(tab: Tab) -> None:
    tab.ask("What is seven plus five?")
    tab.answer()
    tab.page.press("#question", "ArrowUp")
    assert tab.page.input_value("#question") == "What is seven plus five?"
    tab.page.press("#question", "ArrowDown")
    assert tab.page.input_value("#question") == ""
    tab.page.type("#question", "a")
    tab.page.press("#question", "Shift+Enter")
    tab.page.type("#question", "b")
    assert tab.page.input_value("#question") == "a\nb" and tab.page.locator("article.user").count() == 1
