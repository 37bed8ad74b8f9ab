import captureUrl from "./capture.worklet.ts?worker&url";
import type { FromMicrophone } from "./messages";

/** Give the sound of a stream in cuts of 10 ms at RATE_HZ; returns what ends it. */
export async function listenTo(
  context: AudioContext,
  stream: MediaStream,
  take: (cut: FromMicrophone) => void,
): Promise<() => void> {
  await context.audioWorklet.addModule(captureUrl);
  await context.resume();
  const source = context.createMediaStreamSource(stream);
  const node = new AudioWorkletNode(context, "capture", { numberOfOutputs: 0 });
  node.port.onmessage = (event: MessageEvent<FromMicrophone>) => take(event.data);
  source.connect(node);
  return () => {
    node.port.onmessage = null;
    source.disconnect();
  };
}

/** The microphone, echo cancelled, as cuts of 10 ms at RATE_HZ. */
export class Microphone {
  readonly stream: MediaStream;
  private readonly end: () => void;

  private constructor(stream: MediaStream, end: () => void) {
    this.stream = stream;
    this.end = end;
  }

  /** Asks for the microphone. lost: it was unplugged, or taken away. Raises what getUserMedia raises. */
  static async open(
    context: AudioContext,
    device: string,
    take: (cut: FromMicrophone) => void,
    lost: () => void,
  ): Promise<Microphone> {
    const wish: MediaTrackConstraints = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };
    if (device) wish.deviceId = { exact: device };
    const stream = await navigator.mediaDevices.getUserMedia({ audio: wish });
    stream.getAudioTracks()[0]?.addEventListener("ended", lost);
    return new Microphone(stream, await listenTo(context, stream, take));
  }

  /** A muted microphone goes on, and is silent. */
  set muted(off: boolean) {
    for (const track of this.stream.getTracks()) track.enabled = !off;
  }

  close(): void {
    this.end();
    for (const track of this.stream.getTracks()) track.stop();
  }
}
