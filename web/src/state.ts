/** What the page shows: signals that the parts of the screen read, and the few functions that change them. */
import { computed, effect, signal } from "@preact/signals";
import { Server } from "./protocol/chat";
import { type Database, type Summary, summaryOf } from "./store/database";
import { type Conversation, newConversation, type Turn } from "./store/model";
import { keepSettings, loadSettings, type Settings } from "./store/settings";
import { chosen, type Word } from "./words";

const SAVE_AFTER_MS = 400;

export type Phase = "idle" | "connecting" | "listening" | "hearing" | "thinking" | "speaking";
export type Reach = "asking" | "loading" | "ready" | "away" | "key";

export interface Notice {
  word: Word;
  fill: Record<string, string | number>;
}

export const server = new Server();
export const phase = signal<Phase>("idle");
export const reach = signal<Reach>("asking");
export const model = signal("");
export const voices = signal<string[]>([]);
export const settings = signal<Settings>(loadSettings());
export const conversation = signal<Conversation>(newConversation());
export const summaries = signal<Summary[]>([]);
export const notice = signal<Notice | null>(null);
export const progress = signal<Notice | null>(null); // of the answer that is being made
export const talking = signal(false);
export const muted = signal(false);
export const showing = signal<MediaStream | null>(null); // the camera or the screen
export const replaying = signal(""); // the turn whose sound is played again
export const busy = computed(() => phase.value === "thinking" || phase.value === "speaking");

effect(() => {
  chosen.value = settings.value.language;
});
effect(() => keepSettings(settings.value));

export function say(word: Word, fill: Record<string, string | number> = {}): void {
  notice.value = { word, fill };
}

// ---------------------------------------------------------------- the conversation

let database: Database | null = null;
let timer = 0;
let unsaved: Conversation | null = null;

export function keepIn(opened: Database | null): void {
  database = opened;
}

/** The turns that the model is told of. nano was taught single questions; what came before confuses it. */
export function remembered(): readonly Turn[] {
  const past = turns().filter((turn) => turn.state !== "failed");
  if (remembersAll()) return past;
  return past.slice(-1).filter((turn) => turn.role === "user");
}

export function remembersAll(): boolean {
  return (settings.value.memory || (model.value === "nano" ? "one" : "all")) === "all";
}

export function turns(): readonly Turn[] {
  return conversation.value.turns;
}

function change(after: readonly Turn[]): void {
  conversation.value = { ...conversation.value, turns: [...after], updated: Date.now() };
  saveSoon();
}

export function addTurn(turn: Turn): Turn {
  change([...turns(), turn]);
  return turn;
}

export function updateTurn(id: string, patch: Partial<Turn>): void {
  change(turns().map((turn) => (turn.id === id ? { ...turn, ...patch } : turn)));
}

/** Forget a turn and all that follow. */
export function cutBefore(id: string): void {
  const place = turns().findIndex((turn) => turn.id === id);
  if (place >= 0) change(turns().slice(0, place));
}

export function removeTurn(id: string): void {
  change(turns().filter((turn) => turn.id !== id));
}

export function rename(title: string): void {
  conversation.value = { ...conversation.value, title };
  saveSoon();
}

function saveSoon(): void {
  unsaved = conversation.value;
  timer ||= window.setTimeout(() => void saveNow(), SAVE_AFTER_MS);
}

/** Read the list of conversations anew. */
export async function listAgain(): Promise<void> {
  if (database) summaries.value = await database.list();
}

/** Write what is not written yet. The list changes in one line: to read it anew reads every conversation. */
export async function saveNow(): Promise<void> {
  window.clearTimeout(timer);
  timer = 0;
  const kept = unsaved;
  unsaved = null;
  if (!kept || !database || kept.turns.length === 0) return;
  await database.put(kept);
  const others = summaries.value.filter((one) => one.id !== kept.id);
  summaries.value = [summaryOf(kept), ...others].sort((a, b) => b.updated - a.updated);
}
