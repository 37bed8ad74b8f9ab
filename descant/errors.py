"""One tree of exceptions. Every message says what was given, what was expected, and what to do next.

DescantError
├── MediaError      bytes, files or media that the door refuses; carries a stable ``code``
├── OptionError     an unknown or contradictory option, voice, model name or sampling value
├── ConfigError     a config file with a missing, unknown or impossible key
├── WeightsError    a checkpoint that is missing, truncated, mismatched or unsafe
├── RequestError    a request over HTTP that is refused; carries the status and the code of its response
└── SessionError    one request that failed or was cancelled; nothing else is lost by it
    └── BusyError   no room for it now; carries an estimate of when there will be
"""

SHOWN_CHARACTERS = 60  # of a value that an error repeats
MESSAGE_CHARACTERS = 800  # of a whole message


def readable(text: str) -> str:
    """A message that cannot steer a terminal and fits a screen: one line, printable, its middle left out if long."""
    text = " ".join(text.split("\n"))
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    half = MESSAGE_CHARACTERS // 2
    return text if len(text) <= MESSAGE_CHARACTERS else f"{text[:half]} ... {text[-half:]}"


class DescantError(Exception):
    """Base of every error that descant raises on purpose. The message is printable, on one line, and not too long."""

    def __init__(self, message: str):
        super().__init__(readable(message))


class MediaError(DescantError):
    """Media that was refused. ``code`` is stable and machine-readable, e.g. ``"audio.too_long"``."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


class OptionError(DescantError):
    """An unknown or contradictory option, voice, model name or sampling value."""


class ConfigError(DescantError):
    """A config with a missing, unknown or impossible key; the message names the key."""


class WeightsError(DescantError):
    """A checkpoint that is missing, truncated, mismatched or unsafe to read."""


class SessionError(DescantError):
    """One request that failed or was cancelled. The model and other sessions stay usable."""


class BusyError(SessionError):
    """There is no room for a request now. ``retry_s``: seconds until there may be (None: nobody knows)."""

    def __init__(self, message: str, retry_s: float | None = None):
        super().__init__(message)
        self.retry_s = retry_s


class RequestError(DescantError):
    """A request over HTTP that is refused. status, code, kind ("type" of the body), param, headers: of its response."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        kind: str = "invalid_request_error",
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ):
        super().__init__(message)
        self.status = status
        self.code = code
        self.kind = kind
        self.param = param
        self.headers = dict(headers or {})


def shortened(value: object) -> str:
    """The repr of a value as an error shows it: on one line, and not too long."""
    text = repr(value).replace("\n", " ")
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
