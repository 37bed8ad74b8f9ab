/** One answer on its way: its text, its sound, how much of it was heard, and when. */
import { RATE_HZ, type Played } from "./audio/jitter";
import { levels } from "./audio/levels";
import { wavOf } from "./audio/pcm";
import type { Player } from "./audio/player";
import { joined } from "./audio/resample";
import { heardCharacters } from "./heard";
import { removeTurn, updateTurn } from "./state";
import { newTrace, newTurn, type Trace, type Turn } from "./store/model";

export interface Ears {
  /** The first sound is heard. */
  speaking(): void;
  /** All is written, and all was heard. */
  over(): void;
}

export class Answering {
  readonly turn: Turn;
  readonly trace: Trace;
  private readonly player: Player | null;
  private readonly ears: Ears;
  private sound: Float32Array[] = [];
  private received = 0;
  private number = 0; // the player's name for the sound; 0: there is none yet
  private playing: Played | null = null;
  private silent = true; // no sound is being played
  private text = "";
  private written = false;
  private stopped = false;

  constructor(player: Player | null, trace: Trace | undefined, ears: Ears) {
    this.player = player;
    this.ears = ears;
    this.trace = trace ?? newTrace();
    this.turn = { ...newTurn("assistant"), state: "making", trace: this.trace };
  }

  /** ms of its sound that came so far. */
  get soundMs(): number {
    return (1000 * this.received) / RATE_HZ;
  }

  get isWritten(): boolean {
    return this.written;
  }

  get isStopped(): boolean {
    return this.stopped;
  }

  addText(delta: string): void {
    if (this.stopped) return;
    const now = performance.now();
    this.trace.text ??= now;
    this.trace.deltas.push(now);
    this.text += delta;
    updateTurn(this.turn.id, { text: this.text });
  }

  addSound(samples: Float32Array): void {
    if (this.stopped || samples.length === 0 || !this.player) return;
    const now = performance.now();
    this.trace.sound ??= now;
    this.trace.sounds.push({ at: now, ms: (1000 * samples.length) / RATE_HZ });
    if (this.playing) this.trace.margins.push((1000 * this.playing.buffered) / RATE_HZ);
    this.sound.push(samples.slice());
    this.received += samples.length;
    if (!this.number) this.number = this.begin(this.player);
    this.player.push(this.number, samples);
  }

  /** Its sound goes to the loudspeaker beside the events, from now on. */
  beginSound(): void {
    if (this.stopped) return;
    this.silent = false;
    this.trace.sound ??= performance.now();
    this.trace.played ??= performance.now();
    updateTurn(this.turn.id, { spoken: true });
    this.ears.speaking();
  }

  /** A cut of such a sound. */
  hear(samples: Float32Array): void {
    if (this.stopped || this.silent) return;
    this.sound.push(samples);
    this.received += samples.length;
  }

  /** Such a sound is over. */
  stopSound(): void {
    if (this.stopped || this.silent) return;
    const played = { answer: 0, played: this.received, buffered: 0, underruns: 0, over: true };
    if (this.written) this.keep("done");
    this.fellSilent(played);
  }

  private begin(player: Player): number {
    this.silent = false;
    updateTurn(this.turn.id, { spoken: true });
    return player.begin({
      started: (at) => {
        this.trace.played ??= at;
        if (!this.stopped) this.ears.speaking();
      },
      playing: (played, peak) => {
        this.playing = played;
        levels.model.push(peak);
      },
      finished: (played) => this.fellSilent(played),
    });
  }

  private fellSilent(played: Played): void {
    this.playing = played;
    this.silent = true;
    this.trace.ended ??= performance.now();
    levels.model.clear();
    updateTurn(this.turn.id, { underruns: played.underruns, trace: { ...this.trace } });
    if (this.written) this.sound = []; // it is kept with the turn
    if (this.written && !this.stopped) this.ears.over();
  }

  /** No more sound comes. */
  endSound(): void {
    if (this.number) this.player?.end(this.number);
  }

  /** All of it came. */
  finish(): void {
    if (this.written || this.stopped) return;
    this.written = true;
    this.trace.written = performance.now();
    this.endSound();
    this.keep("done");
    if (this.silent) this.ears.over();
  }

  /** Fall silent and take no more; returns the ms of its sound that were heard, null if all of it was. */
  async interrupt(): Promise<number | null> {
    if (this.stopped) return null;
    if (this.written && this.silent) return null;
    this.stopped = true;
    this.trace.stopAt = performance.now();
    const played = this.number && this.player ? await this.player.stop(this.number) : null;
    this.trace.silent = performance.now() + (this.player ? (1000 * this.player.underway) / RATE_HZ : 0);
    const samples = played ? Math.max(0, played.played - (this.player?.underway ?? 0)) : this.received;
    const heard = this.received ? heardCharacters(this.text, samples / RATE_HZ, this.known()) : this.text.length;
    if (!this.text) removeTurn(this.turn.id);
    else this.markHeard(heard);
    return (1000 * samples) / RATE_HZ;
  }

  /** The length of the sound in seconds, where it is known. */
  private known(): number | null {
    return this.written && this.number ? this.received / RATE_HZ : null;
  }

  /** How many characters were heard, as the page or the server says. */
  markHeard(heard: number): void {
    const cut = heard < this.text.length ? { heard } : {};
    this.keep("stopped", cut);
  }

  /** What came of it, once no more comes: its state, its sound, its times. */
  private keep(state: Turn["state"], cut: Partial<Turn> = {}): void {
    const sound = this.sound.length ? { sound: wavOf(joined(...this.sound)) } : {};
    updateTurn(this.turn.id, { state, trace: { ...this.trace }, ...sound, ...cut });
    if (this.stopped) this.sound = [];
  }

  fail(why: string): void {
    if (this.stopped) return;
    this.stopped = true;
    this.endSound();
    updateTurn(this.turn.id, { state: "failed", error: why, trace: { ...this.trace } });
  }
}
