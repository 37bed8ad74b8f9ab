"""How it looks: light and dark, wide and narrow, three languages, right to left; axe finds nothing in any state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.page.conftest import DEMO, FAKE_MEDIA, ROOT, Tab, tab_of, write_microphone
from tests.server.conftest import Running

AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
WIDE = {"width": 1280, "height": 800}
NARROW = {"width": 375, "height": 740}
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
CHECK = """async (rules) => {
  const found = await axe.run(document, { runOnly: rules });
  const told = (node) => node.html.slice(0, 160) + node.failureSummary;
  return found.violations.map((one) => [one.id, ...one.nodes.map(told)]);
}"""


def check(tab: Tab) -> None:
    """Axe's violations: none."""
    if not tab.page.evaluate("() => 'axe' in window"):
        tab.page.evaluate(AXE.read_text(encoding="utf-8"))
    found = tab.page.evaluate(CHECK, RULES)
    assert not found, found


@pytest.fixture(scope="module")
def chromium(browser: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    if not AXE.is_file():
        pytest.skip("axe-core comes with: make page")
    silence: list[Any] = [120.0]
    return browser(*FAKE_MEDIA, write_microphone(tmp_path_factory.mktemp("room") / "silence.wav", silence))


SCREENS: dict[str, dict[str, Any]] = {
    "light": {"viewport": WIDE, "color_scheme": "light", "locale": "en"},
    "dark": {"viewport": WIDE, "color_scheme": "dark", "locale": "ru"},
    "narrow": {"viewport": NARROW, "color_scheme": "light", "locale": "zh-CN", "has_touch": True, "is_mobile": True},
}


@pytest.mark.parametrize("name", SCREENS)
def test_no_state_has_a_violation(name: str, chromium: Any, served: Running) -> None:
    context = chromium.new_context(reduced_motion="reduce", **SCREENS[name])
    with tab_of(context, served.url + "/#seed=1") as tab:
        page = tab.page
        tab.shot(f"{name}-empty")
        check(tab)
        page.set_input_files("input[type=file][multiple]", [DEMO / "stars.png", DEMO / "sound.wav"])
        page.wait_for_selector(".composer figcaption")
        check(tab)
        page.click(".remove >> nth=1")
        tab.ask("How many shapes are there?")
        tab.answer()
        page.locator("article.model .tools button").last.click()
        tab.shot(f"{name}-answer")
        check(tab)
        page.click(".top button:last-child")
        page.wait_for_selector("dialog[open]")
        tab.shot(f"{name}-settings")
        check(tab)
        page.keyboard.press("Escape")
        page.click("button.talk")
        page.wait_for_selector(".dock.listening")
        tab.shot(f"{name}-talk")
        check(tab)
        page.click(".dock .buttons button >> nth=1")
        page.wait_for_selector("video.preview")
        tab.shot(f"{name}-camera")
        check(tab)
        page.click("button.end")
        if name == "narrow":
            page.click(".top button >> nth=0")
            page.wait_for_selector(".sidebar.open")
            tab.shot("narrow-list")
            check(tab)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    context.close()


REFUSED = """() => {
  navigator.mediaDevices.getUserMedia = async () => { throw new DOMException("x", "NotAllowedError"); };
}"""
ARABIC = "ما هو لون السماء؟ Blue, azul, 蓝色."


def test_text_that_runs_right_to_left_stands_right(chromium: Any, served: Running) -> None:
    context = chromium.new_context(viewport=WIDE, locale="en")
    with tab_of(context, served.url) as tab:
        tab.page.fill("#question", ARABIC)
        assert tab.page.evaluate("getComputedStyle(document.querySelector('#question')).direction") == "rtl"
        tab.page.press("#question", "Enter")
        tab.answer()
        assert tab.page.evaluate("getComputedStyle(document.querySelector('.bubble')).direction") == "rtl"
        # a whole page that runs so: nothing leaves the screen, and the list is on the other side
        tab.page.evaluate("() => { document.documentElement.dir = 'rtl'; }")
        assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert tab.page.evaluate("document.querySelector('.sidebar').getBoundingClientRect().right === innerWidth")
        tab.shot("right-to-left")
        check(tab)
    context.close()


def test_everything_is_reached_by_keys(chromium: Any, served: Running) -> None:
    context = chromium.new_context(viewport=WIDE, locale="en")
    with tab_of(context, served.url) as tab:
        reached = set()
        for _ in range(14):
            tab.page.keyboard.press("Tab")
            reached.add(
                tab.page.evaluate(
                    "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent"
                )
            )
        assert {"New conversation", "Import", "Settings", "Talk", "Add files", "Ask anything"} <= reached
        tab.page.focus(".top button[aria-label=Settings]")
        tab.page.keyboard.press("Enter")
        tab.page.wait_for_selector("dialog[open]")
        inside = set()
        for _ in range(40):
            tab.page.keyboard.press("Tab")
            inside.add(
                tab.page.evaluate(
                    "document.activeElement.closest('dialog') !== null || document.activeElement === document.body"
                )
            )
        assert inside == {True}  # the focus stays in the window
        tab.page.keyboard.press("Escape")
        tab.page.wait_for_selector("dialog", state="detached")
    context.close()


def test_settings_are_kept_and_a_link_brings_some(chromium: Any, served: Running) -> None:
    context = chromium.new_context(viewport=WIDE, locale="en")
    with tab_of(context, served.url + "/#instructions=Be%20brief.&talk=push&silence=300&theme=dark") as tab:
        assert tab.page.evaluate("document.documentElement.dataset.theme") == "dark"
        tab.page.click(".top button[aria-label=Settings]")
        assert tab.page.input_value("dialog textarea") == "Be brief."
        assert tab.page.input_value("#set-talk") == "push"
        tab.page.select_option("#set-language", "ru")
        tab.page.wait_for_selector("h2:has-text('Настройки')")
    with tab_of(context, served.url) as tab:
        assert tab.page.evaluate("document.documentElement.lang") == "ru"
        assert tab.page.evaluate("JSON.parse(localStorage['descant.settings']).silence") == 300
    context.close()


def test_no_violation_while_a_key_is_wanted_and_while_the_model_is_busy(chromium: Any, served: Running) -> None:
    context = chromium.new_context(viewport=WIDE, locale="en", reduced_motion="reduce")
    context.route("**/v1/models", lambda route: route.fulfill(status=401, json={"error": {"code": "invalid_api_key"}}))
    with tab_of(context, served.url, ready="dialog.key") as tab:
        check(tab)
        tab.page.fill("dialog input", "wrong-key-wrong-key")
        tab.page.press("dialog input", "Enter")
        tab.page.wait_for_selector("dialog .fault")
        check(tab)
        context.unroute("**/v1/models")
        tab.page.press("dialog input", "Enter")
        tab.page.wait_for_selector(".reach.ready")
        full = {"error": {"code": "overloaded", "message": "64 requests wait already"}}
        tab.page.route("**/v1/chat/completions", lambda route: route.fulfill(status=429, json=full))
        tab.ask("What can you do?")
        tab.page.wait_for_selector(".progress:has-text('The model is busy')")
        check(tab)
    context.close()


def test_no_violation_where_something_is_wrong(chromium: Any, served: Running) -> None:
    context = chromium.new_context(viewport=WIDE, locale="en", reduced_motion="reduce")
    with tab_of(context, served.url) as tab:
        tab.ask("What can you do?")
        tab.page.wait_for_selector("article.model .prose")
        tab.page.wait_for_timeout(1200)
        tab.page.keyboard.press("Escape")
        tab.page.wait_for_selector("article.model .note")
        check(tab)
        tab.page.evaluate(REFUSED)
        tab.page.click("button.talk")
        tab.page.wait_for_selector(".message")
        check(tab)
        tab.page.route("**/v1/chat/completions", lambda route: route.abort())
        tab.ask("What can you do?")
        tab.page.wait_for_selector("article.model .fault")
        assert tab.page.inner_text("article.model .fault") == "No answer: the server cannot be reached"
        check(tab)
        tab.shot("failed")
    context.close()
