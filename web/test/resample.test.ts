import { describe, expect, it } from "vitest";
import { joined, Resampler } from "../src/audio/resample";

const PAIRS = [[48_000, 24_000], [44_100, 24_000], [24_000, 44_100], [24_000, 48_000], [16_000, 24_000], [96_000, 24_000], [24_000, 24_000]] as const;

function tone(hertz: number, rate: number, seconds: number): Float32Array {
  return Float32Array.from({ length: Math.round(rate * seconds) }, (_, n) => Math.sin((2 * Math.PI * hertz * n) / rate));
}

/** Numbers that look random and are the same every time. */
function* numbers(seed: number): Generator<number> {
  for (let state = seed; ; state = (state * 1_103_515_245 + 12_345) % 2 ** 31) yield state / 2 ** 31;
}

function inCuts(samples: Float32Array, from: number, to: number, seed: number): Float32Array {
  const resampler = new Resampler(from, to);
  const random = numbers(seed);
  const parts: Float32Array[] = [];
  for (let at = 0; at < samples.length; ) {
    const size = 1 + Math.floor(700 * random.next().value!);
    parts.push(resampler.push(samples.subarray(at, at + size)));
    at += size;
  }
  return joined(...parts, resampler.flush());
}

describe.each(PAIRS)("from %i to %i Hz", (from, to) => {
  it("keeps a tone where it is, in time and in height", () => {
    const made = inCuts(tone(440, from, 1), from, to, 1);
    const wanted = tone(440, to, 1);
    let worst = 0;
    for (let n = 100; n < wanted.length - 100; n++) worst = Math.max(worst, Math.abs(made[n]! - wanted[n]!));
    expect(worst).toBeLessThan(0.003); // -50 dB
  });

  it("gives the same samples in any cuts", () => {
    const samples = tone(997, from, 0.3);
    const whole = inCuts(samples, from, to, 1);
    for (let seed = 2; seed < 12; seed++) expect(inCuts(samples, from, to, seed)).toEqual(whole);
  });

  it("drifts by no sample, however long it goes on", () => {
    const resampler = new Resampler(from, to);
    const second = new Float32Array(from);
    let count = 0;
    for (let n = 1; n <= 20; n++) {
      count += resampler.push(second).length;
      expect(n * to - count).toBeLessThanOrEqual(80); // what is owed is the filter's half, and does not grow
      expect(n * to - count).toBeGreaterThanOrEqual(0);
    }
    expect(Math.abs(count + resampler.flush().length - 20 * to)).toBeLessThanOrEqual(1);
  });
});

it("lets nothing through that the new rate cannot carry", () => {
  const made = inCuts(tone(15_000, 48_000, 0.5), 48_000, 24_000, 1);
  const middle = made.subarray(200, made.length - 200);
  expect(middle.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0)).toBeLessThan(0.01);
});
