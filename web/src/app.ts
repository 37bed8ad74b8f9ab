/** What the user can do: each function here is a button, a key or a drop. */
import { Answering } from "./answering";
import { levels } from "./audio/levels";
import { Microphone } from "./audio/microphone";
import { readWav } from "./audio/pcm";
import { Player } from "./audio/player";
import { Eye } from "./eye";
import { LiveTalk } from "./live";
import type { ChatRequest } from "./protocol/chat";
import { Refusal } from "./protocol/errors";
import { messagesOf } from "./protocol/history";
import {
  addTurn, busy, cutBefore, model, muted, notice, phase, progress, reach, remembered, replaying, say,
  server, settings, showing, talking, voices,
} from "./state";
import { type Medium, newTrace, newTurn, type Turn } from "./store/model";
import { bytes, t, type Word } from "./words";

const LOOK_AGAIN_MS = 1500; // for a server that is away or loads its model
const TRIES_MOST = 20;

const eye = new Eye();
let player: Promise<Player> | null = null;
let microphone: Microphone | null = null;
let live: LiveTalk | null = null;
let asking: { stop: AbortController; answering: Answering } | null = null;
let stopReplay: (() => void) | null = null;

/** The loudspeaker; made by the first click, before which a browser lets no page be heard. */
function loudspeaker(): Promise<Player> {
  player ??= Player.open(new AudioContext({ latencyHint: 0 }));
  return player;
}

/** Why something failed, in words. */
function why(error: unknown): string {
  if (error instanceof Refusal && error.code === "unreachable") return t("unreachable");
  if (error instanceof Refusal && error.code === "broken_off") return t("brokenOff");
  return error instanceof Error ? error.message : String(error);
}

// ---------------------------------------------------------------- the server

/** Look whether the server is there and what it has, until it is. */
export async function meet(): Promise<void> {
  try {
    const found = await server.get<{ data: { id: string }[] }>("/v1/models");
    model.value = found.data[0]?.id ?? "";
    voices.value = (await server.get<{ voices: string[] }>("/v1/audio/voices")).voices;
    reach.value = "ready";
  } catch (error) {
    const status = error instanceof Refusal ? error.status : 0;
    reach.value = status === 401 ? "key" : status === 503 ? "loading" : "away";
    if (status !== 401) window.setTimeout(() => void meet(), LOOK_AGAIN_MS);
  }
}

/** Use a key, for as long as the tab is open. Returns false where the server does not know it. */
export async function useKey(key: string): Promise<boolean> {
  server.key = key.trim();
  await meet();
  const known = reach.value !== "key";
  if (known) sessionStorage.setItem("descant.key", server.key);
  return known;
}

// ---------------------------------------------------------------- questions

export async function ask(text: string, media: Medium[]): Promise<void> {
  notice.value = null;
  endReplay();
  const question = newTurn("user", text, media);
  if (live) return live.ask(question);
  await stop();
  const frame = await eye.frame();
  if (frame) question.media = [...media, { kind: "image", blob: frame, name: "" }];
  addTurn(question);
  await answer();
}

/** The question of a turn again, with other words: what followed it is forgotten. */
export async function editAndAsk(turn: Turn, text: string): Promise<void> {
  await stop();
  cutBefore(turn.id);
  if (!live) return ask(text, turn.media);
  await live.restart();
  await live.ask(newTurn("user", text, turn.media));
}

/** Another answer in place of one. */
export async function answerAgain(turn: Turn): Promise<void> {
  await stop();
  cutBefore(turn.id);
  if (live) await live.answerAgain();
  else await answer();
}

function request(messages: ChatRequest["messages"]): ChatRequest {
  const chosen = settings.value;
  const aloud = chosen.aloud && voices.value.length > 0;
  const numbers = ["temperature", "top_p", "top_k", "max_tokens", "seed"] as const;
  const given = numbers.filter((name) => chosen[name] !== "").map((name) => [name, Number(chosen[name])]);
  return {
    model: model.value,
    messages,
    modalities: aloud ? ["text", "audio"] : ["text"],
    ...(aloud ? { audio: { voice: chosen.voice || voices.value[0]!, format: "pcm16" as const } } : {}),
    ...(chosen.latency ? { latency: chosen.latency } : {}),
    ...Object.fromEntries(given),
  };
}

/** Answer what the transcript ends with. */
async function answer(): Promise<void> {
  const past = remembered();
  const trace = { ...newTrace(), asked: performance.now() };
  const speaker = settings.value.aloud ? await loudspeaker() : null;
  const answering = new Answering(speaker, trace, {
    speaking: () => {
      phase.value = "speaking";
    },
    over: () => {
      if (asking?.answering === answering) settle();
    },
  });
  asking = { stop: new AbortController(), answering };
  phase.value = "thinking";
  addTurn(answering.turn);
  const size = past.flatMap((turn) => turn.media).reduce((sum, medium) => sum + medium.blob.size, 0);
  progress.value = size > 1e6 ? { word: "sending", fill: { size: bytes(size) } } : null;
  try {
    const messages = await messagesOf(past, settings.value.instructions);
    trace.sent = performance.now();
    await receive(answering, request(messages), asking.stop.signal);
    answering.finish();
  } catch (error) {
    if (answering.isStopped) return;
    answering.fail(why(error));
    if (asking?.answering === answering) settle();
    if (error instanceof Refusal && error.status === 401) reach.value = "key";
    if (error instanceof Refusal && error.code === "unreachable") void meet();
  } finally {
    progress.value = null;
  }
}

/** The events of an answer; a busy server is asked again. */
async function receive(answering: Answering, wish: ChatRequest, signal: AbortSignal): Promise<void> {
  for (let tries = 0; ; tries++) {
    try {
      for await (const event of server.ask(wish, signal)) {
        if (event.kind === "text") answering.addText(event.text);
        if (event.kind === "sound") answering.addSound(event.samples);
        if (event.kind === "progress") progress.value = progressNotice(event.stage, event.done, event.total);
        else progress.value = null;
      }
      return;
    } catch (error) {
      if (!(error instanceof Refusal) || error.status !== 429 || tries >= TRIES_MOST) throw error;
      await countDown(error.retry || 2, signal);
    }
  }
}

function progressNotice(stage: string, done: number, total: number): { word: Word; fill: Record<string, number> } {
  return stage === "queued" ? { word: "waiting", fill: { place: done } } : { word: "reading", fill: { done, total } };
}

async function countDown(seconds: number, signal: AbortSignal): Promise<void> {
  for (let left = Math.min(seconds, 60); left > 0 && !signal.aborted; left--) {
    progress.value = { word: "busy", fill: { seconds: left } };
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  signal.throwIfAborted();
}

function settle(): void {
  asking = null;
  phase.value = "idle";
}

/** Fall silent: what is being made is stopped, what was not heard is marked. */
export async function stop(): Promise<void> {
  endReplay();
  if (live) return live.interrupt();
  const now = asking;
  if (!now) return;
  settle();
  const stopped = now.answering.interrupt();
  now.stop.abort();
  await stopped;
}

// ---------------------------------------------------------------- talking

const REFUSALS: Record<string, [Word, Word]> = {
  NotAllowedError: ["micRefused", "cameraRefused"],
  NotFoundError: ["micMissing", "cameraMissing"],
  OverconstrainedError: ["micMissing", "cameraMissing"],
  NotReadableError: ["deviceBusy", "deviceBusy"],
};

function deviceRefused(error: unknown, which: 0 | 1): void {
  const word = error instanceof DOMException ? REFUSALS[error.name]?.[which] : undefined;
  if (word) say(word, { name: t(which ? "camera" : "microphone") });
  else say("failed", { why: why(error) });
}

export async function startTalk(): Promise<void> {
  if (live || talking.value) return;
  if (!window.isSecureContext) return say("insecure");
  await stop();
  notice.value = null;
  talking.value = true;
  phase.value = "connecting";
  try {
    const speaker = await loudspeaker();
    await setSpeaker(speaker);
    await listen(speaker, settings.value.microphone);
    live = new LiveTalk(speaker, eye, microphone!.stream);
  } catch (error) {
    deviceRefused(error, 0);
    endTalk();
  }
}

async function listen(speaker: Player, device: string): Promise<void> {
  microphone?.close();
  microphone = await Microphone.open(speaker.context, device, (cut) => live?.take(cut), () => void changeMicrophone());
  microphone.muted = muted.value;
  live?.hearBy(microphone.stream);
}

/** The microphone went away in the middle: go on with what the browser has. */
async function changeMicrophone(): Promise<void> {
  if (!live) return;
  say("micLost");
  try {
    await listen(await loudspeaker(), "");
  } catch (error) {
    deviceRefused(error, 0);
    endTalk();
  }
}

async function setSpeaker(speaker: Player): Promise<void> {
  const context = speaker.context as AudioContext & { setSinkId?: (id: string) => Promise<void> };
  await context.setSinkId?.(settings.value.speaker);
}

export function endTalk(): void {
  live?.close();
  live = null;
  microphone?.close();
  microphone = null;
  talking.value = muted.value = false;
  phase.value = "idle";
  levels.you.clear();
  stopShowing();
}

export function mute(off: boolean): void {
  muted.value = off;
  if (microphone) microphone.muted = off;
}

export function press(down: boolean): void {
  void live?.press(down);
}

export async function show(kind: "camera" | "screen"): Promise<void> {
  try {
    showing.value = await eye.open(kind, kind === "camera" ? settings.value.camera : "", stopShowing);
  } catch (error) {
    if (kind === "camera" || !(error instanceof DOMException && error.name === "NotAllowedError")) deviceRefused(error, 1);
  }
}

export function stopShowing(): void {
  eye.close();
  showing.value = null;
}

/** A setting of the session was changed while it goes on. */
export async function settingsChanged(): Promise<void> {
  if (live) await live.restart();
}

// ---------------------------------------------------------------- hearing again

/** Play the sound of a turn from its beginning. */
export async function replay(turn: Turn): Promise<void> {
  if (!turn.sound || busy.value) return;
  await playFile(turn.sound, turn.id);
}

/** Hear a voice. */
export async function sampleVoice(name: string): Promise<void> {
  try {
    await playFile(await server.speak(t("sampleText"), name), "sample");
  } catch (error) {
    say("failed", { why: why(error) });
  }
}

async function playFile(file: Blob, name: string): Promise<void> {
  endReplay();
  const speaker = await loudspeaker();
  const number = speaker.begin({
    started: () => {},
    playing: (_, peak) => levels.model.push(peak),
    finished: () => {
      levels.model.clear();
      if (replaying.value === name) replaying.value = "";
    },
  });
  replaying.value = name;
  stopReplay = () => void speaker.stop(number);
  speaker.push(number, await readWav(file));
  speaker.end(number);
}

export function endReplay(): void {
  stopReplay?.();
  stopReplay = null;
  replaying.value = "";
}

/** Leave whatever goes on, before another conversation is shown. */
export async function leave(): Promise<void> {
  endTalk();
  await stop();
  notice.value = null;
}
