import { describe, expect, it, vi } from "vitest";
import { EchoGate } from "../src/audio/echo";
import { Levels } from "../src/audio/levels";

const CUT = Float32Array.of(0.02, -0.03);
const isSilent = (samples: Float32Array) => samples.every((sample) => sample === 0);

describe("the echo gate", () => {
  it("takes the rest of the model's own voice away, and nothing while it is silent", () => {
    const gate = new EchoGate();
    expect(isSilent(gate.pass(CUT, 0.03, 0.5, 0))).toBe(true);
    expect(gate.pass(CUT, 0.03, 0.5, 20)).toHaveLength(CUT.length);
    expect(gate.pass(CUT, 0.03, 0, 40)).toBe(CUT);
  });

  it("lets a person through, and the soft ends of their words", () => {
    const gate = new EchoGate();
    expect(gate.pass(CUT, 0.2, 0.5, 0)).toBe(CUT);
    expect(gate.pass(CUT, 0.01, 0.5, 280)).toBe(CUT);
    expect(isSilent(gate.pass(CUT, 0.01, 0.5, 320))).toBe(true);
  });
});

describe("levels", () => {
  it("hold the loudest of the last half second, also when the waveform is cleared", () => {
    vi.useFakeTimers({ toFake: ["performance"] });
    const levels = new Levels();
    levels.push(0.8);
    vi.advanceTimersByTime(300);
    levels.push(0.2);
    levels.clear();
    expect(levels.loudest(performance.now())).toBeCloseTo(0.8);
    vi.advanceTimersByTime(250); // the first is too old by now
    expect(levels.loudest(performance.now())).toBeCloseTo(0.2);
    vi.advanceTimersByTime(300);
    expect(levels.loudest(performance.now())).toBe(0);
    vi.useRealTimers();
  });
});
