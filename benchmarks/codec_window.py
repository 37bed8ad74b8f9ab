"""How close windowed decoding is to one solve over the whole utterance, and what it costs.

    python benchmarks/codec_window.py                  random weights in the embedded model's shape
    python benchmarks/codec_window.py --model nano     a trained model; --codes FILE: codes of a real answer

For each latency preset, with the same noise on both sides:
mean |log-mel difference| (natural log of the amplitude); codes and sound before the first chunk; real-time factors
(seconds of work for a second of sound) of the whole solve and of the stream; how far below the sound the change is that
comes of reading the look-ahead mel early. Random weights say nothing about the differences of a trained model; they do
give the real-time factors. A trained model brings its own changes to the presets.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from descant.config import DiTConfig, EcapaConfig, Token2WavConfig, VocosConfig
from descant.model.codec import Token2Wav, decoding_for, noise
from descant.types import Decoding, Latency, Voice
from descant.weights.checkpoint import Checkpoint, load_checkpoint

LATENCIES: tuple[Latency, ...] = ("low", "balanced", "quality")
FRAME_S = 0.01  # seconds of a mel frame
SAMPLE_RATE = 24000  # Hz


def random_nano() -> tuple[Token2Wav, Voice]:
    """Random weights of about unit gain in the shape of the embedded model."""
    ecapa = EcapaConfig(mel_dim=80, enc_dim=64, channels=(64, 64, 64, 64, 192), attention_channels=32, se_channels=32)
    dit = DiTConfig(
        hidden_size=192,
        num_hidden_layers=6,
        num_attention_heads=4,
        head_dim=48,
        ff_mult=2,
        emb_dim=128,
        num_embeds=1024,
        mel_dim=80,
        repeats=4,
        enc_emb_dim=64,
        ecapa=ecapa,
        look_ahead_layers=(2,),
        look_backward_layers=(0, 4),
    )
    vocos = VocosConfig(mel_dim=80, hidden_size=192, num_layers=6, intermediate_size=576)
    generator = torch.Generator().manual_seed(0)
    net = Token2Wav(Token2WavConfig(dit, vocos)).eval()
    with torch.no_grad():
        for p in net.parameters():
            fan_in = p[0].numel() if p.ndim > 1 else 100
            p.copy_(torch.randn(p.shape, generator=generator) * 0.8 / fan_in**0.5)
    voice = Voice("random", 0, torch.randn(64, generator=generator), torch.randn(150, 80, generator=generator))
    return net, voice


def trained(checkpoint: Checkpoint, voice: str | None) -> tuple[Token2Wav, Voice]:
    if checkpoint.token2wav is None:
        raise SystemExit(f"{checkpoint.folder} has no speech part")
    return checkpoint.token2wav, checkpoint.voices[voice or next(iter(checkpoint.voices))]


def mel_unit(net: Token2Wav) -> float:
    """What a difference of 1 in the model's mel is in natural log amplitude."""
    return net.cfg.vocoder.mel_std if isinstance(net.cfg.vocoder, VocosConfig) else 1.0


def stream(net: Token2Wav, voice: Voice, codes: Tensor, seed: int, d: Decoding) -> tuple[int, int, float]:
    """Codes pushed one by one: (codes before the first sound, samples of that sound, seconds of work)."""
    begin = time.perf_counter()
    state, first = net.start(voice, seed, d), (len(codes), 0)
    for i, code in enumerate(codes.tolist()):
        samples, state = net.push(state, [code])
        if len(samples) and not first[1]:
            first = (i + 1, len(samples))
    samples, _ = net.finish(state)
    return first[0], first[1] or len(samples), time.perf_counter() - begin


def join_snr(net: Token2Wav, voice: Voice, codes: Tensor, seed: int, d: Decoding) -> float:
    """Decibels by which the sound is louder than what reading the look-ahead mel early changes in it."""
    sounds = []
    for early in (d.early, False):
        samples, state = net.push(net.start(voice, seed, replace(d, early=early)), codes)
        sounds.append(torch.cat([samples, net.finish(state)[0]]))
    given, exact = sounds
    return float(10 * torch.log10(exact.square().sum() / (given - exact).square().sum().clamp(min=1e-20)))


def measure(net: Token2Wav, voice: Voice, codes: Tensor, seed: int, d: Decoding) -> dict[str, float]:
    frames = len(codes) * net.cfg.dit.repeats
    x0 = noise(seed, 0, frames, net.cfg.dit.block_size, net.cfg.dit.mel_dim)
    begin = time.perf_counter()
    whole = net.mel_whole(codes, voice, x0, d)
    with torch.no_grad():
        net.vocoder(whole[None])
    whole_s = time.perf_counter() - begin
    windowed = net.mel_windowed(codes, voice, seed, d)
    first_codes, first_samples, stream_s = stream(net, voice, codes, seed, d)
    row = {
        "difference": float((windowed - whole).abs().mean()) * mel_unit(net),
        "first_codes": first_codes,
        "first_sound_ms": 1000 * first_samples / SAMPLE_RATE,
        "whole_rtf": whole_s / (frames * FRAME_S),
        "stream_rtf": stream_s / (frames * FRAME_S),
    }
    if d.early:
        row["early_snr_db"] = join_snr(net, voice, codes, seed, d)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="nano, a folder or a hub name; left out: random weights")
    parser.add_argument("--voice", help="left out: the model's first voice")
    parser.add_argument("--codes", type=Path, help="a JSON list of codes; left out: random codes")
    parser.add_argument("--count", type=int, default=150, help="random codes to draw (default 150)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    args = parser.parse_args()
    presets = {latency: decoding_for(latency) for latency in LATENCIES}
    if args.model:
        checkpoint = load_checkpoint(args.model)
        net, voice = trained(checkpoint, args.voice)
        presets = {latency: checkpoint.generation.decoding(latency, d) for latency, d in presets.items()}
    else:
        net, voice = random_nano()
    generator = torch.Generator().manual_seed(args.seed)
    codes = torch.randint(1, net.cfg.dit.num_embeds, (args.count,), generator=generator)
    if args.codes is not None:
        codes = torch.tensor(json.loads(args.codes.read_text()), dtype=torch.int64)
    rows = {latency: measure(net, voice, codes, args.seed, d) for latency, d in presets.items()}
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{len(codes)} codes, {len(codes) * net.cfg.dit.repeats * FRAME_S:.1f} s of sound")
    print("latency    |log-mel| diff  first codes  first sound  RTF whole  RTF stream  stream/whole  early SNR")
    for latency, r in rows.items():
        snr = f"{r['early_snr_db']:6.1f} dB" if "early_snr_db" in r else "    exact"
        print(
            f"{latency:9}  {r['difference']:14.5f}  {r['first_codes']:11.0f}  {r['first_sound_ms']:8.0f} ms  "
            f"{r['whole_rtf']:9.3f}  {r['stream_rtf']:10.3f}  {r['stream_rtf'] / r['whole_rtf']:12.2f}  {snr}"
        )


if __name__ == "__main__":
    main()
