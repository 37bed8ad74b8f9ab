"""What can go wrong: a lost connection, a refused microphone, a busy server, a reload, two tabs, a key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import descant
from descant.errors import BusyError
from descant.server.settings import ServerSettings
from tests.page.conftest import FAKE_MEDIA, Tab, tab_of, write_microphone
from tests.server.conftest import KEY, Running, run

ANSWER = "Seven plus five is twelve."
NO_DEVICE = "() => { navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('x', '%s') } }"
QUESTION = "What is seven plus five?"


@pytest.fixture(scope="module")
def quiet(browser: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A browser with a microphone in a silent room."""
    silence: list[Any] = [120.0]
    return browser(*FAKE_MEDIA, write_microphone(tmp_path_factory.mktemp("room") / "silence.wav", silence))


@pytest.fixture
def context(quiet: Any) -> Iterator[Any]:
    made = quiet.new_context(viewport={"width": 1280, "height": 800}, locale="en")
    yield made
    made.close()


def notice(tab: Tab, text: str) -> None:
    tab.page.wait_for_function(
        "text => document.querySelector('.messages')?.textContent.includes(text)", arg=text, timeout=20_000
    )


def test_a_lost_connection_comes_back_and_the_conversation_goes_on(context: Any, served: Running) -> None:
    held: list[Any] = []
    with tab_of(context, served.url + "/#memory=all") as tab:

        def through(route: Any) -> None:
            held.append(route)
            route.connect_to_server()

        tab.page.route_web_socket("**/v1/realtime*", through)
        tab.begin_talk()
        tab.ask(QUESTION)
        assert tab.answer() == ANSWER
        tab.wait_state("Listening")
        held[0].close(code=1011)
        notice(tab, "Connected again")
        tab.wait_state("Listening")
        tab.shot("back")
        assert len(held) == 2
        tab.ask(QUESTION)
        tab.answer(2)
        assert tab.page.locator("article").count() == 4


def test_a_server_that_goes_away_in_the_middle_of_an_answer_keeps_what_was_heard(context: Any, served: Running) -> None:
    held: list[Any] = []
    with tab_of(context, served.url) as tab:

        def through(route: Any) -> None:
            if len(held) > 1:
                route.close(code=1013)
            else:
                held.append(route)
                route.connect_to_server()

        tab.page.route_web_socket("**/v1/realtime*", through)
        tab.begin_talk()
        held.append(None)
        tab.ask("What can you do?")
        tab.wait_state("Speaking")
        held[0].close(code=1011)
        tab.page.wait_for_selector("article.model .note")
        tab.wait_state("Connecting")
        tab.shot("lost")
        assert tab.kept()[1]["state"] in ("stopped", "done")


def test_a_refused_microphone_says_what_to_do(browser: Callable[..., Any], served: Running) -> None:
    context = browser("--use-fake-device-for-media-stream", "--deny-permission-prompts").new_context(locale="en")
    with tab_of(context, served.url) as tab:
        tab.page.click(".big-talk")
        notice(tab, "The microphone was refused")
        tab.shot("refused-microphone")
        tab.ask(QUESTION)  # and typing works as before
        assert tab.answer() == ANSWER


def test_no_microphone_at_all_is_told(context: Any, served: Running) -> None:
    with tab_of(context, served.url) as tab:
        tab.page.evaluate(NO_DEVICE % "NotFoundError")
        tab.page.click(".big-talk")
        notice(tab, "There is no microphone")
        tab.page.evaluate(NO_DEVICE % "NotReadableError")
        tab.page.click(".big-talk")
        notice(tab, "Another program holds the device")


def test_a_busy_server_is_asked_again(context: Any, served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    submit = served.omni.engine.submit
    refusals = iter(range(2))

    def full(*given: Any, **named: Any) -> Any:
        if next(refusals, None) is not None:
            raise BusyError("64 requests wait already; try again in 2 s", 1.2)
        return submit(*given, **named)

    monkeypatch.setattr(served.omni.engine, "submit", full)
    with tab_of(context, served.url) as tab:
        tab.ask(QUESTION)
        tab.page.wait_for_selector(".progress:has-text('The model is busy')")
        tab.shot("busy")
        assert tab.answer() == ANSWER


def test_a_reload_in_the_middle_of_an_answer_keeps_what_there_was(context: Any, served: Running) -> None:
    with tab_of(context, served.url) as tab:
        tab.ask("What can you do?")
        tab.page.wait_for_selector("article.model .prose")
        tab.page.wait_for_timeout(700)
        tab.page.reload()
        tab.page.wait_for_selector("article.model .note")
        assert "closed in the middle" in tab.page.inner_text("article.model .note")
        assert tab.page.inner_text(".bubble") == "What can you do?"
        tab.shot("reloaded")
        tab.page.wait_for_selector(".reach.ready")
        tab.page.click("article.model button[aria-label='Answer again']")
        assert tab.answer().startswith("I can hear, see and read")
    assert served.idle()


def test_two_tabs_have_a_conversation_each_and_one_list(context: Any, served: Running) -> None:
    with tab_of(context, served.url) as one, tab_of(context, served.url) as two:
        one.ask(QUESTION)
        two.ask("What day comes after Monday?")
        assert one.answer() == ANSWER and two.answer() == "After Monday comes Tuesday."
        for tab in (one, two):
            tab.page.wait_for_function("() => document.querySelectorAll('.sidebar li').length === 2")
        # a third look at the first conversation follows what is said there
        two.page.click(f".entry:has-text('{QUESTION}')")
        two.page.wait_for_function("text => document.querySelector('.bubble')?.textContent === text", arg=QUESTION)
        one.ask("What day comes after Monday?")
        one.answer(2)
        two.page.wait_for_function("() => document.querySelectorAll('article').length === 4")


def test_the_list_renames_deletes_exports_and_imports(context: Any, served: Running, tmp_path: Any) -> None:
    with tab_of(context, served.url) as tab:
        tab.ask(QUESTION)
        tab.answer()
        tab.page.wait_for_selector(".sidebar li")
        tab.page.hover(".sidebar li")
        tab.page.click("button[aria-label=Rename]")
        tab.page.fill(".asking input", "Sums")
        tab.page.press(".asking input", "Enter")
        tab.page.wait_for_selector(".entry:has-text('Sums')")
        tab.page.hover(".sidebar li")
        with tab.page.expect_download() as kept:
            tab.page.click(".sidebar button[aria-label=Export]")
        assert kept.value.suggested_filename == "Sums.descant.json"
        kept.value.save_as(tmp_path / "kept.json")
        tab.page.hover(".sidebar li")
        tab.page.click(".sidebar button[aria-label=Delete]")
        tab.page.click(".danger")
        tab.page.wait_for_function("() => document.querySelectorAll('.sidebar li').length === 0")
        tab.page.set_input_files(".foot input", tmp_path / "kept.json")
        tab.page.wait_for_selector("article.model button[aria-label=Play]")
        assert tab.page.inner_text("article.model .prose") == ANSWER
        (tmp_path / "other.json").write_text("{}")
        tab.page.set_input_files(".foot input", tmp_path / "other.json")
        notice(tab, "other.json is no conversation")


def test_a_key_is_asked_for_and_a_wrong_one_is_told(context: Any, nano: descant.Omni) -> None:
    # a second server beside the first: its gate and its key are what is tried, and it must not close the model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nano, "close", lambda: None)

        async def drained(_: float) -> None:
            return None

        patch.setattr(nano, "adrain", drained)
        running = run(nano, ServerSettings(model="nano", api_keys=(KEY,)))
        server = next(running)
        with tab_of(context, server.url, ready="dialog.key") as tab:
            tab.shot("key")
            tab.page.fill("dialog input", "wrong-key-wrong-key")
            tab.page.press("dialog input", "Enter")
            tab.page.wait_for_selector("dialog .fault")
            tab.page.fill("dialog input", KEY)
            tab.page.press("dialog input", "Enter")
            tab.page.wait_for_selector(".reach.ready")
            tab.ask(QUESTION)
            assert tab.answer() == ANSWER
            tab.page.click("button.talk")
            tab.wait_state("Listening")
        running.close()
