/** One turn of the transcript. */
import { Component } from "preact";
import { useState } from "preact/hooks";
import { answerAgain, editAndAsk, endReplay, replay } from "../app";
import { download } from "../library";
import { busy, replaying, say } from "../state";
import { said, type Turn } from "../store/model";
import { t } from "../words";
import { IconButton } from "./icons";
import { Markdown } from "./markdown";
import { MediumView } from "./media";
import { Sight } from "./sight";
import { summary, Timeline } from "./timeline";

/** Drawn anew only when its turn has changed: an answer that grows leaves those before it alone. */
export class TurnView extends Component<{ turn: Turn; last: boolean }> {
  override shouldComponentUpdate(next: { turn: Turn; last: boolean }): boolean {
    return next.turn !== this.props.turn || next.last !== this.props.last;
  }

  override render() {
    const { turn, last } = this.props;
    return turn.role === "user" ? <Question turn={turn} /> : <AnswerView turn={turn} last={last} />;
  }
}

function Question({ turn }: { turn: Turn }) {
  const [editing, setEditing] = useState(false);
  const [open, setOpen] = useState(false);
  return (
    <article class="turn user" aria-label={t("you")}>
      {turn.media.length > 0 && (
        <div class="media">{turn.media.map((medium, place) => <MediumView key={place} medium={medium} />)}</div>
      )}
      {editing ? (
        <Editor turn={turn} close={() => setEditing(false)} />
      ) : (
        (turn.text || turn.spoken) && (
          <div class={`bubble ${turn.state === "making" ? "growing" : ""}`} dir="auto">
            {turn.text || (turn.state === "making" ? "…" : t("spokenQuestion"))}
          </div>
        )
      )}
      {!editing && turn.state === "done" && (
        <div class="tools">
          <Replay turn={turn} />
          {turn.text && <Copy text={turn.text} />}
          <IconButton name="edit" word={t("edit")} act={() => setEditing(true)} />
          {turn.layout && <IconButton name="eye" word={t("sight")} pressed={open} act={() => setOpen(!open)} />}
        </div>
      )}
      {open && turn.layout && <Sight layout={turn.layout} />}
    </article>
  );
}

function Editor({ turn, close }: { turn: Turn; close: () => void }) {
  const [text, setText] = useState(turn.text);
  const send = () => {
    close();
    void editAndAsk(turn, text);
  };
  return (
    <form
      class="editor"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <textarea
        value={text}
        rows={3}
        aria-label={t("edit")}
        dir="auto"
        ref={(area) => area?.focus()}
        onInput={(event) => setText(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === "Escape") close();
          if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
            event.preventDefault();
            send();
          }
        }}
      />
      <div class="row">
        <button type="button" class="quiet" onClick={close}>{t("cancel")}</button>
        <button type="submit" class="strong" disabled={!text.trim() && !turn.media.length}>{t("send")}</button>
      </div>
    </form>
  );
}

function AnswerView({ turn, last }: { turn: Turn; last: boolean }) {
  const [open, setOpen] = useState(false);
  const cut = turn.heard !== undefined && turn.heard < turn.text.length;
  return (
    <article class="turn model" aria-label={t("model")} aria-busy={turn.state === "making"}>
      {turn.state === "making" && !turn.text && <span class="dots" role="status" aria-label={t("thinking")} />}
      {cut ? (
        <p class="prose" dir="auto">
          {said(turn)}
          <span class="unheard" title={t("unheard")}>{turn.text.slice(turn.heard)}</span>
        </p>
      ) : (
        turn.text && <Markdown text={turn.text} />
      )}
      {turn.state === "failed" && <p class="fault">{t("failed", { why: turn.error ?? "" })}</p>}
      {turn.state === "stopped" && <p class="note">{turn.error ?? (cut ? `${t("interrupted")} · ${t("unheard")}` : t("stopped"))}</p>}
      {turn.state !== "making" && (
        <div class="tools">
          <Replay turn={turn} />
          {turn.text && <Copy text={turn.text} />}
          {turn.sound && <IconButton name="download" word={t("download")} act={() => download(turn.sound!, "answer.wav")} />}
          {last && <IconButton name="again" word={t("again")} act={() => void answerAgain(turn)} />}
          {turn.trace && (
            <>
              <IconButton name="chart" word={t("details")} pressed={open} act={() => setOpen(!open)} />
              <span class="latency">
                {summary(turn.trace)}
                {turn.underruns > 0 && ` · ${t("underruns", { count: turn.underruns })}`}
              </span>
            </>
          )}
        </div>
      )}
      {open && turn.trace && <Timeline trace={turn.trace} />}
    </article>
  );
}

function Replay({ turn }: { turn: Turn }) {
  if (!turn.sound) return null;
  return replaying.value === turn.id ? (
    <IconButton name="stop" word={t("stopReplay")} act={endReplay} />
  ) : (
    <IconButton name="play" word={t("replay")} disabled={busy.value} act={() => void replay(turn)} />
  );
}

function Copy({ text }: { text: string }) {
  const [done, setDone] = useState(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setDone(true);
      window.setTimeout(() => setDone(false), 1500);
    } catch (error) {
      say("failed", { why: String(error) });
    }
  };
  return <IconButton name={done ? "done" : "copy"} word={t(done ? "copied" : "copy")} act={() => void copy()} />;
}
