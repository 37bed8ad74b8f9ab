"""Names that people type: what they lead to, and what the message says when they lead nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from descant.errors import OptionError, WeightsError
from descant.weights import fetch
from descant.weights.fetch import resolve
from descant.weights.voices import PICKLE

REPOSITORY = "Qwen/Qwen2.5-Omni-3B"


@pytest.fixture
def assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(fetch, "MODELS_FOLDER", tmp_path / "assets")
    for name in ("nano", "empty"):
        (tmp_path / "assets" / name).mkdir(parents=True)
    (tmp_path / "assets" / "nano" / "config.json").write_text("{}")
    return tmp_path / "assets"


def test_embedded_name(assets: Path) -> None:
    assert resolve("nano") == assets / "nano"
    with pytest.raises(OptionError, match="no model called 'empty'. Embedded here: nano"):
        resolve("empty")


def test_a_checkout_without_nano_says_how_to_make_it(assets: Path) -> None:
    (assets / "nano" / "config.json").unlink()
    with pytest.raises(WeightsError, match="not in this checkout.*make train-nano"):
        resolve("nano")


def test_folder(ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve(ours) == ours
    assert resolve(str(ours)) == ours
    monkeypatch.chdir(ours.parent)
    assert resolve(ours.name) == Path(ours.name)
    with pytest.raises(WeightsError, match="no config.json"):
        resolve(tmp_path)


def test_a_file_is_not_a_model(ours: Path) -> None:
    with pytest.raises(OptionError, match="is a file"):
        resolve(ours / "config.json")


@pytest.mark.parametrize(
    "name", ["nnao", "", "a/b/c", "../x/y", "~/no/such", "./org/repo", "org/", "/no/where", Path("a/b")]
)
def test_unknown_names_say_what_there_is(name: str | Path, assets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: pytest.fail("asked the hub"))
    with pytest.raises((OptionError, WeightsError)) as error:
        resolve(name)
    if name != "":
        assert "Embedded here: nano" in str(error.value) and REPOSITORY in str(error.value)


def test_repository_is_fetched_without_code(ours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def snapshot(name: str, **options: Any) -> str:
        seen.update(options, name=name)
        return str(ours)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert resolve(REPOSITORY) == ours
    patterns = seen["allow_patterns"]
    assert seen["name"] == REPOSITORY and PICKLE in patterns
    names = ["modeling.py", "pytorch_model.bin", "x.pt", "a.sh", "model-00001-of-00003.safetensors", "merges.txt"]
    kept = list(huggingface_hub.utils.filter_repo_objects(names, allow_patterns=patterns))
    assert kept == ["model-00001-of-00003.safetensors", "merges.txt"]


def test_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The real client, with an empty cache and every connection refused."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    for offline in (True, False):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
        with pytest.raises(WeightsError) as error:
            resolve("descant-tests/no-such-model")
        message = str(error.value)
        assert "hf download descant-tests/no-such-model --local-dir no-such-model" in message
        assert "cannot be reached" in message and "\n" not in message


@pytest.mark.parametrize(
    "raised, words",
    [
        (LocalEntryNotFoundError("no cache"), "cannot be reached"),
        (ConnectionError("refused"), "cannot be reached"),
        (OSError(28, "No space left on device"), "No space left.*go on where it stopped"),
        (ValueError("odd"), "failed .odd."),
    ],
)
def test_failures_end_in_a_command(raised: Exception, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> str:
        raise raised

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(WeightsError, match=words) as error:
        resolve(REPOSITORY)
    assert f"hf download {REPOSITORY}" in str(error.value)


def test_a_repository_that_is_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: str(tmp_path))
    with pytest.raises(WeightsError, match="no config.json"):
        resolve(REPOSITORY)
