/** The last peaks of a side, for its waveform. They are of samples that were captured, or really played. */
export const PEAKS = 96;

export class Levels {
  readonly peaks = new Float32Array(PEAKS);
  private at = 0;
  count = 0;

  push(peak: number): void {
    this.peaks[this.at] = peak;
    this.at = (this.at + 1) % PEAKS;
    this.count++;
  }

  /** The peak that came `back` before the latest. */
  past(back: number): number {
    return this.peaks[(this.at - 1 - back + 2 * PEAKS) % PEAKS]!;
  }

  clear(): void {
    this.peaks.fill(0);
    this.count++;
  }
}

export const levels = { you: new Levels(), model: new Levels() };
