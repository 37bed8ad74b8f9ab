"""generation_config.json -> how this model answers when the caller says nothing.

Names are the reference's: bare keys and ``thinker_*`` are the Thinker's, ``talker_*`` the Talker's (the arguments of
transformers' ``Qwen2_5OmniForConditionalGeneration.generate``, whose own defaults stand in for absent keys). One object
of our own, ``descant.decoding``, holds changes to the engine's Decoding presets by latency.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_type_hints

from descant.config import OmniConfig
from descant.errors import OptionError
from descant.files import is_there
from descant.types import Decoding, Latency, Sampling
from descant.weights import inert
from descant.weights.plain import read_value
from descant.weights.strict import ConfigTable, read_json

GENERATION_FILE = "generation_config.json"

# defaults of the reference's generate(); a base model's file says nothing about the Talker
TALKER_PREFIX = Sampling(temperature=0.9, top_k=40, top_p=0.8, repetition_penalty=1.05, max_tokens=4096)
THINKER_MAX_TOKENS = 1024
REFERENCE_TOP_K = 50  # transformers' default where sampling is on and top_k is not given


@dataclass(frozen=True)
class GenerationDefaults:
    """text, speech: how the Thinker and the Talker draw; stop_ids, stop_codes: what ends each of them.

    suppressed_codes: codes that are never drawn. overrides: latency -> field of Decoding -> value, on top of the
    engine's preset.
    """

    text: Sampling
    speech: Sampling
    stop_ids: tuple[int, ...]
    stop_codes: tuple[int, ...]
    suppressed_codes: tuple[int, ...]
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def decoding(self, latency: Latency, preset: Decoding) -> Decoding:
        """``preset`` with this model's changes for ``latency``."""
        return dataclasses.replace(preset, **self.overrides.get(latency, {}))


def default_generation(config: OmniConfig) -> GenerationDefaults:
    """The reference's defaults for this model's ids: greedy Thinker, sampled Talker."""
    talker = config.talker
    return GenerationDefaults(
        text=Sampling(max_tokens=THINKER_MAX_TOKENS),
        speech=TALKER_PREFIX,
        stop_ids=(config.thinker.eos_id,),
        stop_codes=() if talker is None else (talker.codec_pad_id, talker.codec_end_id),
        suppressed_codes=() if talker is None else (talker.codec_start_id,),
    )


def read_generation(folder: str | Path, config: OmniConfig | None = None) -> GenerationDefaults:
    """Read ``folder``/generation_config.json (absent: the reference's defaults). ``config`` gives the special ids; left
    out, it is read from the folder. Raises ConfigError."""
    if config is None:
        from descant.weights.configfile import read_config  # configfile names this function among its own

        config = read_config(folder)
    base = default_generation(config)
    path = Path(folder) / GENERATION_FILE
    if not is_there(path):
        return base
    table = ConfigTable(read_json(path), GENERATION_FILE)
    table.ignore(*inert.GENERATION_KEYS)
    for name, neutral in inert.GENERATION_NEUTRAL.items():
        table.expect(name, neutral)
    for prefix in ("", "thinker_", "talker_"):
        table.expect(f"{prefix}num_beams", 1)
        table.expect(f"{prefix}num_return_sequences", 1)
    thinker = _sampling(table, "thinker_", _sampling(table, "", base.text, greedy=True), greedy=None)
    talker = _sampling(table, "talker_", base.speech, greedy=False)
    stop = table.integers("eos_token_id", base.stop_ids, minimum=0, scalar=True)
    generation = GenerationDefaults(
        text=thinker,
        speech=talker,
        stop_ids=table.integers("thinker_eos_token_id", stop, minimum=0, scalar=True),
        stop_codes=table.integers("talker_eos_token_id", base.stop_codes, minimum=0, scalar=True),
        suppressed_codes=table.integers("talker_suppress_tokens", base.suppressed_codes, minimum=0),
        overrides=_overrides(table),
    )
    table.close()
    _check_ids(table, generation, config)
    return generation


def _sampling(table: ConfigTable, prefix: str, base: Sampling, greedy: bool | None) -> Sampling:
    """Sampling from the keys with ``prefix``; ``greedy``: what an absent do_sample means (None: as in ``base``)."""
    drawn = base.temperature > 0 if greedy is None else not greedy
    draw = table.flag(f"{prefix}do_sample", drawn)
    fresh = draw and base.temperature == 0  # switched on here: the reference's sampling defaults come in
    # looked at even when greedy, so that a mistyped value is found
    temperature = table.number(f"{prefix}temperature", 1.0 if fresh else base.temperature)
    top_k = table.integer(f"{prefix}top_k", REFERENCE_TOP_K if fresh else base.top_k, minimum=0)
    top_p = table.number(f"{prefix}top_p", base.top_p, high=1.0)
    penalty = table.number(f"{prefix}repetition_penalty", base.repetition_penalty)
    if draw and temperature == 0:
        raise table.error(f"{prefix}temperature", "is 0 with do_sample true; expected more than 0, or do_sample false")
    if top_p == 0 or penalty == 0:
        name = "top_p" if top_p == 0 else "repetition_penalty"
        raise table.error(f"{prefix}{name}", "is 0; expected more than 0")
    return Sampling(
        temperature=temperature if draw else 0.0,
        top_k=top_k if draw else 0,
        top_p=top_p if draw else 1.0,
        repetition_penalty=penalty,
        max_tokens=table.integer(f"{prefix}max_new_tokens", base.max_tokens),
    )


def _overrides(top: ConfigTable) -> dict[str, dict[str, Any]]:
    own = top.maybe_table("descant")
    if own is None:
        return {}
    decoding = own.maybe_table("decoding")
    own.close(ours=True)
    if decoding is None:
        return {}
    hints = get_type_hints(Decoding)
    out: dict[str, dict[str, Any]] = {}
    for latency in get_args(Latency):
        row = decoding.maybe_table(latency)
        if row is not None:
            row.ignore(*hints)
            out[latency] = {name: read_value(row, name, hints[name]) for name in row.data if name in hints}
            row.close(ours=True)
            try:
                dataclasses.replace(Decoding(), **out[latency])
            except OptionError as error:
                raise decoding.error(latency, f"is impossible: {error}") from None
    decoding.close(ours=True)
    return out


def _check_ids(table: ConfigTable, g: GenerationDefaults, config: OmniConfig) -> None:
    limits = [("eos_token_id", g.stop_ids, config.thinker.text.vocab_size)]
    if config.talker is not None:
        vocab = config.talker.decoder.vocab_size
        limits += [("talker_eos_token_id", g.stop_codes, vocab), ("talker_suppress_tokens", g.suppressed_codes, vocab)]
    for name, ids, vocab in limits:
        if not ids and name != "talker_suppress_tokens":
            raise table.error(name, "is an empty list; expected at least one id, else an answer never ends")
        for value in ids:
            if value >= vocab:
                raise table.error(name, f"has {value}; expected ids below the vocabulary's {vocab}")
