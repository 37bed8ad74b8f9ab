// OpenAI's agents library for Node, over TLS: a session hears a spoken question, and one reads a typed one.

import { OpenAIRealtimeWebSocket, RealtimeAgent, RealtimeSession } from "@openai/agents-realtime";
import * as common from "./common.mjs";

/** One session of one turn; begin: what is done once it is connected; check: of its text. */
async function talk(begin, check) {
  const transport = new OpenAIRealtimeWebSocket({ url: `${common.SOCKET_URL}/v1/realtime?model=nano` });
  const session = new RealtimeSession(new RealtimeAgent({ name: "nano" }), { transport, model: "nano" });
  let text = "";
  const sound = [];
  const answered = new Promise((resolve, reject) => {
    session.on("error", (event) => reject(new Error(JSON.stringify(event))));
    session.on("audio", (event) => sound.push(Buffer.from(event.data)));
    session.on("transport_event", (event) => {
      if (event.type === "response.output_audio_transcript.delta") text += event.delta;
      if (event.type === "response.done") resolve();
    });
  });
  await session.connect({ apiKey: common.KEY });
  begin(session);
  await answered;
  session.close();
  check(text);
  common.checkSound(Buffer.concat(sound));
}

// in real time: a server that judges the end of the turn by what was said needs the time of the silence
await talk(async (session) => {
  for (const block of common.questionBlocks(20)) {
    if (session.transport.status !== "connected") return;
    session.sendAudio(block.buffer.slice(block.byteOffset, block.byteOffset + block.length));
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}, common.checkHeard);
await talk((session) => session.sendMessage(common.QUESTION), common.checkText);
common.passed("@openai/agents-realtime", import.meta.url, "over TLS: RealtimeSession, a spoken question, a typed one");
process.exit(0);
