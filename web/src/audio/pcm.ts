/** 16-bit samples as the protocols carry them, and WAV files as people keep them. */
import { RATE_HZ } from "./jitter";

const HEADER_BYTES = 44;
const CHUNK_BYTES = 0x8000; // of one call with many arguments

export function toInt16(samples: Float32Array): Int16Array<ArrayBuffer> {
  const pcm = new Int16Array(samples.length);
  for (let n = 0; n < samples.length; n++) pcm[n] = Math.round(Math.max(-1, Math.min(1, samples[n]!)) * 32767);
  return pcm;
}

export function toFloat(pcm: Int16Array): Float32Array<ArrayBuffer> {
  const samples = new Float32Array(pcm.length);
  for (let n = 0; n < pcm.length; n++) samples[n] = pcm[n]! / 32768;
  return samples;
}

export function base64Of(bytes: Uint8Array): string {
  let text = "";
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
    text += String.fromCharCode(...bytes.subarray(at, at + CHUNK_BYTES));
  }
  return btoa(text);
}

export async function blobBase64(blob: Blob): Promise<string> {
  return base64Of(new Uint8Array(await blob.arrayBuffer()));
}

export function bytesOf(base64: string): Uint8Array<ArrayBuffer> {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let n = 0; n < text.length; n++) bytes[n] = text.charCodeAt(n);
  return bytes;
}

/** Base64 of 16-bit samples, little-endian as every browser's machine is. */
export function pcmBase64(samples: Float32Array): string {
  return base64Of(new Uint8Array(toInt16(samples).buffer));
}

export function samplesOf(base64: string): Float32Array<ArrayBuffer> {
  const bytes = bytesOf(base64);
  return toFloat(new Int16Array(bytes.buffer, 0, bytes.length >> 1));
}

/** A WAV file, mono, 16 bit. */
export function wavOf(samples: Float32Array, rate = RATE_HZ): Blob {
  const pcm = toInt16(samples);
  const head = new DataView(new ArrayBuffer(HEADER_BYTES));
  const text = (at: number, word: string) => [...word].forEach((c, n) => head.setUint8(at + n, c.charCodeAt(0)));
  text(0, "RIFF");
  head.setUint32(4, HEADER_BYTES - 8 + pcm.byteLength, true);
  text(8, "WAVEfmt ");
  head.setUint32(16, 16, true);
  head.setUint16(20, 1, true);
  head.setUint16(22, 1, true);
  head.setUint32(24, rate, true);
  head.setUint32(28, 2 * rate, true);
  head.setUint16(32, 2, true);
  head.setUint16(34, 16, true);
  text(36, "data");
  head.setUint32(40, pcm.byteLength, true);
  return new Blob([head, pcm], { type: "audio/wav" });
}

/** The samples of a file that `wavOf` made. */
export async function readWav(file: Blob): Promise<Float32Array<ArrayBuffer>> {
  return toFloat(new Int16Array(await file.slice(HEADER_BYTES).arrayBuffer()));
}
