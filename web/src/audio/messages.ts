import type { Played } from "./jitter";

/** The words between the page and its worklets. at: seconds of the audio clock. */
export type ToPlayer =
  | { kind: "begin"; answer: number }
  | { kind: "push"; answer: number; samples: Float32Array }
  | { kind: "end"; answer: number }
  | { kind: "stop"; answer: number };

export type FromPlayer =
  | ({ kind: "started" | "stopped" | "finished"; at: number } & Played)
  | ({ kind: "playing"; at: number; peak: number } & Played);

export interface FromMicrophone {
  samples: Float32Array;
  peak: number;
  at: number;
}
