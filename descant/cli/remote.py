"""``--url``: a server in the shape that the shell knows of a model, for ``descant chat``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Unpack

import typer

from descant.types import AnswerOptions

if TYPE_CHECKING:
    from descant.remote.server import RemoteServer
    from descant.remote.talk import RemoteTalk

UrlOption = Annotated[
    str | None,
    typer.Option("--url", metavar="ADDRESS", help="An OpenAI-compatible server, e.g. http://127.0.0.1:8000."),
]
KeyOption = Annotated[
    str | None, typer.Option("--key", envvar="DESCANT_KEY", show_envvar=True, help="The key that the server asks for.")
]


class RemoteHome:
    """A model of a server. name: of the model; voices: none where the server does not list them."""

    def __init__(self, server: RemoteServer, name: str, voices: tuple[str, ...]):
        self.server = server
        self.name = name
        self.voices = voices

    def session(self, **options: Unpack[AnswerOptions]) -> RemoteTalk:
        """Begin a conversation."""
        from descant.remote.talk import RemoteTalk

        return RemoteTalk(
            self.server,
            self.name,
            speech=options.get("speech", True),
            max_tokens=options.get("max_tokens"),
            seed=options.get("seed"),
        )


@contextmanager
def remote_home(url: str, key: str | None, model: str | None) -> Iterator[RemoteHome]:
    """A model of the server at ``url``, until the block ends. Raises OptionError, RequestError and SessionError."""
    from descant.remote.server import RemoteServer

    with RemoteServer(url, key) as server:
        name = server.model(model)
        yield RemoteHome(server, name, server.voices())
