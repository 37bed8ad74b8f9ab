"""From what the user typed to a folder: the embedded model, a folder, or a repository on the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from descant.errors import OptionError, WeightsError, shortened
from descant.files import is_there

MODELS_FOLDER = Path(__file__).resolve().parent.parent / "assets"
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# what a model folder needs; pickles other than the voices, and code, are never fetched
PATTERNS = ["*.json", "*.safetensors", "*.txt", "spk_dict.pt"]
KNOWN = ("Qwen/Qwen2.5-Omni-3B", "Qwen/Qwen2.5-Omni-7B")


def embedded() -> list[str]:
    """Names of the models that came with this installation."""
    return sorted(path.parent.name for path in MODELS_FOLDER.glob("*/config.json"))


def resolve(name: str | Path) -> Path:
    """``name`` -> the folder with its config.json.

    An embedded name ("nano"), a folder, or "org/repo" (fetched once through huggingface_hub, then found in its cache).
    Raises OptionError for a name that is none of these, WeightsError where the fetch fails.
    """
    text = str(name)
    if isinstance(name, str) and text in embedded():
        return MODELS_FOLDER / text
    try:
        folder = Path(text).expanduser()
        exists = folder.exists()
    except (OSError, RuntimeError, ValueError) as error:  # too long; nobody's home; a NUL in it
        raise OptionError(f"{shortened(text)} is no name of a model: {error}") from None
    if exists and folder.is_dir():
        if not is_there(folder / "config.json"):
            raise WeightsError(f"{folder} has no config.json. Give the folder that holds config.json and the weights.")
        return folder
    if exists:
        raise OptionError(f"{folder} is a file; a model is a folder that holds config.json and the weights.")
    if text == "nano":
        raise WeightsError(
            "the embedded model nano is not in this checkout. Train it (two cores, about three hours): make train-nano"
        )
    looks_local = not isinstance(name, str) or text.startswith((".", "/", "~"))
    if not looks_local and REPOSITORY.fullmatch(text):
        return _fetch(text)
    raise OptionError(
        f"no model called {shortened(text)}. Embedded here: {', '.join(embedded()) or 'none'}. Otherwise give a "
        f"folder, or a hub repository such as {' or '.join(KNOWN)}."
    )


def _fetch(repository: str) -> Path:
    """The snapshot of ``repository`` in the hub's cache, downloaded where it is not there yet."""
    import huggingface_hub  # here: it imports an HTTP stack, and local models need none of it
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    again = f"hf download {repository} --local-dir {repository.split('/')[1]}"
    local = f"On a machine with a network type: {again}  then copy the folder here and give its path."
    try:
        folder = Path(huggingface_hub.snapshot_download(repository, allow_patterns=PATTERNS))
    except GatedRepoError:
        raise WeightsError(
            f"{repository} asks for consent on its page. Give it there, then type: hf auth login"
        ) from None
    except RepositoryNotFoundError:
        raise WeightsError(
            f"the hub has no repository {repository} (or it is private: type hf auth login). Known: {', '.join(KNOWN)}."
        ) from None
    except (EntryNotFoundError, ConnectionError) as error:
        raise WeightsError(
            f"{repository} is not on this machine and the hub cannot be reached ({_first(error)}). {local}"
        ) from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise WeightsError(
            f"fetching {repository} failed ({_first(error)}). Type it again to go on where it stopped, or: {again}"
        ) from None
    if not (folder / "config.json").is_file():
        raise WeightsError(
            f"{repository} has no config.json: it is no model that descant reads. Known: {', '.join(KNOWN)}."
        )
    return folder


def _first(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__
