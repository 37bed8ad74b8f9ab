/** /v1/realtime over WebRTC: sound by a way of its own, the events of `realtime.ts` by a data channel. */
import { refusalIn } from "./errors";
import { type ClientEvent, type Link, OPEN_WITHIN_MS } from "./realtime";

export interface CallWatch {
  opened(): void;
  /** The voice of the model. */
  voice(stream: MediaStream): void;
  /** There is no call, or no more; it is not tried again. */
  ended(why: unknown): void;
  event(type: string, event: unknown): void;
}

export class RealtimeCall implements Link {
  readonly carriesSound = true;
  readonly backlog = 0; // sound does not wait: what is late is lost
  private readonly peer = new RTCPeerConnection();
  private readonly events = this.peer.createDataChannel("oai-events");
  private readonly headers: Record<string, string>;
  private readonly watch: CallWatch;
  private readonly late: number;
  private over = false;

  constructor(headers: Record<string, string>, microphone: MediaStream, watch: CallWatch) {
    this.headers = headers;
    this.watch = watch;
    this.late = window.setTimeout(() => this.end(new Error("ICE")), OPEN_WITHIN_MS);
    for (const track of microphone.getAudioTracks()) this.peer.addTrack(track, microphone);
    this.peer.ontrack = ({ track, streams }) => watch.voice(streams[0] ?? new MediaStream([track]));
    this.peer.onconnectionstatechange = () => {
      if (["failed", "closed"].includes(this.peer.connectionState)) this.end(new Error("ICE"));
    };
    this.events.onclose = () => this.end(new Error("closed"));
    this.events.onmessage = (message: MessageEvent<string>) => this.take(message.data);
    void this.call().catch((error: unknown) => this.end(error));
  }

  get isOpen(): boolean {
    return this.events.readyState === "open";
  }

  /** Send an event; false: there is no connection now, or the event is larger than the peer takes. */
  send(event: ClientEvent): boolean {
    const text = JSON.stringify(event);
    if (!this.isOpen || text.length > (this.peer.sctp?.maxMessageSize ?? 0)) return false;
    this.events.send(text);
    return true;
  }

  /** Another microphone. */
  hear(microphone: MediaStream): void {
    const [track] = microphone.getAudioTracks();
    const sender = this.peer.getSenders().find((one) => one.track?.kind === "audio" || one.track === null);
    if (track) void sender?.replaceTrack(track);
  }

  close(): void {
    this.over = true;
    window.clearTimeout(this.late);
    this.peer.close();
  }

  private end(why: unknown): void {
    if (this.over) return;
    this.close();
    this.watch.ended(why);
  }

  private take(data: string): void {
    const event = JSON.parse(data) as { type: string };
    if (event.type === "session.created") {
      window.clearTimeout(this.late);
      this.watch.opened();
    }
    this.watch.event(event.type, event);
  }

  /** Offer, and take the answer. Raises Refusal, and what the browser raises. */
  private async call(): Promise<void> {
    await this.peer.setLocalDescription();
    await new Promise<void>((resolve) => {
      const look = () => this.peer.iceGatheringState === "complete" && resolve();
      this.peer.onicegatheringstatechange = look;
      look();
    });
    const headers = { ...this.headers, "content-type": "application/sdp" };
    const body = this.peer.localDescription?.sdp ?? "";
    const response = await fetch("/v1/realtime/calls", { method: "POST", headers, body });
    if (!response.ok) throw await refusalIn(response);
    await this.peer.setRemoteDescription({ type: "answer", sdp: await response.text() });
  }
}
