/** What was said into a session, on the session's clock: samples by the ms that the server counts, and their times. */
import { RATE_HZ } from "./audio/jitter";
import { toFloat, toInt16 } from "./audio/pcm";

const KEPT_S = 310; // the model hears the last 300 s of a turn

export class Capture {
  private cuts: Int16Array[] = [];
  private first = 0; // samples before those that are kept
  private count = 0;
  private lastTime = 0;

  /** The session counts from here. */
  restart(): void {
    this.cuts = [];
    this.first = this.count = 0;
    this.lastTime = performance.now();
  }

  /** age: seconds since the end of the cut was captured. */
  add(samples: Float32Array, age: number): void {
    this.cuts.push(toInt16(samples));
    this.count += samples.length;
    this.lastTime = performance.now() - 1000 * age;
    while (this.count - this.first > KEPT_S * RATE_HZ) this.first += this.cuts.shift()!.length;
  }

  get endMs(): number {
    return (1000 * this.count) / RATE_HZ;
  }

  /** When a sample was captured, ms of performance.now(). */
  timeOf(ms: number): number {
    return this.lastTime - (this.endMs - ms);
  }

  between(startMs: number, endMs: number): Float32Array {
    const at = (ms: number) => Math.max(0, Math.round((ms * RATE_HZ) / 1000) - this.first);
    const kept = new Int16Array(this.count - this.first);
    let place = 0;
    for (const cut of this.cuts) {
      kept.set(cut, place);
      place += cut.length;
    }
    return toFloat(kept.slice(at(startMs), at(endMs)));
  }
}
