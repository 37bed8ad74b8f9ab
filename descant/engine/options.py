"""The options of an answer, as its user gives them: names, types and bounds."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

from descant.checks import check_plain, check_type
from descant.errors import OptionError, shortened
from descant.tools import ToolUse
from descant.types import AnswerOptions, Budget, Decoding, Sampling

MOST_LOGPROBS = 20
MOST_STOPS = 16
STOP_CHARACTERS = 256  # of one stop text
OPTION_TYPES: dict[str, type | tuple[type, ...]] = {  # of AnswerOptions; plain values are checked by their annotation
    "sampling": Sampling,
    "talker_sampling": Sampling,
    "latency": (str, Decoding),
    "budget": Budget,
    "tools": (list, tuple, ToolUse),
    "schema": Mapping,
    "stop": (list, tuple),
}


def check_options(options: AnswerOptions) -> None:
    """Refuse options that do not exist, with the nearest that does, and values of a wrong type."""
    for name, value in options.items():
        annotation = AnswerOptions.__annotations__.get(name)
        if annotation is None:
            near = get_close_matches(name, AnswerOptions.__annotations__, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(AnswerOptions.__annotations__)}"
            raise OptionError(f"unknown option {shortened(name)}; {hint}")
        if name in OPTION_TYPES and value is not None:
            check_type(name, value, OPTION_TYPES[name])
        else:
            check_plain(name, value, annotation.__forward_arg__)
    logprobs = options.get("logprobs")
    if logprobs is not None and not 0 <= logprobs <= MOST_LOGPROBS:
        raise OptionError(f"logprobs={logprobs} is impossible; allowed: 0 to {MOST_LOGPROBS}")
    stops = stops_of(options)
    if len(stops) > MOST_STOPS or not all(isinstance(s, str) and 0 < len(s) <= STOP_CHARACTERS for s in stops):
        raise OptionError(
            f"stop={shortened(stops)}; write up to {MOST_STOPS} texts of 1 to {STOP_CHARACTERS} characters"
        )


def stops_of(options: AnswerOptions) -> tuple[str, ...]:
    """The texts that end the answer."""
    return tuple(options.get("stop") or ())
