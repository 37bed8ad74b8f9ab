/** The camera or the screen, and the frames that the model is shown. */
const FRAME_PIXELS = 768; // of the longer side
const JPEG_QUALITY = 0.85;

export class Eye {
  private stream: MediaStream | null = null;
  private video: HTMLVideoElement | null = null;

  get isOpen(): boolean {
    return this.stream !== null;
  }

  /** Look. ended: it was taken away. Raises what getUserMedia raises. */
  async open(kind: "camera" | "screen", device: string, ended: () => void): Promise<MediaStream> {
    this.close();
    const wish: MediaTrackConstraints = { width: { ideal: 1280 } };
    if (device) wish.deviceId = { exact: device };
    const stream =
      kind === "camera"
        ? await navigator.mediaDevices.getUserMedia({ video: wish })
        : await navigator.mediaDevices.getDisplayMedia({ video: true });
    stream.getVideoTracks()[0]?.addEventListener("ended", ended);
    const video = document.createElement("video");
    video.muted = true;
    video.playsInline = true;
    video.srcObject = stream;
    await video.play();
    this.stream = stream;
    this.video = video;
    return stream;
  }

  close(): void {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = this.video = null;
  }

  /** What is seen now, as a JPEG. */
  async frame(): Promise<Blob | null> {
    const video = this.video;
    if (!video || !video.videoWidth) return null;
    const scale = Math.min(1, FRAME_PIXELS / Math.max(video.videoWidth, video.videoHeight));
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(video.videoWidth * scale);
    canvas.height = Math.round(video.videoHeight * scale);
    canvas.getContext("2d")?.drawImage(video, 0, 0, canvas.width, canvas.height);
    return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", JPEG_QUALITY));
  }
}
