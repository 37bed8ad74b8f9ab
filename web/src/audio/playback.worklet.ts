/// <reference path="./worklet.d.ts" />
import { JitterBuffer } from "./jitter";
import type { FromPlayer, ToPlayer } from "./messages";

const REPORT_FRAMES = 1024;

/** Plays answers one after the other, and tells of each how much of it was played, with the peaks that left. */
class Playback extends AudioWorkletProcessor {
  private answers: JitterBuffer[] = [];
  private frames = 0;
  private peak = 0;
  private begun = -1;

  constructor() {
    super();
    this.port.onmessage = (event: MessageEvent<ToPlayer>) => this.take(event.data);
  }

  private tell(message: FromPlayer): void {
    this.port.postMessage(message);
  }

  private take(message: ToPlayer): void {
    if (message.kind === "begin") {
      this.answers.push(new JitterBuffer(message.answer, sampleRate));
      return;
    }
    const buffer = this.answers.find((one) => one.answer === message.answer);
    if (message.kind === "push") buffer?.push(message.samples);
    if (message.kind === "end") buffer?.end();
    if (message.kind === "stop" && buffer) this.tell({ kind: "stopped", at: currentTime, ...buffer.stop() });
  }

  override process(_: Float32Array[][], outputs: Float32Array[][]): boolean {
    const channels = outputs[0] ?? [];
    const first = channels[0];
    const buffer = this.answers[0];
    if (!first) return true;
    if (buffer?.pull(first)) {
      if (this.begun !== buffer.answer) {
        this.begun = buffer.answer;
        this.tell({ kind: "started", at: currentTime, ...buffer.state });
      }
      for (const sample of first) this.peak = Math.max(this.peak, Math.abs(sample));
    }
    for (const other of channels.slice(1)) other.set(first);
    this.frames += first.length;
    if (buffer && this.frames >= REPORT_FRAMES) this.report(buffer);
    if (buffer?.state.over) {
      this.tell({ kind: "finished", at: currentTime, ...buffer.state });
      this.answers.shift();
    }
    return true;
  }

  private report(buffer: JitterBuffer): void {
    this.tell({ kind: "playing", at: currentTime, peak: this.peak, ...buffer.state });
    this.frames = this.peak = 0;
  }
}

registerProcessor("playback", Playback);
