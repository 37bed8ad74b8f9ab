"""The settings of a server: from flags, the environment (``DESCANT_*``) and a file; the first that says so wins."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from descant.errors import OptionError
from descant.server.silero import Detection
from descant.types import Dtype, Latency

MIB_BYTES = 1 << 20  # bytes
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


def listed(given: object) -> object:
    """A list as an environment variable has it: "a, b", or JSON."""
    if not isinstance(given, str):
        return given
    if given.strip().startswith("["):
        return json.loads(given)
    return [one for one in map(str.strip, given.split(",")) if one]


# 16 printable ASCII characters or more: a key that could be guessed is no key (openssl rand -hex 16 makes one)
ApiKey = Annotated[str, Field(min_length=16, pattern=r"^[!-~]+$")]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(listed)]


class ServerSettings(BaseSettings):
    """host, port: where it listens. api_keys: who may ask; without any, only this machine may. allowed_hosts: names
    that clients call it by, beside ``host`` and loopback; allowed_origins: pages of other hosts that may ask.
    body_bytes: of one request. drain_s: seconds that answers may take to end when it is told to stop. idle_s,
    session_s: seconds that a realtime socket may be silent, and open. vad: what tells speech from other sound (auto:
    silero where its extra is installed). requests_per_key, sockets_per_key: at once, of one key (without keys there is
    nobody to share with); sockets, connections: of all. head_s: for the first lines of a request; stall_s, body_s:
    between two parts of a body, and for all of it; slow_reader_s: without progress of who reads an answer; request_s:
    for a whole request. media_hosts: names that media may be fetched from ("example.com", ".example.com" for all below
    it, "*" for any); none: no address is fetched. tls_*: files for https."""

    model_config = SettingsConfigDict(env_prefix="DESCANT_", extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    model: str = "nano"
    dtype: Dtype | None = None
    device: str | None = None
    latency: Latency = "balanced"
    api_keys: Annotated[tuple[ApiKey, ...], NoDecode, BeforeValidator(listed)] = ()
    allowed_hosts: Names = ()
    allowed_origins: Names = ()
    body_bytes: int = Field(32 * MIB_BYTES, ge=1024)
    drain_s: float = Field(30.0, ge=0)
    idle_s: float = Field(300.0, gt=0)
    session_s: float = Field(3600.0, gt=0)
    vad: Detection = "auto"
    requests_per_key: int = Field(32, ge=1)
    sockets_per_key: int = Field(16, ge=1)
    sockets: int = Field(512, ge=1)
    connections: int = Field(2048, ge=1)
    head_s: float = Field(10.0, gt=0)
    stall_s: float = Field(10.0, gt=0)
    body_s: float = Field(60.0, gt=0)
    slow_reader_s: float = Field(30.0, gt=0)
    request_s: float = Field(600.0, gt=0)
    media_hosts: Names = ()
    tls_certificate: Path | None = None
    tls_key: Path | None = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @property
    def is_loopback(self) -> bool:
        """True if only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def address(self) -> str:
        """The address to type."""
        scheme = "https" if self.tls_certificate else "http"
        return f"{scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def read_settings(config: Path | None, flags: Mapping[str, object]) -> ServerSettings:
    """The settings; flags that are None were not given. Raises OptionError."""
    given = {name: value for name, value in flags.items() if value is not None}

    class FromFile(ServerSettings):
        model_config = SettingsConfigDict(env_prefix="DESCANT_", extra="forbid", frozen=True, toml_file=config)

    if config is not None and not config.is_file():
        raise OptionError(f"there is no file {config}; check --config")
    try:
        settings = FromFile(**given)  # type: ignore[arg-type]
    except ValueError as error:  # pydantic's ValidationError, and a file that is no TOML
        raise OptionError(f"the server's settings are wrong: {error}") from None
    if not settings.is_loopback and not settings.api_keys:
        raise OptionError(
            f"--host {settings.host} lets other machines in, and there is no key: give DESCANT_API_KEYS=KEY "
            "(openssl rand -hex 16 makes one), or listen on 127.0.0.1"
        )
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        raise OptionError("https needs both --tls-certificate and --tls-key")
    return settings
