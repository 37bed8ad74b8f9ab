"""The Talker's training: rows of a frozen Thinker in, codes of speech out, laid out as at inference time.

Axes: B batch, T rows, P prompt tokens, G reply tokens, C codes, E the Thinker's width.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from descant.config import TalkerConfig
from descant.errors import ConfigError
from descant.model.decoder import new_table
from descant.model.talker import Talker, prompt_rows, reply_rows, step_row, tail_rows
from descant.model.thinker import Thinker
from descant.nn.init import init_normal
from descant.nn.pages import PackedBatch, PagedBatch
from descant.tokens import PromptTokens
from descant.train.ears import with_cached_ears
from descant.train.examples import Example, encode_example, hidden_of
from descant.train.loop import Metrics, StageContext, Task, load_module
from descant.train.nano import domain, phrases
from descant.train.nano.mixture import draw_example, make_example
from descant.train.nano.speech_data import Corpus
from descant.train.nano.wide import wide_replies
from descant.train.recipe import read_dataclass
from descant.train.scoring import collapse, edit_distance
from descant.train.tasks.codec import Codes, load_codec
from descant.train.tasks.setting import encoder_of, examples_of, new_thinker
from descant.train.teacher import opening_rows, teacher_rows, text_stream
from descant.types import READ_ALOUD, user

LINE_KINDS = (
    "reply",
    "phrase",
    "words",
    "sentence",
)  # shares that are not tasks of the mixture: lines of the corpus to read aloud
SHORT_QUESTIONS = sorted({ask for _, _, asks in phrases.CHAT for ask in asks if len(ask) <= 12})
MAX_CODES = 400  # 16 s: where a free-running evaluation gives up


@dataclass(frozen=True)
class TalkerOptions:
    """shares: task of the Thinker's mixture, or kind of line to read aloud -> weight; thinker: the stage to read from;
    start: a Talker stage to begin with; voice: the embedding row that stands for the voice; plain: share of lines
    read without capital and full stop; bare: share of them that answer some short question instead of "Say: ...", which
    is half as many rows; corrupt: share of codes that are replaced in the input; wide: dialogues of all the domain."""

    shares: Mapping[str, float]
    thinker: str
    voice: int
    start: str | None = None
    plain: float = 0.3
    bare: float = 0.7
    corrupt: float = 0.1
    sort: int = 8
    evaluated: int = 40
    wide: bool = False


@dataclass(frozen=True)
class SpokenAnswer:
    """A prompt with its reply appended, the number of reply tokens, and what is said: codes (C,), the end code last."""

    prompt: PromptTokens
    reply: int
    codes: Tensor

    def __len__(self) -> int:
        return len(self.prompt) + 1 + len(self.codes)


@dataclass(frozen=True)
class AnswerStates:
    """The Thinker's states of one answer: h + e of the prompt (P, E) and of the reply (G, E), and their places."""

    prompt: Tensor
    reply: Tensor
    positions: Tensor  # (3, P)
    next_position: int  # of the first reply token


@torch.no_grad()
def thinker_rows(thinker: Thinker, prompts: list[PromptTokens], replies: list[int]) -> list[AnswerStates]:
    """One pass of the frozen Thinker over prompts with their replies appended, the last ``replies`` tokens of each."""
    embeds = thinker.embed(prompts)
    hidden = hidden_of(thinker, embeds, prompts)
    rows = []
    for prompt, embed, h, count in zip(prompts, embeds, hidden, replies, strict=True):
        asked = len(prompt) - count
        whole = len(prompt)
        question = prompt_rows(embed[:asked], h[:asked], prompt.filled()[:asked])
        answer = reply_rows(embed[asked:], h[asked:whole])
        rows.append(AnswerStates(question, answer, prompt.positions[:, :asked], int(prompt.positions[:, asked:].min())))
    return rows


def talker_config(context: StageContext) -> TalkerConfig:
    if context.recipe.model.talker is None:
        raise ConfigError(f"recipe {context.recipe.name}: the task talker needs model.talker")
    return context.recipe.model.talker


class TalkerTask(Task[list[SpokenAnswer]]):
    """Cross entropy of the codes of teacher-forced answers; batches of about equal length."""

    def __init__(self, context: StageContext):
        self.stage = context.stage
        self.cfg = talker_config(context)
        self.options = options = read_dataclass(TalkerOptions, self.stage.options, f"stages.{self.stage.name}.options")
        self.corpus = Corpus([context.need("speech")])
        self.codes = Codes(context.need("codec"), self.corpus)
        self.encoder, self.decoder = load_codec(context)
        self.thinker = new_thinker(context)
        self.thinker.load_state_dict(load_module(context.runs / options.thinker, "thinker"))
        if options.wide:
            with_cached_ears(self.thinker)
        self.thinker.requires_grad_(False).eval()
        torch.manual_seed(self.stage.seed)
        self.talker = Talker(self.cfg)
        init_normal(self.talker)
        if options.start is not None:
            self.talker.load_state_dict(load_module(context.runs / options.start, "talker"))
        self.modules = {"talker": self.talker}
        self.desk = encoder_of(context, cached=options.wide)
        self.source = examples_of(context, "train", options.wide)
        self.spoken_by = {u.text: i for i, (_, u) in enumerate(self.corpus.utterances) if not u.held_out}
        self.lines = {kind: self.corpus.select(held_out=False, kind=kind) for kind in LINE_KINDS}
        unspoken = set(wide_replies("train") if options.wide else domain.replies("train")) - set(self.spoken_by)
        if unspoken and set(options.shares) - set(LINE_KINDS):
            raise ConfigError(
                f"{len(unspoken)} replies of the domain were never spoken, such as {min(unspoken)!r}: make the "
                "stage speech again, or take only lines to read aloud as shares"
            )
        self._group: tuple[int, list[list[SpokenAnswer]]] = (-1, [])

    # ---------------------------------------------------------------- examples

    def batch(self, step: int) -> list[SpokenAnswer]:
        """``sort`` batches are drawn at once and dealt out by length, so that little is padding."""
        group, place = divmod(step, self.options.sort)
        if self._group[0] != group:
            size = self.stage.batch
            total = size * self.options.sort
            drawn = sorted((self.example(group * total + i) for i in range(total)), key=len)
            batches = [drawn[i : i + size] for i in range(0, total, size)]
            random.Random(f"deal/{self.stage.seed}/{group}").shuffle(batches)
            self._group = (group, batches)
        return self._group[1][place]

    def example(self, number: int) -> SpokenAnswer:
        """Example ``number``: a dialogue of the domain, or a line to read aloud."""
        rng = random.Random(f"talker/{self.stage.seed}/{number}")
        shares = self.options.shares
        task = rng.choices(list(shares), list(shares.values()))[0]
        if task in LINE_KINDS:
            line = rng.choice(self.lines[task])
            asked = rng.choice(SHORT_QUESTIONS) if rng.random() < self.options.bare else READ_ALOUD
            return self.read_aloud(line, asked, plain=rng.random() < self.options.plain)
        dialogue = draw_example(self.source, {task: 1.0}, self.stage.seed, number)
        while dialogue.reply not in self.spoken_by:  # a sentence that the corpus keeps for its held-out figures
            dialogue = make_example(self.source, task, rng)
        return self.spoken(dialogue, self.spoken_by[dialogue.reply])

    def held_out_batch(self) -> list[SpokenAnswer]:
        """Lines that the corpus keeps to itself, as many of each kind."""
        each = max(1, self.stage.batch // len(LINE_KINDS))
        chosen = [self.corpus.select(held_out=True, kind=kind)[:each] for kind in LINE_KINDS]
        return [self.read_aloud(line) for lines in chosen for line in lines]

    def read_aloud(self, line: int, asked: str = READ_ALOUD, plain: bool = False) -> SpokenAnswer:
        """A line of the corpus, said after ``asked``; ``plain``: in lower case, without its full stop."""
        text = self.corpus.utterances[line][1].text
        if plain:
            text = text.lower().rstrip(".")
        return self.spoken(Example("say", user(asked.format(text=text)), text), line)

    def spoken(self, example: Example, line: int) -> SpokenAnswer:
        """An example with the codes of the utterance ``line``."""
        learnt = encode_example(self.desk, example)
        codes = torch.cat([torch.from_numpy(self.codes.of(line)), torch.tensor([self.cfg.codec_end_id])])
        return SpokenAnswer(learnt.prompt, len(self.desk.reply(example.reply)) - 1, codes)

    # ---------------------------------------------------------------- the loss

    def answer_rows(self, rows: AnswerStates, codes: Tensor, tail: Tensor) -> Tensor:
        """All rows of an answer that says ``codes`` (C,), (P + C + 1, E)."""
        voice = self.thinker.embed_tokens(torch.tensor(self.options.voice))
        opening = opening_rows(self.talker, rows.prompt, voice, rows.reply[0])
        return teacher_rows(self.talker, opening, text_stream(rows.reply, tail, len(codes) - 1), codes)

    def loss(self, batch: list[SpokenAnswer], rng: torch.Generator) -> tuple[Tensor, Metrics]:
        read = thinker_rows(self.thinker, [one.prompt for one in batch], [one.reply for one in batch])
        tail = tail_rows(self.thinker, self.cfg)
        longest = max(map(len, batch))
        inputs = []
        positions = []
        wanted = []
        for one, rows in zip(batch, read, strict=True):
            made = self.answer_rows(rows, self.corrupted(one.codes, rng), tail)
            asked = rows.prompt.shape[0]
            padding = longest - len(made)
            inputs.append(F.pad(made, (0, 0, 0, padding)))
            after = torch.arange(longest - asked) + rows.next_position
            positions.append(torch.cat([rows.positions, after.expand(3, -1)], dim=1))
            wanted.append(F.pad(one.codes, (asked + 1, padding), value=-100))
        labels = torch.stack(wanted)
        hidden = self.talker.decoder(self.talker.proj(torch.stack(inputs)), torch.stack(positions, dim=1))
        learnt = labels != -100
        guesses = self.talker.codec_head(hidden[learnt])
        right = labels[learnt]  # the head where it counts, only
        loss = F.cross_entropy(guesses, right)
        accuracy = float((guesses.argmax(-1) == right).float().mean())
        return loss, {"accuracy": accuracy, "units": float(len(right))}

    def corrupted(self, codes: Tensor, rng: torch.Generator) -> Tensor:
        """Codes with some replaced by random ones: what the model reads of its own past will not be perfect either."""
        noise = torch.randint(self.cfg.codec_pad_id, codes.shape, generator=rng)
        return torch.where(torch.rand(codes.shape, generator=rng) < self.options.corrupt, noise, codes)

    # ---------------------------------------------------------------- held-out figures

    @torch.inference_mode()
    def say(self, example: SpokenAnswer) -> Tensor:
        """Greedy codes (C,) of an answer, the end code left out."""
        cfg = self.cfg
        talker = self.talker
        rows = thinker_rows(self.thinker, [example.prompt], [example.reply])[0]
        tail = tail_rows(self.thinker, cfg)
        voice = self.thinker.embed_tokens(torch.tensor(self.options.voice))
        opening = opening_rows(talker, rows.prompt, voice, rows.reply[0])
        stream = text_stream(rows.reply, tail, MAX_CODES)
        two = torch.arange(2).expand(3, -1) + rows.next_position
        table = new_table(cfg.decoder, len(opening) + MAX_CODES, like=talker.decoder.embed_tokens.weight)
        read = PackedBatch([table], [len(opening)])
        logits = talker(opening[None], torch.cat([rows.positions, two], dim=1)[:, None], read)
        read.advance()
        said: list[int] = []
        while len(said) < MAX_CODES:
            code = int(logits[0, -1].argmax())
            if code == cfg.codec_end_id:
                break
            said.append(min(code, cfg.codec_pad_id - 1))
            at = torch.full((3, 1, 1), rows.next_position + 1 + len(said))
            row = step_row(talker, torch.tensor([[said[-1]]]), stream[None, len(said) - 1 : len(said)])
            batch = PagedBatch([table])
            logits = talker(row, at, batch)
            batch.advance()
        return torch.tensor(said, dtype=torch.int64)

    def phones_of(self, codes: Tensor) -> list[int]:
        """The phones that the codec's own head hears in codes (C,): phones without repeats and pauses."""
        logits, _ = self.decoder(self.encoder.codebook.lookup(codes)[None])
        return collapse(logits[0].argmax(-1).tolist())

    def evaluate(self) -> Metrics:
        """Phone errors per phone, free-running and greedy, by kind of held-out line; the codec's own errors beside."""
        figures: Metrics = {}
        for kind in LINE_KINDS:
            errors = 0
            floor = 0
            phones = 0
            for line in self.corpus.select(held_out=True, kind=kind)[: self.options.evaluated]:
                true = collapse(self.corpus.phones(line).tolist())
                errors += edit_distance(self.phones_of(self.say(self.read_aloud(line))), true)
                floor += edit_distance(self.phones_of(torch.from_numpy(self.codes.of(line))), true)
                phones += len(true)
            if phones:
                figures |= {f"per_{kind}": errors / phones, f"codec_{kind}": floor / phones}
        return figures
