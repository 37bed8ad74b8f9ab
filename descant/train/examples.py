"""One example of understanding: a talk, and the right reply to its last turn, laid out by the code that inference uses.

Axes: B batch, T tokens, D dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from descant.config import InputsConfig, ThinkerConfig
from descant.inputs.prompt import PromptBuilder
from descant.inputs.template import opening
from descant.inputs.tokenizer import IM_END, Tokenizer
from descant.model.decoder import new_table
from descant.model.thinker import Thinker
from descant.nn.pages import PackedBatch, PagedBatch
from descant.tokens import PromptTokens, concatenate
from descant.train.mel import mask_mel
from descant.types import Message, assistant, system

IGNORED_LABEL = -100  # the label of a token without a loss


@dataclass(frozen=True)
class PastTurn:
    """An earlier turn of a talk: a question, and the reply that it got. learnt: whether that reply has a loss; one that
    is wrong, or was cut off, has none."""

    question: Message
    reply: str
    learnt: bool = True


@dataclass(frozen=True)
class Example:
    """A user's turn, and the right reply.

    mask_seed: distort the spectrograms too (training only); heard: the words that are spoken in the question, if any;
    before: the talk so far; system: its system turn ("": none).
    """

    task: str
    question: Message
    reply: str
    mask_seed: int | None = None
    heard: str = ""
    before: tuple[PastTurn, ...] = ()
    system: str = ""


@dataclass(frozen=True)
class ExampleEncoder:
    """The means of laying out examples."""

    tokenizer: Tokenizer
    inputs: InputsConfig
    cfg: ThinkerConfig
    builder: type[PromptBuilder] = PromptBuilder

    def prompt(self, example: Example) -> PromptTokens:
        """The talk so far, the user's turn, and the opening of the assistant's."""
        return concatenate([tokens for tokens, _ in self.parts(example)])

    def parts(self, example: Example) -> list[tuple[PromptTokens, bool]]:
        """The prompt message by message, the opening of the answer last; with each, whether it is a reply to learn."""
        builder = self.builder(self.tokenizer, self.inputs, self.cfg)
        if example.mask_seed is not None:
            rng = np.random.default_rng(example.mask_seed)
            builder = replace(builder, mel_transform=lambda mel: torch.from_numpy(mask_mel(mel.numpy(), rng)))
        messages = [(system(example.system), False)] if example.system else []
        for turn in example.before:
            messages += [(turn.question, False), (assistant(turn.reply), turn.learnt)]
        parts = []
        for message, learnt in [*messages, (example.question, False)]:
            parts.append((builder.build([message], speech=True, generate=False), learnt))
        return [*parts, (builder.write(opening("assistant")), False)]

    def reply(self, text: str) -> list[int]:
        """The ids that the model must write, its stop token included."""
        return [*self.tokenizer.encode(text), self.tokenizer.special(IM_END)]


@dataclass(frozen=True)
class TrainExample:
    """An example ready to be learnt: the prompt with its reply appended, and the replies' ids as labels (T,)."""

    task: str
    prompt: PromptTokens
    labels: Tensor  # int64; IGNORE where nothing is to be learnt; labels[t] is the id after token t
    heard: str = ""

    def __len__(self) -> int:
        return len(self.labels)


def encode_example(desk: ExampleEncoder, example: Example) -> TrainExample:
    """Append the reply. The stop token is a label but never an input, as in generation."""
    parts = desk.parts(example)
    prompt = concatenate([tokens for tokens, _ in parts])
    reply = desk.reply(example.reply)
    whole = prompt.with_reply(reply[:-1])
    labels = torch.full((len(whole),), IGNORED_LABEL)
    labels[len(prompt) - 1 :] = torch.tensor(reply)
    start = 0
    for tokens, learnt in parts:
        if learnt:  # from the last token of its opening on, each token's label is the next one, the stop token included
            first = start + len(parts[-1][0]) - 1
            last = start + len(tokens) - 2  # where the stop token stands, before its newline
            labels[first:last] = whole.ids[first + 1 : last + 1]
        start += len(tokens)
    return TrainExample(example.task, whole, labels, example.heard)


def hidden_of(thinker: Thinker, rows: Sequence[Tensor], prompts: Sequence[PromptTokens]) -> Tensor:
    """One pass over several embedded prompts, padded on the right where no real token can see it: (B, T, D)."""
    longest = max(len(r) for r in rows)
    embeds = torch.stack([F.pad(r, (0, 0, 0, longest - len(r))) for r in rows])
    positions = torch.stack([F.pad(p.positions, (0, longest - p.positions.shape[1])) for p in prompts], dim=1)
    hidden: Tensor = thinker(embeds, positions)
    return hidden


def reply_losses(
    thinker: Thinker, rows: Sequence[Tensor], lessons: Sequence[TrainExample], together: int = 8
) -> tuple[Tensor, Tensor]:
    """Cross entropy of each reply token; rows: the embedded prompts, in the order of the lessons.

    Lessons pass the decoder ``together`` at a time, the shortest first, so that little is padding.
    Returns (losses (K,), index of the lesson of each of the K tokens (K,)).
    """
    order = sorted(range(len(lessons)), key=lambda i: len(lessons[i]))
    losses = []
    owners = []
    for start in range(0, len(order), together):
        group = order[start : start + together]
        hidden = hidden_of(thinker, [rows[i] for i in group], [lessons[i].prompt for i in group])
        longest = hidden.shape[1]
        labels = torch.stack(
            [F.pad(lessons[i].labels, (0, longest - len(lessons[i])), value=IGNORED_LABEL) for i in group]
        )
        learnt = labels != IGNORED_LABEL
        losses.append(F.cross_entropy(thinker.logits(hidden[learnt]), labels[learnt], reduction="none"))
        owners.append(torch.tensor(group)[learnt.nonzero()[:, 0]])
    return torch.cat(losses), torch.cat(owners)


@torch.inference_mode()
def greedy_replies(
    thinker: Thinker, desk: ExampleEncoder, examples: Sequence[Example], max_tokens: int = 140
) -> list[str]:
    """Greedy replies to examples of equal or unequal length, one after the other."""
    stop = desk.reply("")[0]
    texts = []
    for example in examples:
        prompt = desk.prompt(example)
        table = new_table(thinker.decoder.cfg, len(prompt) + max_tokens, like=thinker.decoder.embed_tokens.weight)
        read = PackedBatch([table], [len(prompt)])
        hidden = thinker(thinker.embed([prompt])[0][None], prompt.positions[:, None], read)
        read.advance()
        written: list[int] = []
        while len(written) < max_tokens:
            token = int(thinker.logits(hidden[:, -1]).argmax())
            if token == stop:
                break
            at = torch.full((3, 1, 1), prompt.next_position + len(written))
            batch = PagedBatch([table])
            hidden = thinker(thinker.embed_tokens(torch.tensor([[token]])), at, batch)
            batch.advance()
            written.append(token)
        texts.append(desk.tokenizer.decode(written))
    return texts
