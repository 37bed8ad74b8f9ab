// What the drivers of Node's clients use: the address, the media, and what is asserted of an answer.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

export const URL_BASE = process.env.DESCANT_URL;
export const SOCKET_URL = URL_BASE.replace("http", "ws");
export const KEY = process.env.DESCANT_KEY;
export const QUESTION = "What is nine plus nine?";
export const ANSWER = "nine plus nine is eighteen";
const RATE_HZ = 24_000;
const WAV_HEADER_BYTES = 44;
const BLOCK_BYTES = (2 * RATE_HZ) / 10; // 100 ms

const media = (name) => readFileSync(`${process.env.DESCANT_MEDIA}/${name}`);

export const picture = () => `data:image/png;base64,${media("stars.png").toString("base64")}`;

/** Blocks of 100 ms of the spoken question with silence after it, as a microphone gives them. */
export function questionBlocks(silenceSeconds) {
  const spoken = media("sum-24000.wav").subarray(WAV_HEADER_BYTES);
  const whole = Buffer.concat([spoken, Buffer.alloc(2 * Math.round(silenceSeconds * RATE_HZ))]);
  const count = Math.ceil(whole.length / BLOCK_BYTES);
  return Array.from({ length: count }, (_, n) => whole.subarray(n * BLOCK_BYTES, (n + 1) * BLOCK_BYTES));
}

const plain = (text) => text.toLowerCase().replace(/[^a-z0-9]+/g, " ").trim();

export const checkText = (text, expected = ANSWER) => assert.equal(plain(text), expected);

/** An answer to the spoken question; drivers/common.py says why no more is asked. */
export const checkHeard = (text) => assert(plain(text).startsWith("nine plus nine is"), text);

/** Sound that may be a sentence: 1 to 5 s, and loud enough to be heard. */
export function checkSound(pcm) {
  assert.equal(pcm.length % 2, 0, "half a sample");
  const count = pcm.length / 2;
  assert(count > RATE_HZ && count < 5 * RATE_HZ, `${count / RATE_HZ} s of sound`);
  let power = 0;
  for (let n = 0; n < count; n++) power += pcm.readInt16LE(2 * n) ** 2;
  const loudness = Math.sqrt(power / count) / 32768;
  assert(loudness > 0.02, `the sound is silent: ${loudness} of full scale`);
}

/** The line that a driver ends with. home: import.meta.url of the driver. */
export function passed(name, home, what) {
  const { version } = JSON.parse(readFileSync(new URL(`node_modules/${name}/package.json`, home)));
  console.log(`${name} (npm) ${version}: ${what}: passed`);
}
