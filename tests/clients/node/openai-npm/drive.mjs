// OpenAI's client for Node, over TLS: chat with sound, responses, speech, and a realtime talk (always wss there).

import assert from "node:assert/strict";
import OpenAI from "openai";
import { OpenAIRealtimeWS } from "openai/realtime/ws";
import * as common from "./common.mjs";

const client = new OpenAI({ baseURL: `${common.URL_BASE}/v1`, apiKey: common.KEY, maxRetries: 0 });

async function chat() {
  const streamed = await client.chat.completions.create({
    model: "nano",
    messages: [{ role: "user", content: common.QUESTION }],
    modalities: ["text", "audio"],
    audio: { voice: "alloy", format: "pcm16" },
    stream: true,
    seed: 1,
  });
  let text = "";
  const sound = [];
  for await (const chunk of streamed) {
    const audio = chunk.choices[0]?.delta.audio;
    text += audio?.transcript ?? "";
    sound.push(Buffer.from(audio?.data ?? "", "base64"));
  }
  common.checkText(text);
  common.checkSound(Buffer.concat(sound));
}

async function responses() {
  const content = [
    { type: "input_image", image_url: common.picture(), detail: "auto" },
    { type: "input_text", text: "How many shapes are there?" },
  ];
  const streamed = client.responses.stream({ model: "nano", input: [{ role: "user", content }], temperature: 0 });
  const final = await streamed.finalResponse();
  common.checkText(final.output_text, "i see three shapes");
}

async function speech() {
  const said = await client.audio.speech.create({
    model: "nano",
    voice: "alloy",
    input: common.QUESTION,
    response_format: "pcm",
  });
  common.checkSound(Buffer.from(await said.arrayBuffer()));
}

async function realtime() {
  const talk = new OpenAIRealtimeWS({ model: "nano" }, client);
  let text = "";
  const sound = [];
  const answered = new Promise((resolve, reject) => {
    talk.on("error", reject);
    talk.on("response.output_audio_transcript.delta", (event) => (text += event.delta));
    talk.on("response.output_audio.delta", (event) => sound.push(Buffer.from(event.delta, "base64")));
    talk.on("response.done", (event) => resolve(event.response));
  });
  talk.socket.on("open", () => {
    talk.send({ type: "session.update", session: { type: "realtime", output_modalities: ["audio"] } });
    for (const block of common.questionBlocks(1)) {
      talk.send({ type: "input_audio_buffer.append", audio: block.toString("base64") });
    }
  });
  const response = await answered;
  assert.equal(response.status, "completed");
  common.checkText(text);
  common.checkSound(Buffer.concat(sound));
  talk.close();
}

await chat();
await responses();
await speech();
await realtime();
common.passed("openai", import.meta.url, "over TLS: chat with sound, responses, speech, realtime");
