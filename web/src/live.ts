/** A live talk over /v1/realtime: the microphone goes in as it comes, the answer comes out as it is made. */
import { Answering } from "./answering";
import { Capture } from "./capture";
import { EchoGate } from "./audio/echo";
import { levels } from "./audio/levels";
import { blobBase64, pcmBase64, samplesOf, wavOf } from "./audio/pcm";
import type { Player } from "./audio/player";
import { CallVoice } from "./audio/voice";
import type { FromMicrophone } from "./audio/messages";
import type { Eye } from "./eye";
import { itemParts, itemsOf } from "./protocol/history";
import { RealtimeCall } from "./protocol/call";
import { dispatch, type ClientEvent, type Handlers, type ItemPart, type Link, RealtimeSocket } from "./protocol/realtime";
import { addTurn, model, phase, remembered, remembersAll, removeTurn, say, server, settings, turns, updateTurn } from "./state";
import { newTrace, newTurn, type Trace, type Turn } from "./store/model";
import { t } from "./words";

const FRAME_EVERY_MS = 1000;
const BACKLOG_BYTES = 320_000; // of sound that waits for the network: about five seconds
const ASK_AGAIN_MS = 2000;
// An answer that ended by itself meanwhile; a server that cannot tell what it keeps of one.
const QUIET_CODES = ["response_cancel_not_active", "item_not_found", "unknown_event"];
const BUSY_CODES = ["overloaded", "rate_limit_exceeded"];

export class LiveTalk {
  private readonly player: Player;
  private readonly eye: Eye;
  private readonly capture = new Capture();
  private readonly echo = new EchoGate();
  private microphone: MediaStream;
  private link: Link;
  private mayCall = true; // over WebRTC: it was not refused before
  private voice: CallVoice | null = null; // of a call
  private ready = false; // the session knows what was said before
  private answering: Answering | null = null; // that is made or heard
  private answers = new Map<string, Answering>(); // by the item's id
  private questions = new Map<string, Turn>(); // what was spoken, by the item's id
  private hearing: { turn: Turn; trace: Trace; startMs: number } | null = null;
  private asked: Trace | undefined; // of the question that waits for its answer
  private cuts = new Map<string, number>(); // items to be truncated once they are complete: ms heard
  private made = true; // no answer is being made by the server
  private held = false; // push to talk: the button is down
  private waiting: (() => void) | null = null;
  private early: FromMicrophone[] = []; // cuts that came while a session took the place of another
  private frames = 0;

  constructor(player: Player, eye: Eye, microphone: MediaStream) {
    this.player = player;
    this.microphone = microphone;
    this.eye = eye;
    phase.value = "connecting";
    this.link = this.connect();
  }

  private get isPush(): boolean {
    return settings.value.talk === "push";
  }

  /** By hand a turn is what was sent of the microphone, and a call's goes all the time: then it is the WebSocket. */
  private connect(): Link {
    if (settings.value.transport === "call" && this.mayCall && !this.isPush) return this.call();
    return new RealtimeSocket(model.value, server.key, {
      opened: (again) => void this.opened(again),
      lost: (_, code) => this.lost(code),
      event: (type, event) => dispatch(this.handlers, type, event),
    });
  }

  private call(): Link {
    const voice = new CallVoice();
    this.voice = voice;
    return new RealtimeCall(server.headers(), this.microphone, {
      opened: () => void this.opened(false),
      voice: (stream) => {
        const taken = voice.open(stream, this.player.context, settings.value.speaker, ({ samples, peak }) => {
          if (phase.value === "speaking") levels.model.push(peak);
          this.answering?.hear(samples);
        });
        taken.catch((error: unknown) => say("failed", { why: String(error) }));
      },
      ended: () => {
        voice.close();
        this.mayCall = false;
        this.lost(0);
        say("noCall");
        this.link = this.connect();
      },
      event: (type, event) => dispatch(this.handlers, type, event),
    });
  }

  /** Another microphone takes the place of the one that is gone. */
  hearBy(microphone: MediaStream): void {
    this.microphone = microphone;
    if (this.link instanceof RealtimeCall) this.link.hear(microphone);
  }

  /** Send what may be large: over a call it may be too large, and that is told. */
  private post(event: ClientEvent): void {
    if (!this.link.send(event) && this.link.carriesSound) say("tooLargeToSend");
  }

  /** Let go of everything; the transcript stays. */
  close(): void {
    this.voice?.close();
    this.link.close();
    window.clearInterval(this.frames);
    void this.answering?.interrupt();
    if (this.hearing) removeTurn(this.hearing.turn.id);
    this.answering = this.hearing = null;
    phase.value = "idle";
  }

  // ---------------------------------------------------------------- the session

  /** A new session with what the transcript has: after another wish, another voice, a turn that was taken back. */
  async restart(): Promise<void> {
    await this.answering?.interrupt();
    this.answering = this.hearing = null;
    this.ready = false;
    this.voice?.close();
    this.link.close();
    this.link = this.connect();
    await new Promise<void>((resolve) => {
      this.waiting = resolve;
    });
  }

  private async opened(again: boolean): Promise<void> {
    const chosen = settings.value;
    const detection = {
      type: "server_vad",
      threshold: chosen.threshold,
      silence_duration_ms: chosen.silence,
      prefix_padding_ms: chosen.padding,
    };
    this.link.send({
      type: "session.update",
      session: {
        type: "realtime",
        include: ["item.layout"],
        output_modalities: [chosen.aloud ? "audio" : "text"],
        ...(chosen.instructions ? { instructions: chosen.instructions } : {}),
        audio: {
          input: { turn_detection: this.isPush ? null : detection, transcription: { model: model.value } },
          output: chosen.voice ? { voice: chosen.voice } : {},
        },
      },
    });
    for (const item of await itemsOf(remembered(), (blob) => this.decode(blob))) {
      this.post({ type: "conversation.item.create", item });
    }
    this.capture.restart();
    this.made = true;
    this.ready = true;
    if (again) say("back");
    if (phase.value === "connecting") phase.value = "listening";
    this.waiting?.();
    this.waiting = null;
    for (const cut of this.early.splice(0)) this.take(cut);
  }

  private lost(code: number): void {
    this.ready = false;
    if (this.answering && !this.answering.isWritten) void this.answering.interrupt();
    if (this.hearing) removeTurn(this.hearing.turn.id);
    this.hearing = null;
    this.cuts.clear();
    this.early = [];
    say(code === 1013 ? "loading" : "lost");
    phase.value = "connecting";
  }

  /** The samples of any sound that the browser can decode, at 24 kHz. */
  private async decode(blob: Blob): Promise<Float32Array> {
    const context = new OfflineAudioContext(1, 1, 24_000);
    const sound = await context.decodeAudioData(await blob.arrayBuffer());
    const mono = new Float32Array(sound.length);
    for (let c = 0; c < sound.numberOfChannels; c++) {
      sound.getChannelData(c).forEach((sample, n) => (mono[n]! += sample / sound.numberOfChannels));
    }
    return mono;
  }

  // ---------------------------------------------------------------- what goes in

  /** A cut of the microphone. */
  take(cut: FromMicrophone): void {
    levels.you.push(cut.peak);
    if (this.isPush && !this.held) return;
    if (!this.ready) {
      if (this.waiting) this.early.push(cut); // a session takes the place of another: nothing is lost
      return;
    }
    if (this.link.backlog > BACKLOG_BYTES) return say("slow"); // a delay that grows helps nobody
    const now = performance.now();
    const samples = this.isPush ? cut.samples : this.echo.pass(cut.samples, cut.peak, levels.model.loudest(now), now);
    this.capture.add(samples, this.player.context.currentTime - cut.at);
    if (!this.link.carriesSound) this.link.send({ type: "input_audio_buffer.append", audio: pcmBase64(samples) });
  }

  /** Push to talk: the button goes down, or up. */
  async press(down: boolean): Promise<void> {
    if (!this.isPush || down === this.held || !this.ready) return;
    this.held = down;
    if (down) {
      await this.interrupt();
      this.capture.restart();
      this.beginHearing(0, "");
      return;
    }
    const heard = this.hearing;
    const ms = this.capture.endMs;
    if (heard && ms >= 200) {
      this.endHearing(ms);
      this.link.send({ type: "input_audio_buffer.commit" });
      this.link.send({ type: "response.create" });
      return;
    }
    this.link.send({ type: "input_audio_buffer.clear" });
    if (heard) removeTurn(heard.turn.id);
    this.hearing = null;
    window.clearInterval(this.frames);
    phase.value = "listening";
  }

  /** A question that was typed, with its files. */
  async ask(question: Turn): Promise<void> {
    await this.interrupt();
    const frame = await this.eye.frame();
    const seen = frame ? [{ kind: "image" as const, blob: frame, name: "" }] : [];
    const turn = addTurn({ ...question, media: [...question.media, ...seen] });
    const content = await itemParts(turn, (blob) => this.decode(blob));
    const id = `item_${crypto.randomUUID()}`;
    this.questions.set(id, turn);
    this.send(id, content);
  }

  private send(id: string, content: ItemPart[]): void {
    this.asked = { ...newTrace(), asked: performance.now(), sent: performance.now() };
    phase.value = "thinking";
    this.post({ type: "conversation.item.create", item: { id, type: "message", role: "user", content } });
    this.link.send({ type: "response.create" });
  }

  /** Answer what the transcript ends with, in a session of its own. */
  async answerAgain(): Promise<void> {
    await this.restart();
    this.asked = { ...newTrace(), asked: performance.now() };
    phase.value = "thinking";
    this.link.send({ type: "response.create" });
  }

  private async sendFrame(): Promise<void> {
    const frame = await this.eye.frame();
    if (!frame || !this.hearing) return;
    const { turn } = this.hearing;
    const image = await blobBase64(frame);
    this.post({ type: "input_image_buffer.append", image });
    if (!turn.media.length) {
      turn.media = [{ kind: "image", blob: frame, name: "" }];
      updateTurn(turn.id, { media: turn.media });
    }
  }

  // ---------------------------------------------------------------- interruption

  /** Fall silent now. What was not heard is taken back from the conversation. */
  async interrupt(): Promise<void> {
    const answering = this.answering;
    if (!answering) return;
    this.answering = null;
    const ms = await answering.interrupt();
    const item = [...this.answers].find(([, one]) => one === answering)?.[0];
    if (!this.made) this.link.send({ type: "response.cancel" });
    if (this.link.carriesSound) this.link.send({ type: "output_audio_buffer.clear" });
    if (item && ms !== null) this.cuts.set(item, Math.round(ms));
    if (this.made) this.truncate();
    if (phase.value === "speaking" || phase.value === "thinking") phase.value = this.hearing ? "hearing" : "listening";
  }

  /** Say how much was heard of what was interrupted, and ask what the model keeps of it. */
  private truncate(): void {
    for (const [item_id, audio_end_ms] of this.cuts) {
      if (!this.answers.get(item_id)?.soundMs) continue; // an answer in text was read as it came
      this.link.send({ type: "conversation.item.truncate", item_id, content_index: 0, audio_end_ms });
      this.link.send({ type: "conversation.item.retrieve", item_id });
    }
    this.cuts.clear();
  }

  // ---------------------------------------------------------------- turns

  private beginHearing(startMs: number, item: string): void {
    const trace = { ...newTrace(), spoke: this.capture.timeOf(startMs) };
    const turn = addTurn({ ...newTurn("user"), spoken: true, state: "making" });
    this.hearing = { turn, trace, startMs };
    if (item) this.questions.set(item, turn);
    phase.value = "hearing";
    window.clearInterval(this.frames);
    if (this.eye.isOpen) {
      void this.sendFrame();
      this.frames = window.setInterval(() => void this.sendFrame(), FRAME_EVERY_MS);
    }
  }

  private endHearing(endMs: number): void {
    window.clearInterval(this.frames);
    const heard = this.hearing;
    if (!heard) return;
    const quiet = this.isPush ? 0 : settings.value.silence;
    heard.trace.asked = this.capture.timeOf(endMs - quiet);
    heard.trace.sent = performance.now();
    const sound = wavOf(this.capture.between(heard.startMs, endMs));
    updateTurn(heard.turn.id, { sound, state: "done" });
    this.asked = heard.trace;
    this.hearing = null;
    phase.value = "thinking";
  }

  private begin(item: string): void {
    const answering = new Answering(this.player, this.asked, {
      speaking: () => {
        if (this.answering === answering) phase.value = "speaking";
      },
      over: () => {
        if (this.answering !== answering) return;
        this.answering = null;
        phase.value = this.hearing ? "hearing" : "listening";
        if (!remembersAll() && !this.hearing) void this.restart();
      },
    });
    this.asked = undefined;
    this.answers.set(item, answering);
    this.answering = answering;
    addTurn(answering.turn);
  }

  private ended(status: string, why: string): void {
    const answering = this.answering;
    this.made = true;
    if (status === "failed") {
      answering?.fail(why);
      this.answering = null;
      phase.value = "listening";
    } else if (status === "cancelled") {
      if (answering) void this.interrupt();
    } else answering?.finish();
    this.truncate();
  }

  private failed(code: string, message: string): void {
    if (QUIET_CODES.includes(code)) return;
    if (BUSY_CODES.includes(code) && phase.value === "thinking") {
      say("busy", { seconds: ASK_AGAIN_MS / 1000 });
      window.setTimeout(() => {
        if (phase.value === "thinking" && this.ready) this.link.send({ type: "response.create" });
      }, ASK_AGAIN_MS);
      return;
    }
    say("failed", { why: message });
    if (phase.value === "thinking" && this.made) phase.value = "listening";
  }

  private readonly handlers: Handlers = {
    error: ({ error }) => this.failed(error.code ?? "", error.message ?? ""),
    "input_audio_buffer.speech_started": ({ audio_start_ms, item_id }) => {
      void this.interrupt();
      this.beginHearing(audio_start_ms, item_id);
    },
    "input_audio_buffer.speech_stopped": ({ audio_end_ms }) => this.endHearing(audio_end_ms),
    "input_audio_buffer.committed": ({ item_id }) => {
      const last = turns().findLast((turn) => turn.role === "user" && turn.spoken);
      if (last && !this.questions.has(item_id)) this.questions.set(item_id, last);
    },
    "conversation.item.input_audio_transcription.completed": ({ item_id, transcript }) => {
      const turn = this.questions.get(item_id);
      if (turn) updateTurn(turn.id, { text: transcript.trim() || t("spokenQuestion") });
    },
    "conversation.item.layout": ({ item_id, positions_per_second, runs }) => {
      const turn = this.questions.get(item_id);
      if (turn) updateTurn(turn.id, { layout: { positions_per_second, runs } });
    },
    "conversation.item.retrieved": ({ item }) => {
      const part = item.content[0];
      const text = part?.type === "output_audio" ? part.transcript : part?.type === "output_text" ? part.text : null;
      if (item.id && text !== null) this.answers.get(item.id)?.markHeard(text.length);
    },
    "output_audio_buffer.started": () => this.answering?.beginSound(),
    "output_audio_buffer.stopped": () => this.answering?.stopSound(),
    "response.created": () => {
      this.made = false;
    },
    "response.output_item.added": ({ item }) => this.begin(item.id ?? ""),
    "response.output_text.delta": ({ delta, item_id }) => this.answers.get(item_id)?.addText(delta),
    "response.output_audio_transcript.delta": ({ delta, item_id }) => this.answers.get(item_id)?.addText(delta),
    "response.output_audio.delta": ({ delta, item_id }) => this.answers.get(item_id)?.addSound(samplesOf(delta)),
    "response.output_audio.done": ({ item_id }) => this.answers.get(item_id)?.endSound(),
    "response.done": ({ response }) => this.ended(response.status, response.status_details?.error?.message ?? ""),
  };
}
