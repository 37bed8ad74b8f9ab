/**
 * Change the rate of a stream: a windowed sinc for each of the phases that two integer rates can have to one another.
 * Output k stands at input time k * from / to exactly, so nothing drifts, and any cuts give the same samples.
 */
const ZERO_CROSSINGS = 16;
const PASS_SHARE = 0.93; // of the lower Nyquist frequency

export class Resampler {
  readonly from: number;
  readonly to: number;
  private readonly step: number; // of the input for one output, in 1/phases of a sample
  private readonly phases: Float32Array[];
  private readonly half: number;
  private held: Float32Array;
  private whole = 0; // the next output's place in `held`, whole samples and 1/phases of one
  private part = 0;

  constructor(from: number, to: number) {
    this.from = from;
    this.to = to;
    const common = gcd(from, to);
    this.step = from / common;
    const count = to / common;
    const cutoff = PASS_SHARE * Math.min(1, to / from);
    this.half = from === to ? 0 : Math.ceil(ZERO_CROSSINGS / cutoff);
    this.phases = Array.from({ length: from === to ? 0 : count }, (_, phase) => kernel(phase / count, this.half, cutoff));
    this.held = new Float32Array(this.half); // silence before the first sample
    this.whole = this.half;
  }

  /** Take samples; returns those of the new rate that they complete. */
  push(input: Float32Array): Float32Array {
    if (this.from === this.to) return input.slice();
    const held = joined(this.held, input);
    const made: number[] = [];
    const count = this.phases.length;
    while (this.whole + this.half < held.length) {
      const taps = this.phases[this.part]!;
      const begin = this.whole - this.half + 1;
      let sum = 0;
      for (let n = 0; n < taps.length; n++) sum += taps[n]! * held[begin + n]!;
      made.push(sum);
      this.part += this.step;
      this.whole += Math.floor(this.part / count);
      this.part %= count;
    }
    const used = Math.max(0, Math.min(this.whole - this.half, held.length));
    this.held = held.slice(used);
    this.whole -= used;
    return Float32Array.from(made);
  }

  /** The samples that are still owed when the input ends. */
  flush(): Float32Array {
    return this.push(new Float32Array(this.half));
  }
}

/** The taps for an output that stands `offset` of a sample after an input; they sum to one. */
function kernel(offset: number, half: number, cutoff: number): Float32Array {
  const taps = new Float32Array(2 * half);
  let sum = 0;
  for (let n = 0; n < taps.length; n++) {
    const at = n - half + 1 - offset;
    const window = Math.cos((Math.PI * at) / (2 * half)) ** 2;
    const sinc = at === 0 ? 1 : Math.sin(Math.PI * cutoff * at) / (Math.PI * cutoff * at);
    taps[n] = Math.abs(at) >= half ? 0 : sinc * window;
    sum += taps[n]!;
  }
  return taps.map((tap) => tap / sum);
}

function gcd(a: number, b: number): number {
  return b === 0 ? a : gcd(b, a % b);
}

export function joined(...parts: Float32Array[]): Float32Array {
  const whole = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
