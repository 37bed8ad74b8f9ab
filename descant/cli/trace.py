"""A deterministic greedy pass written to a file: how to check descant against another implementation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from descant.cli import common
from descant.cli.player import cannot_write
from descant.errors import OptionError
from descant.files import check_output, open_output, read_file
from descant.types import Audio, Image, Message, Part, Video

MAX_CONVERSATION_BYTES = 64 << 20


def read_conversation(path: Path) -> list[Message]:
    """A conversation in the form of the official model card. Media are looked up beside the file, then from here."""
    from descant.inputs.messages import read_messages

    data = read_file(path, MAX_CONVERSATION_BYTES, lambda _, why: OptionError(why))
    try:
        conversation = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise OptionError(f"{path} is not JSON ({error}); expected a list of messages as on the model card") from error
    messages = read_messages(conversation)
    return [Message(m.role, tuple(beside(part, path.parent) for part in m.content)) for m in messages]


def beside(part: Part, folder: Path) -> Part:
    """The same part with its path taken relative to ``folder``, where such a file exists."""
    if not isinstance(part, Image | Audio | Video) or not isinstance(part.source, str):
        return part
    path = folder / part.source
    source = str(path) if path.is_file() else part.source
    return Video(source, part.use_audio) if isinstance(part, Video) else type(part)(source)


def trace(
    model: common.ModelArgument,
    messages: Annotated[Path, typer.Option("--messages", metavar="FILE.json", help="The conversation.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.safetensors", help="Where the tensors go.")],
    max_text: Annotated[int, typer.Option("--max-text", min=1, help="At most this many steps of text.")] = 64,
    max_codes: Annotated[int, typer.Option("--max-codes", min=1, help="At most this many codes.")] = 256,
    voice: common.VoiceOption = None,
    dtype: common.DtypeOption = None,
    device: common.DeviceOption = None,
) -> None:
    """Write ids, positions, features, logits, codes, mel and wave of a greedy answer as safetensors."""
    from safetensors.torch import save

    check_output(out, "--out", [messages])
    conversation = read_conversation(messages)
    omni = common.open_model(model, dtype=dtype, device=device)
    tensors = omni.trace(conversation, max_text=max_text, max_codes=max_codes, voice=voice)
    try:
        with open_output(out, "--out") as file:
            file.write(save({name: tensor.contiguous() for name, tensor in tensors.items()}))
    except OSError as error:
        raise cannot_write(out, error) from None
    for name, tensor in tensors.items():
        print(f"{name:16} {tuple(tensor.shape)!s:16} {str(tensor.dtype).removeprefix('torch.')}")
