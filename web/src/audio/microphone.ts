import captureUrl from "./capture.worklet.ts?worker&url";
import type { FromMicrophone } from "./messages";

/** The microphone, echo cancelled, as cuts of 20 ms at RATE_HZ. */
export class Microphone {
  private readonly stream: MediaStream;
  private readonly source: MediaStreamAudioSourceNode;
  private readonly node: AudioWorkletNode;
  muted = false;

  private constructor(context: AudioContext, stream: MediaStream, take: (cut: FromMicrophone) => void) {
    this.stream = stream;
    this.source = context.createMediaStreamSource(stream);
    this.node = new AudioWorkletNode(context, "capture", { numberOfOutputs: 0 });
    this.node.port.onmessage = (event: MessageEvent<FromMicrophone>) => {
      const cut = event.data;
      take(this.muted ? { ...cut, samples: new Float32Array(cut.samples.length), peak: 0 } : cut);
    };
    this.source.connect(this.node);
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
    await context.audioWorklet.addModule(captureUrl);
    await context.resume();
    stream.getAudioTracks()[0]?.addEventListener("ended", lost);
    return new Microphone(context, stream, take);
  }

  close(): void {
    this.node.port.onmessage = null;
    this.source.disconnect();
    for (const track of this.stream.getTracks()) track.stop();
  }
}
