import type { FromMicrophone } from "./messages";
import { listenTo } from "./microphone";

/** The voice of a call: the browser plays it as it comes, and its sound is looked at beside that. */
export class CallVoice {
  private readonly speaker = new Audio() as HTMLAudioElement & { setSinkId?: (id: string) => Promise<void> };
  private end = () => {};
  private over = false;

  /** device: the loudspeaker's id; "": the browser's choice. */
  async open(stream: MediaStream, context: AudioContext, device: string, take: (cut: FromMicrophone) => void): Promise<void> {
    this.speaker.srcObject = stream;
    await this.speaker.setSinkId?.(device);
    await this.speaker.play();
    this.end = await listenTo(context, stream, take);
    if (this.over) this.close();
  }

  close(): void {
    this.over = true;
    this.end();
    this.speaker.srcObject = null;
  }
}
