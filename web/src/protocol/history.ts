/** Turns as the protocols write them down. */
import { blobBase64, pcmBase64, readWav } from "../audio/pcm";
import { type Medium, said, type Turn } from "../store/model";
import type { ChatMessage, ChatPart } from "./chat";
import type { Item, ItemPart } from "./realtime";

const SOUND_FORMATS: Record<string, string> = { "audio/mpeg": "mp3", "audio/flac": "flac", "audio/ogg": "ogg" };

export async function dataUrl(blob: Blob): Promise<string> {
  return `data:${blob.type || "application/octet-stream"};base64,${await blobBase64(blob)}`;
}

async function chatPart(medium: Medium): Promise<ChatPart> {
  const { blob } = medium;
  if (medium.kind === "image") return { type: "image_url", image_url: { url: await dataUrl(blob) } };
  if (medium.kind === "video") return { type: "video_url", video_url: { url: await dataUrl(blob) } };
  const format = SOUND_FORMATS[blob.type] ?? "wav"; // the server looks at the bytes, not at this word
  return { type: "input_audio", input_audio: { data: await blobBase64(blob), format } };
}

/** The messages of /v1/chat/completions. A spoken question goes as it was said. */
export async function messagesOf(turns: readonly Turn[], instructions: string): Promise<ChatMessage[]> {
  const messages: ChatMessage[] = instructions ? [{ role: "system", content: instructions }] : [];
  for (const turn of turns) {
    if (turn.role === "assistant") {
      if (said(turn)) messages.push({ role: "assistant", content: said(turn) });
      continue;
    }
    const content = await Promise.all(mediaOf(turn).map(chatPart));
    if (turn.text && !turn.spoken) content.push({ type: "text", text: turn.text });
    if (content.length) messages.push({ role: "user", content });
  }
  return messages;
}

/** The media of a question, its own sound last. */
function mediaOf(turn: Turn): Medium[] {
  return turn.spoken && turn.sound ? [...turn.media, { kind: "sound", blob: turn.sound, name: "" }] : turn.media;
}

/** The parts of a question as a realtime item. decode: the samples of a sound of any format, at 24 kHz. */
export async function itemParts(turn: Turn, decode: (blob: Blob) => Promise<Float32Array>): Promise<ItemPart[]> {
  const parts: ItemPart[] = [];
  for (const medium of turn.media) {
    if (medium.kind === "image") parts.push({ type: "input_image", image_url: await dataUrl(medium.blob) });
    else if (medium.kind === "video") parts.push({ type: "video_url", video_url: { url: await dataUrl(medium.blob) } });
    else parts.push({ type: "input_audio", audio: pcmBase64(await decode(medium.blob)) });
  }
  if (turn.spoken && turn.sound) parts.push({ type: "input_audio", audio: pcmBase64(await readWav(turn.sound)) });
  else if (turn.text) parts.push({ type: "input_text", text: turn.text });
  return parts;
}

/** The items that tell a new session what was said before. */
export async function itemsOf(
  turns: readonly Turn[],
  decode: (blob: Blob) => Promise<Float32Array>,
): Promise<Item[]> {
  const items: Item[] = [];
  for (const turn of turns) {
    const content: ItemPart[] =
      turn.role === "user" ? await itemParts(turn, decode) : said(turn) ? [{ type: "output_text", text: said(turn) }] : [];
    if (content.length) items.push({ type: "message", role: turn.role, content });
  }
  return items;
}
