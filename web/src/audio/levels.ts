/** The last peaks of a side, for its waveform. They are of samples that were captured, or really played. */
export const PEAKS = 96;
const HELD_MS = 500; // longer than a sound takes from the worklet to the ear, and back through a microphone

export class Levels {
  readonly peaks = new Float32Array(PEAKS);
  private readonly kept = new Float32Array(PEAKS); // the same, whatever the waveform shows
  private readonly times = new Float64Array(PEAKS).fill(-Infinity);
  private at = 0;
  count = 0;

  push(peak: number): void {
    this.peaks[this.at] = this.kept[this.at] = peak;
    this.times[this.at] = performance.now();
    this.at = (this.at + 1) % PEAKS;
    this.count++;
  }

  /** The peak that came `back` before the latest. */
  past(back: number): number {
    return this.peaks[(this.at - 1 - back + 2 * PEAKS) % PEAKS]!;
  }

  /** The loudest of the last HELD_MS. now: ms of performance.now(). */
  loudest(now: number): number {
    return this.kept.reduce((most, peak, n) => (now - this.times[n]! <= HELD_MS ? Math.max(most, peak) : most), 0);
  }

  clear(): void {
    this.peaks.fill(0);
    this.count++;
  }
}

export const levels = { you: new Levels(), model: new Levels() };
