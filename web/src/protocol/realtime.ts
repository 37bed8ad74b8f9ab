/** /v1/realtime over a WebSocket: the events that the page sends and reads, and a connection that comes back. */
import type { Layout } from "../sight";
import type { ErrorBody } from "./errors";

const KEY_PROTOCOL = "openai-insecure-api-key.";
const FIRST_WAIT_MS = 300;
const MOST_WAIT_MS = 5000;
export const OPEN_WITHIN_MS = 10_000;

export type ItemPart =
  | { type: "input_text"; text: string }
  | { type: "input_audio"; audio?: string; transcript?: string | null }
  | { type: "input_image"; image_url: string }
  | { type: "video_url"; video_url: { url: string } }
  | { type: "output_text"; text: string }
  | { type: "output_audio"; transcript: string };

export interface Item {
  id?: string;
  type: "message";
  role: "user" | "assistant" | "system";
  content: ItemPart[];
  status?: string;
}

export type ClientEvent =
  | { type: "session.update"; session: Record<string, unknown> }
  | { type: "input_audio_buffer.append"; audio: string }
  | { type: "input_audio_buffer.commit" | "input_audio_buffer.clear" | "output_audio_buffer.clear" }
  | { type: "input_image_buffer.append"; image: string }
  | { type: "conversation.item.create"; item: Item }
  | { type: "conversation.item.retrieve"; item_id: string }
  | { type: "conversation.item.truncate"; item_id: string; content_index: 0; audio_end_ms: number }
  | { type: "response.create"; response?: Record<string, unknown> }
  | { type: "response.cancel" };

interface ResponseRecord {
  status: string;
  status_details: { reason?: string; error?: ErrorBody } | null;
}

/** Those server events that the page reads; of what else comes only `type` is known. */
export interface ServerEvents {
  "session.created": { session: { id: string } };
  "session.updated": { session: { id: string } };
  error: { error: ErrorBody };
  "input_audio_buffer.speech_started": { audio_start_ms: number; item_id: string };
  "input_audio_buffer.speech_stopped": { audio_end_ms: number; item_id: string };
  "input_audio_buffer.committed": { item_id: string };
  "conversation.item.input_audio_transcription.completed": { item_id: string; transcript: string };
  "conversation.item.added": { item: Item };
  "conversation.item.layout": Layout & { item_id: string };
  "conversation.item.retrieved": { item: Item };
  "conversation.item.truncated": { item_id: string; audio_end_ms: number };
  "output_audio_buffer.started": { response_id: string };
  "output_audio_buffer.stopped": { response_id: string };
  "response.created": { response: { id: string } };
  "response.output_item.added": { item: Item };
  "response.output_text.delta": { delta: string; item_id: string };
  "response.output_audio_transcript.delta": { delta: string; item_id: string };
  "response.output_audio.delta": { delta: string; item_id: string };
  "response.output_audio.done": { item_id: string };
  "response.done": { response: ResponseRecord };
}

export type Handlers = { [Type in keyof ServerEvents]?: (event: ServerEvents[Type]) => void };

/** A way to a session. carriesSound: microphone and voice go beside the events. backlog: bytes that wait. */
export interface Link {
  readonly carriesSound: boolean;
  readonly backlog: number;
  /** Send an event; false: it cannot be sent now. */
  send(event: ClientEvent): boolean;
  close(): void;
}

export interface Watch {
  /** A session is there: the first one, or one that replaces a lost one. */
  opened(again: boolean): void;
  /** The connection is lost, and will be tried again in so many ms; null: it will not. */
  lost(again: number | null, code: number, reason: string): void;
  event(type: string, event: unknown): void;
}

/** A connection that is opened again when it is lost, until it is closed. */
export class RealtimeSocket implements Link {
  readonly carriesSound = false;
  private socket: WebSocket | null = null;
  private wait = FIRST_WAIT_MS;
  private timer = 0;
  private closed = false;
  private readonly left = new AbortController();
  private opens = 0;
  private readonly model: string;
  private readonly key: string;
  private readonly watch: Watch;

  constructor(model: string, key: string, watch: Watch) {
    this.model = model;
    this.key = key;
    this.watch = watch;
    window.addEventListener("online", () => this.hurry(), { signal: this.left.signal });
    this.open();
  }

  get isOpen(): boolean {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  /** Bytes that wait for the network. */
  get backlog(): number {
    return this.socket?.bufferedAmount ?? 0;
  }

  /** Send an event; false: there is no connection now. */
  send(event: ClientEvent): boolean {
    if (!this.isOpen) return false;
    this.socket!.send(JSON.stringify(event));
    return true;
  }

  close(): void {
    this.closed = true;
    this.left.abort();
    window.clearTimeout(this.timer);
    this.socket?.close(1000);
  }

  /** The network is there again: try now, and do not wait any longer. */
  private hurry(): void {
    if (this.closed || this.isOpen) return;
    window.clearTimeout(this.timer);
    this.open();
  }

  private open(): void {
    const url = new URL(`/v1/realtime?model=${encodeURIComponent(this.model)}`, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    const protocols = ["realtime", ...(this.key ? [KEY_PROTOCOL + this.key] : [])];
    const socket = new WebSocket(url, protocols);
    this.socket = socket;
    const late = window.setTimeout(() => socket.close(), OPEN_WITHIN_MS);
    socket.onmessage = (message: MessageEvent<string>) => {
      const event = JSON.parse(message.data) as { type: string };
      if (event.type === "session.created") {
        window.clearTimeout(late);
        this.wait = FIRST_WAIT_MS;
        this.watch.opened(this.opens++ > 0);
      }
      this.watch.event(event.type, event);
    };
    socket.onclose = (end) => {
      window.clearTimeout(late);
      if (this.socket !== socket) return;
      if (this.closed) return;
      this.watch.lost(this.wait, end.code, end.reason);
      this.timer = window.setTimeout(() => this.open(), this.wait);
      this.wait = Math.min(MOST_WAIT_MS, 2 * this.wait);
    };
  }
}

/** Hand an event to its handler. */
export function dispatch(handlers: Handlers, type: string, event: unknown): void {
  const handler = handlers[type as keyof ServerEvents] as ((event: unknown) => void) | undefined;
  handler?.(event);
}
