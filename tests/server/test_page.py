"""The page's files: what is served without a key, under which policy, and that no name leads out of the folder."""

from __future__ import annotations

import gzip
from pathlib import Path

import httpx
import pytest

from descant.server.page import POLICY, read_page
from tests.server.conftest import KEY, Running

SCRIPT = b"console.log(1)\n" * 100


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A page as `make page` leaves it, beside a file that is none of it."""
    (tmp_path / "page" / "assets").mkdir(parents=True)
    (tmp_path / "page" / "index.html").write_text("<!doctype html><title>descant</title>")
    (tmp_path / "page" / "assets" / "index-1a2b3c.js").write_bytes(SCRIPT)
    (tmp_path / "page" / "assets" / "notes.txt").write_text("not of a kind that a page has")
    (tmp_path / "page" / "secret.js").write_text("secret")
    return tmp_path / "page"


@pytest.fixture
def served(server: Running, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Running:
    monkeypatch.setattr(server.server.gate.state, "page", read_page(folder))
    return server


def test_the_page_needs_no_key_and_all_else_does(served: Running) -> None:
    for path in ("/", "/assets/index-1a2b3c.js"):
        assert httpx.get(served.url + path).status_code == 200
    for path in ("/assets/notes.txt", "/assets/other.js", "/secret.js", "/v1/models", "/metrics", "/assets/"):
        assert httpx.get(served.url + path).status_code == 401, path
    with pytest.raises(httpx.HTTPError), httpx.stream("GET", served.url + "/v1/realtime") as answer:
        answer.raise_for_status()


def test_its_policy_lets_nothing_from_elsewhere_in(served: Running) -> None:
    for path in ("/", "/assets/index-1a2b3c.js"):
        headers = httpx.get(served.url + path).headers
        assert headers["content-security-policy"] == POLICY and headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY" and "microphone=(self)" in headers["permissions-policy"]
    assert "default-src 'none'" in POLICY and "unsafe" not in POLICY and "*" not in POLICY


def test_names_with_a_digest_are_kept_for_ever_and_the_page_is_asked_for_anew(served: Running) -> None:
    assert httpx.get(served.url + "/").headers["cache-control"] == "no-cache"
    assert "immutable" in httpx.get(served.url + "/assets/index-1a2b3c.js").headers["cache-control"]


def test_files_are_packed_for_those_who_read_that(served: Running) -> None:
    url = served.url + "/assets/index-1a2b3c.js"
    with httpx.stream("GET", url, headers={"accept-encoding": "gzip"}) as answer:
        packed = b"".join(answer.iter_raw())
    assert gzip.decompress(packed) == SCRIPT and len(packed) < len(SCRIPT)
    plain = httpx.get(url, headers={"accept-encoding": "identity"})
    assert plain.content == SCRIPT and plain.headers["content-type"].startswith("text/javascript")


WAYS_OUT = ("/assets/../secret.js", "/assets/..%2fsecret.js", "/assets/%2e%2e/secret.js", "/assets/....//secret.js",
            "/assets//etc/passwd", "/assets/..\\secret.js", "//secret.js", "/index.html", "/assets/%00")  # fmt: skip


@pytest.mark.parametrize("path", WAYS_OUT)
def test_no_name_leads_out_of_the_folder(path: str, served: Running) -> None:
    key = {"authorization": f"Bearer {KEY}"}
    answer = httpx.get(httpx.URL(served.url, raw_path=path.encode()), headers=key)
    assert answer.status_code == 404 and b"secret" not in answer.content.replace(path.encode(), b"")


def test_a_page_that_is_not_built_says_how(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.server.gate.state, "page", {})
    answer = httpx.get(server.url + "/")
    assert answer.status_code == 404 and "make page" in answer.text
    assert answer.headers["content-type"].startswith("text/html")
    assert httpx.get(server.url + "/v1/models", headers={"authorization": f"Bearer {KEY}"}).status_code == 200


def test_a_folder_without_an_index_is_no_page(tmp_path: Path) -> None:
    assert read_page(tmp_path) == {} and read_page(tmp_path / "nothing") == {}
