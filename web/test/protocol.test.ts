import { describe, expect, it } from "vitest";
import { base64Of, bytesOf, pcmBase64, readWav, samplesOf, wavOf } from "../src/audio/pcm";
import { heardCharacters } from "../src/heard";
import { answerEvents } from "../src/protocol/chat";
import { messagesOf } from "../src/protocol/history";
import { EventParser } from "../src/protocol/sse";
import { newTurn } from "../src/store/model";

const STREAM =
  'data: {"a": "é"}\n\n: reading 1200 2870\n\ndata: {"b":\ndata: 2}\r\n\r\n: only a note\ndata: [DONE]\n\n';

describe("server-sent events", () => {
  it("are the same in any cuts, of letters and of bytes of letters", () => {
    const bytes = new TextEncoder().encode(STREAM);
    const whole = new EventParser().push(bytes);
    expect(whole.map((event) => event.data)).toEqual(['{"a": "é"}', "", '{"b":\n2}', "[DONE]"]);
    expect(whole.map((event) => event.note)).toEqual(["", "reading 1200 2870", "", "only a note"]);
    for (let size = 1; size < bytes.length; size++) {
      const parser = new EventParser();
      const found = [];
      for (let at = 0; at < bytes.length; at += size) found.push(...parser.push(bytes.subarray(at, at + size)));
      expect(found).toEqual(whole);
    }
  });

  it("are text, sound, progress and an end", () => {
    const chunk = (choice: object) => ({ data: JSON.stringify({ choices: [choice] }), note: "" });
    const read = (event: { data: string; note: string }) => [...answerEvents(event)];
    expect(read(chunk({ delta: { content: "a" } }))).toEqual([{ kind: "text", text: "a" }]);
    expect(read(chunk({ delta: { audio: { transcript: "b" } } }))).toEqual([{ kind: "text", text: "b" }]);
    expect(read(chunk({ delta: {}, finish_reason: "stop" }))).toEqual([{ kind: "finished", reason: "stop" }]);
    expect(read({ data: "", note: "queued 2 5" })).toEqual([{ kind: "progress", stage: "queued", done: 2, total: 5 }]);
    expect(read({ data: '{"choices": []}', note: "" })).toEqual([]);
    expect(() => read({ data: '{"error": {"message": "no", "code": "x"}}', note: "" })).toThrow("no");
  });
});

describe("samples", () => {
  it("come back from base64 and from a WAV file to a step and a half", async () => {
    const samples = Float32Array.from({ length: 5000 }, (_, n) => Math.sin(n) * 0.99);
    for (const back of [samplesOf(pcmBase64(samples)), await readWav(wavOf(samples))]) {
      expect(back.length).toBe(samples.length);
      expect(back.every((sample, n) => Math.abs(sample - samples[n]!) <= 1.6 / 32768)).toBe(true);
    }
  });

  it("are cut off where they are too loud", () => {
    expect([...samplesOf(pcmBase64(Float32Array.of(2, -2)))].map(Math.round)).toEqual([1, -1]);
  });

  it("bytes of any number come back from base64", () => {
    for (const length of [0, 1, 2, 3, 0x8000, 0x8001, 100_000]) {
      const bytes = Uint8Array.from({ length }, (_, n) => (n * 31) % 256);
      expect(bytesOf(base64Of(bytes))).toEqual(bytes);
    }
  });
});

describe("what was heard", () => {
  const text = "I can hear, see and read. Ask me about numbers, слова и 图片。";
  it("ends words, grows with time, and is all of it in the end", () => {
    let before = 0;
    for (let ms = 0; ms <= 8000; ms += 20) {
      const heard = heardCharacters(text, ms / 1000, 8);
      expect(heard).toBeGreaterThanOrEqual(before);
      expect(text.slice(0, heard)).not.toMatch(/\s$/u);
      if (heard > 0) expect(text.slice(heard)).toMatch(/^$|^\s|^[\u2e80-\u9fff。]/u);
      before = heard;
    }
    expect(before).toBe(text.length);
    expect(heardCharacters(text, 0, 8)).toBe(0);
  });
});

it("a question that was cut short is remembered as it was heard", async () => {
  const turns = [
    newTurn("user", "What can you do?"),
    { ...newTurn("assistant", "I can hear, see and read."), heard: 10 },
    { ...newTurn("assistant", "never heard"), heard: 0 },
    { ...newTurn("user", "transcript"), spoken: true, sound: wavOf(new Float32Array(10)) },
  ];
  const messages = await messagesOf(turns, "Be brief.");
  expect(messages.map((message) => message.role)).toEqual(["system", "user", "assistant", "user"]);
  expect(messages[2]!.content).toBe("I can hear");
  expect(messages[3]!.content).toMatchObject([{ type: "input_audio", input_audio: { format: "wav" } }]);
});
