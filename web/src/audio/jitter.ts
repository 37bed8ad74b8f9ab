import { joined, Resampler } from "./resample";

export const RATE_HZ = 24_000; // of the protocols' sound
const AGAIN_S = 0.12; // of sound that must be there after an under-run, doubled each time
const MOST_S = 1;
const FADE_S = 0.005;

/** What a player knows of the answer that it plays. played: samples at RATE_HZ that left for the loudspeaker. */
export interface Played {
  answer: number;
  played: number;
  buffered: number;
  underruns: number;
  over: boolean;
}

/**
 * The sound of one answer between network and loudspeaker: it plays at once, and when the sound runs out waits until
 * more is there. Every sample that leaves is counted, so that an interruption is cut where it was heard.
 */
export class JitterBuffer {
  private queue: Float32Array[] = [];
  private ready: Float32Array = new Float32Array(0); // at the device's rate
  private resampler: Resampler;
  private waiting = true;
  private ended = false;
  private flushed = false;
  private emitted = 0; // frames of the device
  private received = 0;
  private need = 0;
  private underruns = 0;
  private fading = 0; // frames left of the fade after a stop
  private fadeFrames: number;
  private stopped = false;
  readonly answer: number;
  readonly rate: number;

  constructor(answer: number, rate: number) {
    this.answer = answer;
    this.rate = rate;
    this.resampler = new Resampler(RATE_HZ, rate);
    this.fadeFrames = Math.round(FADE_S * rate);
  }

  push(samples: Float32Array): void {
    if (this.stopped || this.ended) return;
    this.queue.push(samples);
    this.received += samples.length;
  }

  /** No more sound comes. */
  end(): void {
    this.ended = true;
  }

  /** Fall silent within FADE_S; returns what was played. */
  stop(): Played {
    if (!this.stopped) {
      this.stopped = true;
      this.fading = this.waiting ? 0 : this.fadeFrames;
    }
    return this.state;
  }

  get state(): Played {
    const played = Math.min(this.received, Math.round((this.emitted * RATE_HZ) / this.rate));
    const over = this.stopped ? this.fading === 0 : this.ended && this.flushed && this.ready.length === 0;
    return { answer: this.answer, played, buffered: this.received - played, underruns: this.underruns, over };
  }

  /** Fill a block of the device; what is not there is silence. Returns true if any of it is sound. */
  pull(block: Float32Array): boolean {
    block.fill(0);
    if (this.stopped) return this.fade(block);
    this.fill(block.length);
    if (this.waiting && !this.startable()) return false;
    this.waiting = false;
    const count = Math.min(block.length, this.ready.length);
    block.set(this.ready.subarray(0, count));
    this.ready = this.ready.slice(count);
    this.emitted += count;
    if (count < block.length && !this.ended) this.runDry();
    return count > 0;
  }

  private startable(): boolean {
    return this.ended || (this.ready.length > 0 && this.state.buffered >= this.need * RATE_HZ);
  }

  private runDry(): void {
    this.underruns++;
    this.waiting = true;
    this.need = Math.min(MOST_S, AGAIN_S * 2 ** (this.underruns - 1));
  }

  /** Have so many frames ready, if the sound is there. */
  private fill(frames: number): void {
    while (this.ready.length < frames && this.queue.length > 0) {
      this.ready = joined(this.ready, this.resampler.push(this.queue.shift()!));
    }
    if (this.ready.length < frames && this.ended && !this.flushed) {
      this.flushed = true;
      this.ready = joined(this.ready, this.resampler.flush());
    }
  }

  private fade(block: Float32Array): boolean {
    const count = Math.min(block.length, this.fading);
    this.fill(count);
    for (let n = 0; n < count; n++) block[n] = ((this.ready[n] ?? 0) * (this.fading - n)) / this.fadeFrames;
    this.ready = this.ready.slice(count);
    this.fading -= count;
    return count > 0;
  }
}
