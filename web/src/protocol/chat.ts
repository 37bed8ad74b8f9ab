/** /v1/chat/completions, streamed: text and sound of one answer as they are made. */
import { samplesOf } from "../audio/pcm";
import { type ErrorBody, Refusal, refusalIn, refusalOf } from "./errors";
import { EventParser, type ServerEvent } from "./sse";

export type AnswerEvent =
  | { kind: "text"; text: string }
  | { kind: "sound"; samples: Float32Array }
  | { kind: "progress"; stage: string; done: number; total: number }
  | { kind: "finished"; reason: string };

interface Chunk {
  choices?: {
    delta?: { content?: string | null; audio?: { transcript?: string; data?: string } };
    finish_reason?: string | null;
  }[];
  error?: ErrorBody;
}

export type ChatPart =
  | { type: "text"; text: string }
  | { type: "image_url"; image_url: { url: string } }
  | { type: "input_audio"; input_audio: { data: string; format: string } }
  | { type: "video_url"; video_url: { url: string } };

export interface ChatMessage {
  role: "system" | "user" | "assistant";
  content: string | ChatPart[];
}

export interface ChatRequest {
  model: string;
  messages: ChatMessage[];
  modalities: string[];
  audio?: { voice: string; format: "pcm16" };
  [option: string]: unknown;
}

/** The server, and the key that it may ask for. */
export class Server {
  key = "";

  headers(): Record<string, string> {
    return this.key ? { authorization: `Bearer ${this.key}` } : {};
  }

  /** GET a JSON body. Raises Refusal. */
  async get<Body>(path: string): Promise<Body> {
    const response = await reached(fetch(path, { headers: this.headers() }));
    if (!response.ok) throw await refusalIn(response);
    return (await response.json()) as Body;
  }

  /** Ask; the events of the answer. Raises Refusal, and AbortError when it is stopped. sent: the body is on its way. */
  async *ask(request: ChatRequest, stop: AbortSignal): AsyncGenerator<AnswerEvent> {
    const headers = { ...this.headers(), "content-type": "application/json" };
    const body = JSON.stringify({ ...request, stream: true });
    const response = await reached(fetch("/v1/chat/completions", { method: "POST", headers, body, signal: stop }));
    if (!response.ok || !response.body) throw await refusalIn(response);
    const reader = response.body.getReader();
    const parser = new EventParser();
    for (;;) {
      const { done, value } = await reached(reader.read());
      if (done) throw new Refusal("the answer broke off", "broken_off");
      for (const event of parser.push(value)) {
        if (event.data === "[DONE]") return;
        yield* answerEvents(event);
      }
    }
  }

  /** A sample of a voice, as a WAV file. */
  async speak(input: string, voice: string): Promise<Blob> {
    const headers = { ...this.headers(), "content-type": "application/json" };
    const body = JSON.stringify({ input, voice, response_format: "wav", seed: 1 });
    const response = await reached(fetch("/v1/audio/speech", { method: "POST", headers, body }));
    if (!response.ok) throw await refusalIn(response);
    return response.blob();
  }
}

/** A network's failure as a refusal; that somebody stopped it stays an AbortError. */
async function reached<Value>(asked: Promise<Value>): Promise<Value> {
  try {
    return await asked;
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Refusal(error instanceof Error ? error.message : String(error), "unreachable");
  }
}

/** What one event of the stream means. Raises the error that it may be. */
export function* answerEvents(event: ServerEvent): Generator<AnswerEvent> {
  if (event.note) yield* progressOf(event.note);
  if (!event.data) return;
  const chunk = JSON.parse(event.data) as Chunk;
  if (chunk.error) throw refusalOf(chunk.error);
  const choice = chunk.choices?.[0];
  const text = choice?.delta?.content || choice?.delta?.audio?.transcript;
  if (text) yield { kind: "text", text };
  if (choice?.delta?.audio?.data) yield { kind: "sound", samples: samplesOf(choice.delta.audio.data) };
  if (choice?.finish_reason) yield { kind: "finished", reason: choice.finish_reason };
}

/** A comment of the stream that tells of the work before the answer: "reading 1200 2870", "queued 2 5". */
function* progressOf(note: string): Generator<AnswerEvent> {
  const found = /^(\w+) (\d+) (\d+)$/.exec(note);
  if (found) yield { kind: "progress", stage: found[1]!, done: Number(found[2]), total: Number(found[3]) };
}
