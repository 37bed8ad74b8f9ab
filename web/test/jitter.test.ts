import { describe, expect, it } from "vitest";
import { JitterBuffer, RATE_HZ } from "../src/audio/jitter";
import { joined } from "../src/audio/resample";

const BLOCK = 128;

/** Numbers that look random and are the same every time. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31;
    return state / 2 ** 31;
  };
}

const ramp = (length: number, from = 1) => Float32Array.from({ length }, (_, n) => (from + n) / 100_000);

/** Push samples at random moments, and pull until all is over; what left, silence of under-runs dropped. */
function play(samples: Float32Array, seed: number, rate = RATE_HZ) {
  const buffer = new JitterBuffer(1, rate);
  const draw = random(seed);
  const block = new Float32Array(BLOCK);
  const heard: Float32Array[] = [];
  let at = 0;
  let blocks = 0;
  while (!buffer.state.over && blocks < 1_000_000) {
    if (at < samples.length && draw() < 0.1) {
      const size = 1 + Math.floor(2000 * draw());
      buffer.push(samples.slice(at, at + size));
      at += size;
      if (at >= samples.length) buffer.end();
    }
    const before = buffer.state.played;
    buffer.pull(block);
    const count = buffer.state.played - before;
    if (rate === RATE_HZ) heard.push(block.slice(0, count));
    blocks++;
  }
  return { heard: joined(...heard), state: buffer.state };
}

describe("whatever the network does", () => {
  it("every sample is played once, in order, and counted", () => {
    for (let seed = 1; seed <= 30; seed++) {
      const samples = ramp(20_000);
      const { heard, state } = play(samples, seed);
      expect(heard).toEqual(samples);
      expect(state.played).toBe(samples.length);
      expect(state.buffered).toBe(0);
    }
  });

  it.each([44_100, 48_000, 96_000])("the count is of the protocol's samples on a device of %i Hz", (rate) => {
    for (let seed = 1; seed <= 5; seed++) expect(play(ramp(9000), seed, rate).state.played).toBe(9000);
  });
});

it("plays what is there at once", () => {
  const buffer = new JitterBuffer(1, RATE_HZ);
  buffer.push(ramp(300));
  const block = new Float32Array(BLOCK);
  expect(buffer.pull(block)).toBe(true);
  expect(block).toEqual(ramp(BLOCK));
});

it("waits for more after it ran out, longer each time, and counts it", () => {
  const buffer = new JitterBuffer(1, RATE_HZ);
  const block = new Float32Array(BLOCK);
  buffer.push(ramp(BLOCK));
  buffer.pull(block);
  expect(buffer.pull(block)).toBe(false);
  expect(buffer.state.underruns).toBe(1);
  buffer.push(ramp(1000));
  expect(buffer.pull(block)).toBe(false); // 120 ms are not there yet
  buffer.push(ramp(2000));
  expect(buffer.pull(block)).toBe(true);
  expect(buffer.state.underruns).toBe(1);
});

it("does not wait for more when no more comes", () => {
  const buffer = new JitterBuffer(1, RATE_HZ);
  const block = new Float32Array(BLOCK);
  buffer.push(ramp(BLOCK));
  buffer.pull(block);
  buffer.pull(block);
  buffer.push(ramp(10));
  buffer.end();
  expect(buffer.pull(block)).toBe(true);
  expect(buffer.state).toMatchObject({ over: true, played: BLOCK + 10, underruns: 1 });
});

it("a stop is silent within five milliseconds, and says what was played", () => {
  for (const rate of [RATE_HZ, 44_100, 48_000]) {
    const buffer = new JitterBuffer(1, rate);
    const block = new Float32Array(BLOCK);
    buffer.push(new Float32Array(48_000).fill(0.5));
    for (let n = 0; n < 50; n++) buffer.pull(block);
    const { played } = buffer.stop();
    expect(Math.abs(played - (50 * BLOCK * RATE_HZ) / rate)).toBeLessThan(1);
    const after = joined(...Array.from({ length: 8 }, () => (buffer.pull(block), block.slice())));
    const last = after.findLastIndex((sample) => sample !== 0);
    expect(last).toBeLessThan(0.005 * rate);
    expect(buffer.state).toMatchObject({ over: true, played });
    buffer.push(new Float32Array(100).fill(1)); // what comes late is not played
    buffer.pull(block);
    expect(block.every((sample) => sample === 0)).toBe(true);
  }
});
