import playbackUrl from "./playback.worklet.ts?worker&url";
import { RATE_HZ, type Played } from "./jitter";
import type { FromPlayer, ToPlayer } from "./messages";

/** What an answer's owner wants to be told. */
export interface Listener {
  started(at: number): void;
  playing(played: Played, peak: number): void;
  finished(played: Played): void;
}

/** The loudspeaker. Times are milliseconds of performance.now(). */
export class Player {
  readonly context: AudioContext;
  private readonly node: AudioWorkletNode;
  private readonly listeners = new Map<number, Listener>();
  private readonly stopping = new Map<number, (played: Played) => void>();
  private last = 0;

  private constructor(context: AudioContext) {
    this.context = context;
    this.node = new AudioWorkletNode(context, "playback", { numberOfInputs: 0, outputChannelCount: [2] });
    this.node.port.onmessage = (event: MessageEvent<FromPlayer>) => this.take(event.data);
    this.node.connect(context.destination);
  }

  static async open(context: AudioContext): Promise<Player> {
    await context.audioWorklet.addModule(playbackUrl);
    return new Player(context);
  }

  private tell(message: ToPlayer): void {
    this.node.port.postMessage(message);
  }

  /** Begin an answer; the number names it from now on. */
  begin(listener: Listener): number {
    const answer = ++this.last;
    this.listeners.set(answer, listener);
    this.tell({ kind: "begin", answer });
    void this.context.resume();
    return answer;
  }

  push(answer: number, samples: Float32Array): void {
    this.tell({ kind: "push", answer, samples });
  }

  end(answer: number): void {
    this.tell({ kind: "end", answer });
  }

  /** Fall silent; resolves to what was played. */
  stop(answer: number): Promise<Played> {
    if (!this.listeners.has(answer)) return Promise.resolve({ answer, played: 0, buffered: 0, underruns: 0, over: true });
    return new Promise((resolve) => {
      this.stopping.set(answer, resolve);
      this.tell({ kind: "stop", answer });
    });
  }

  /** Samples that have left and are not at the ear yet. */
  get underway(): number {
    return Math.round((this.context.outputLatency || this.context.baseLatency || 0) * RATE_HZ);
  }

  /** A time of the audio clock, at the loudspeaker. */
  heardAt(at: number): number {
    return performance.now() + 1000 * (at - this.context.currentTime + this.underway / RATE_HZ);
  }

  private take(message: FromPlayer): void {
    const listener = this.listeners.get(message.answer);
    if (message.kind === "started") listener?.started(this.heardAt(message.at));
    if (message.kind === "playing") listener?.playing(message, message.peak);
    if (message.kind === "stopped" || message.kind === "finished") {
      this.stopping.get(message.answer)?.(message);
      this.stopping.delete(message.answer);
    }
    if (message.kind === "finished") {
      this.listeners.delete(message.answer);
      listener?.finished(message);
    }
  }
}
