/** What a conversation is made of, as it is shown and kept. */
import type { Layout } from "../sight";

export type MediaKind = "image" | "sound" | "video";

export interface Medium {
  kind: MediaKind;
  blob: Blob;
  name: string;
}

/** Moments of a turn, ms of performance.now(); a moment that was not reached is not there. */
export interface Trace {
  spoke?: number; // the user began to speak
  asked?: number; // the user's speech, or typing, ended
  sent?: number; // the request left, or the server heard the end
  text?: number; // the first text came
  sound?: number; // the first sound came
  played?: number; // the first sound was heard
  written?: number; // the text was complete
  ended?: number; // the last sound was heard, or it was stopped
  deltas: number[]; // when text came
  sounds: { at: number; ms: number }[]; // when sound came, and how much
  margins: number[]; // ms of sound that were still there when more came
  stopAt?: number; // it was interrupted
  silent?: number; // and the sound was off
}

export interface Turn {
  id: string;
  role: "user" | "assistant";
  text: string;
  media: Medium[];
  spoken: boolean; // said by voice, or answered aloud
  sound?: Blob; // of what was said or answered, WAV
  state: "making" | "done" | "stopped" | "failed";
  heard?: number; // characters of `text` that were heard, of an answer that was interrupted
  error?: string;
  underruns: number;
  trace?: Trace;
  layout?: Layout; // where the tokens of a question stand, as the server told it
}

export interface Conversation {
  id: string;
  title: string;
  created: number; // ms since 1970
  updated: number;
  turns: Turn[];
}

export function newTurn(role: Turn["role"], text = "", media: Medium[] = []): Turn {
  return { id: crypto.randomUUID(), role, text, media, spoken: false, state: "done", underruns: 0 };
}

export function newConversation(): Conversation {
  const now = Date.now();
  return { id: crypto.randomUUID(), title: "", created: now, updated: now, turns: [] };
}

export function newTrace(): Trace {
  return { deltas: [], sounds: [], margins: [] };
}

/** What the model is taken to have said: the words that were heard. */
export function said(turn: Turn): string {
  return turn.heard === undefined ? turn.text : turn.text.slice(0, turn.heard);
}

/** A title by what was asked first. */
export function titleOf(conversation: Conversation): string {
  const asked = conversation.turns.find((turn) => turn.role === "user" && turn.text.trim());
  return conversation.title || asked?.text.trim().slice(0, 60) || "";
}
