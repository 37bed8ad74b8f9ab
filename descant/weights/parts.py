"""A config as modules without weights: the three parts on the meta device, and the names of their tensors."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from descant.config import OmniConfig
from descant.model.codec import Token2Wav
from descant.model.talker import Talker
from descant.model.thinker import Thinker
from descant.nn.init import shapes_only
from descant.nn.prepare import prepare


@dataclass(frozen=True)
class Parts:
    """The three parts; talker and token2wav are None in a model that does not speak."""

    thinker: Thinker
    talker: Talker | None
    token2wav: Token2Wav | None

    def named(self) -> dict[str, nn.Module]:
        """The parts that are there, by the first word of their tensors' names."""
        parts: dict[str, nn.Module | None] = {
            "thinker": self.thinker,
            "talker": self.talker,
            "token2wav": self.token2wav,
        }
        return {name: part for name, part in parts.items() if part is not None}

    def prepare(self) -> None:
        """Make the modules fast for answering, once, when the weights are there; see ``nn.prepare``."""
        for part in self.named().values():
            prepare(part)

    def counts(self) -> dict[str, int]:
        """Numbers that are stored of each part that is there; the official count takes in the rotary frequencies."""
        return {
            name: sum(tensor.numel() for tensor in part.state_dict(keep_vars=True).values())
            for name, part in self.named().items()
        }

    def tensors(self) -> dict[str, Tensor]:
        """Our name -> parameter or stored buffer, in module order."""
        return {
            f"{name}.{key}": tensor
            for name, part in self.named().items()
            for key, tensor in part.state_dict(keep_vars=True).items()
        }


def build_parts(config: OmniConfig) -> Parts:
    """Modules with initialised weights, on the device of the surrounding ``torch.device`` context."""
    talker = None if config.talker is None else Talker(config.talker)
    token2wav = None if config.token2wav is None else Token2Wav(config.token2wav)
    return Parts(Thinker(config.thinker), talker, token2wav)


def build_on_meta(config: OmniConfig) -> Parts:
    """Modules whose tensors have shapes and no memory."""
    with shapes_only():
        return build_parts(config)
