/** The one screen. */
import { useEffect, useRef, useState } from "preact/hooks";
import { startTalk, stop, useKey } from "../app";
import { busy, conversation, model, notice, progress, reach, settings, talking } from "../state";
import { titleOf } from "../store/model";
import { language, t } from "../words";
import { addFiles, Composer } from "./composer";
import { Dialog } from "./dialog";
import { Dock } from "./dock";
import { Icon, IconButton } from "./icons";
import { SettingsDialog, settingsOpen } from "./settings";
import { drawer, Sidebar } from "./sidebar";
import { TurnView } from "./turn";

export function Page() {
  const { theme } = settings.value;
  useEffect(() => {
    document.documentElement.dataset["theme"] = theme;
    document.documentElement.lang = language.value;
  }, [theme, language.value]);
  useEffect(() => {
    const escape = (event: KeyboardEvent) => {
      if (event.key === "Escape" && busy.value && !settingsOpen.value) void stop();
    };
    window.addEventListener("keydown", escape);
    return () => window.removeEventListener("keydown", escape);
  }, []);
  const empty = conversation.value.turns.length === 0;
  return (
    <DropArea>
      <Sidebar />
      {drawer.value && <div class="shade" onClick={() => (drawer.value = false)} />}
      <main class={empty ? "empty" : ""}>
        <header class="top">
          <IconButton name="menu" word={t("menu")} class="narrow-only" act={() => (drawer.value = true)} />
          <h1 dir="auto" class={titleOf(conversation.value) ? "" : "unseen"}>{titleOf(conversation.value) || t("newChat")}</h1>
          <span class={`reach ${reach.value}`}>{reach.value === "ready" ? model.value : ""}</span>
          <IconButton name="gear" word={t("settings")} act={() => (settingsOpen.value = true)} />
        </header>
        <Messages />
        {empty ? <Welcome /> : <Transcript />}
        <div class="bottom">
          <Dock />
          {progress.value && <p class="progress" role="status">{t(progress.value.word, progress.value.fill)}</p>}
          <Composer />
        </div>
      </main>
      {settingsOpen.value && <SettingsDialog />}
      {reach.value === "key" && <KeyDialog />}
    </DropArea>
  );
}

/** What is wrong, and what was wrong. */
function Messages() {
  const standing = reach.value === "away" ? "away" : reach.value === "loading" ? "loading" : null;
  return (
    <div class="messages" aria-live="polite">
      {standing && <p class="message">{t(standing)}</p>}
      {notice.value && (
        <p class="message">
          {t(notice.value.word, notice.value.fill)}
          <IconButton name="close" word={t("close")} act={() => (notice.value = null)} />
        </p>
      )}
    </div>
  );
}

function Welcome() {
  return (
    <section class="welcome">
      <h2>{t("welcome")}</h2>
      <p>{t("welcomeMore")}</p>
      {!talking.value && (
        <button type="button" class="big-talk" disabled={reach.value !== "ready"} onClick={() => void startTalk()}>
          <Icon name="microphone" />
          <span>{t("talk")}</span>
        </button>
      )}
    </section>
  );
}

const NEAR_END_PX = 120;

function Transcript() {
  const element = useRef<HTMLElement>(null);
  const atEnd = useRef(true);
  const { turns, id } = conversation.value;
  useEffect(() => {
    const shown = element.current;
    const column = shown?.firstElementChild;
    if (!shown || !column) return undefined;
    // whatever grows, be it text or a picture that is loaded late, the end stays in sight
    const watch = new ResizeObserver(() => {
      if (atEnd.current) shown.scrollTop = shown.scrollHeight;
    });
    watch.observe(column);
    watch.observe(shown);
    return () => watch.disconnect();
  }, []);
  useEffect(() => {
    atEnd.current = true;
  }, [id]);
  return (
    <section
      ref={element}
      class="transcript"
      role="log"
      aria-label={t("conversations")}
      tabIndex={0}
      onScroll={(event) => {
        const { scrollHeight, scrollTop, clientHeight } = event.currentTarget;
        atEnd.current = scrollHeight - scrollTop - clientHeight < NEAR_END_PX;
      }}
    >
      <div class="column">
        {turns.map((turn, place) => <TurnView key={turn.id} turn={turn} last={place === turns.length - 1} />)}
      </div>
    </section>
  );
}

function KeyDialog() {
  const [key, setKey] = useState("");
  const [wrong, setWrong] = useState(false);
  return (
    <Dialog title={t("keyWanted")} class="key">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void useKey(key).then((known) => setWrong(!known));
        }}
      >
        <label class="field tall">
          <span>{t("key")}</span>
          <input type="password" autocomplete="off" value={key} onInput={(event) => setKey(event.currentTarget.value)} />
        </label>
        {wrong && <p class="fault" role="alert">{t("keyWrong")}</p>}
        <p class="note">{t("keyKept")}</p>
        <div class="row">
          <button type="submit" class="strong" disabled={!key.trim()}>{t("save")}</button>
        </div>
      </form>
    </Dialog>
  );
}

/** Files may be dropped anywhere. */
function DropArea({ children }: { children: preact.ComponentChildren }) {
  const [over, setOver] = useState(false);
  return (
    <div
      class="page"
      onDragOver={(event) => {
        if (!event.dataTransfer?.types.includes("Files")) return;
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={(event) => {
        if (event.relatedTarget === null) setOver(false);
      }}
      onDrop={(event) => {
        event.preventDefault();
        setOver(false);
        addFiles(event.dataTransfer?.files ?? []);
        document.getElementById("question")?.focus();
      }}
    >
      {children}
      {over && <div class="drop">{t("dropHere")}</div>}
    </div>
  );
}
