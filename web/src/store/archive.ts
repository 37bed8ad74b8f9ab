/** One conversation as one file: JSON, with sound and pictures in base64. */
import { blobBase64, bytesOf } from "../audio/pcm";
import type { Conversation, Medium, MediaKind, Turn } from "./model";

const FORMAT = "descant-conversation";
const VERSION = 1;
const KINDS: readonly string[] = ["image", "sound", "video"];

interface PackedBlob {
  type: string;
  base64: string;
}

type PackedTurn = Omit<Turn, "media" | "sound" | "trace" | "layout"> & {
  media: { kind: MediaKind; name: string; data: PackedBlob }[];
  sound?: PackedBlob;
};

async function packed(blob: Blob): Promise<PackedBlob> {
  return { type: blob.type, base64: await blobBase64(blob) };
}

export async function pack(conversation: Conversation): Promise<Blob> {
  const turns = await Promise.all(
    conversation.turns.map(async ({ media, sound, trace: _, layout: __, ...turn }): Promise<PackedTurn> => {
      const files = media.map(async ({ kind, name, blob }) => ({ kind, name, data: await packed(blob) }));
      return { ...turn, media: await Promise.all(files), ...(sound ? { sound: await packed(sound) } : {}) };
    }),
  );
  const { title, created } = conversation;
  return new Blob([JSON.stringify({ format: FORMAT, version: VERSION, title, created, turns })], {
    type: "application/json",
  });
}

/** The conversation of a file, as a new one. Raises Error where it is no such file. */
export async function unpack(file: Blob): Promise<Conversation> {
  const found: unknown = JSON.parse(await file.text());
  if (!isRecord(found) || found["format"] !== FORMAT || found["version"] !== VERSION) throw new Error(FORMAT);
  if (!Array.isArray(found["turns"])) throw new Error("turns");
  return {
    id: crypto.randomUUID(),
    title: text(found["title"]),
    created: Number(found["created"]) || Date.now(),
    updated: Date.now(),
    turns: found["turns"].map(turnOf),
  };
}

/** A turn, field by field: a file that somebody made by hand brings nothing else in. */
function turnOf(row: unknown): Turn {
  if (!isRecord(row) || !Array.isArray(row["media"])) throw new Error("turn");
  const heard = row["heard"];
  return {
    id: crypto.randomUUID(),
    role: row["role"] === "assistant" ? "assistant" : "user",
    text: text(row["text"]),
    media: row["media"].map(mediumOf),
    spoken: row["spoken"] === true,
    state: row["state"] === "stopped" ? "stopped" : row["state"] === "failed" ? "failed" : "done",
    underruns: Number(row["underruns"]) || 0,
    ...(row["sound"] === undefined ? {} : { sound: blobOf(row["sound"]) }),
    ...(typeof heard === "number" ? { heard } : {}),
    ...(typeof row["error"] === "string" ? { error: row["error"] } : {}),
  };
}

function mediumOf(row: unknown): Medium {
  if (!isRecord(row) || !KINDS.includes(text(row["kind"]))) throw new Error("media");
  return { kind: row["kind"] as MediaKind, name: text(row["name"]), blob: blobOf(row["data"]) };
}

function blobOf(row: unknown): Blob {
  if (!isRecord(row)) throw new Error("data");
  return new Blob([bytesOf(text(row["base64"]))], { type: text(row["type"]) });
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}
