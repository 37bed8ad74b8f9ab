/// <reference path="./worklet.d.ts" />
import { RATE_HZ } from "./jitter";
import type { FromMicrophone } from "./messages";
import { Resampler, joined } from "./resample";

const CUT_SAMPLES = 240; // 10 ms: a cut waits for its end, half of that on average

/** Gives the microphone's sound at RATE_HZ, in cuts of 10 ms. */
class Capture extends AudioWorkletProcessor {
  private resampler = new Resampler(sampleRate, RATE_HZ);
  private held = new Float32Array(0);

  override process(inputs: Float32Array[][]): boolean {
    const channels = inputs[0] ?? [];
    const first = channels[0];
    if (!first) return true;
    const mono = channels.length === 1 ? first : first.map((_, n) => mean(channels, n));
    this.held = joined(this.held, this.resampler.push(mono)) as Float32Array<ArrayBuffer>;
    while (this.held.length >= CUT_SAMPLES) {
      const samples = this.held.slice(0, CUT_SAMPLES);
      this.held = this.held.slice(CUT_SAMPLES);
      const peak = samples.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0);
      const message: FromMicrophone = { samples, peak, at: currentTime };
      this.port.postMessage(message, [samples.buffer]);
    }
    return true;
  }
}

function mean(channels: Float32Array[], n: number): number {
  return channels.reduce((sum, channel) => sum + channel[n]!, 0) / channels.length;
}

registerProcessor("capture", Capture);
