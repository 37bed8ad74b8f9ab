/** Where a question is typed, and files are added to it. */
import { signal } from "@preact/signals";
import { useRef, useState } from "preact/hooks";
import { ask, startTalk, stop } from "../app";
import { takeFiles } from "../files";
import { busy, conversation, notice, reach, talking } from "../state";
import type { Medium } from "../store/model";
import { t } from "../words";
import { Icon, IconButton } from "./icons";
import { MediumView } from "./media";

const ROWS_MOST_PX = 200;

export const attached = signal<Medium[]>([]);
export const refused = signal<string[]>([]);

export function addFiles(files: Iterable<File>): void {
  const taken = takeFiles(files, attached.value);
  attached.value = [...attached.value, ...taken.media];
  refused.value = taken.refused;
}

/** The questions that were typed here, the latest last. */
function typedBefore(): string[] {
  return conversation.value.turns.filter((turn) => turn.role === "user" && !turn.spoken).map((turn) => turn.text);
}

export function Composer() {
  const area = useRef<HTMLTextAreaElement>(null);
  const picker = useRef<HTMLInputElement>(null);
  const [text, setText] = useState("");
  const [back, setBack] = useState(0); // in the history; 0: what is being typed
  const canSend = (text.trim() !== "" || attached.value.length > 0) && reach.value === "ready";

  const put = (value: string) => {
    setText(value);
    requestAnimationFrame(() => {
      const element = area.current;
      if (!element) return;
      element.style.height = "auto";
      element.style.height = `${Math.min(ROWS_MOST_PX, element.scrollHeight)}px`;
    });
  };
  const send = () => {
    if (!canSend) return;
    const media = attached.value;
    attached.value = [];
    refused.value = [];
    notice.value = null;
    setBack(0);
    put("");
    void ask(text.trim(), media);
  };
  const recall = (step: number): boolean => {
    const typed = typedBefore();
    const place = back + step;
    if (place < 0 || place > typed.length) return false;
    setBack(place);
    put(place ? typed[typed.length - place]! : "");
    return true;
  };
  const key = (event: KeyboardEvent) => {
    if (event.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      send();
    }
    const recalls = (event.key === "ArrowUp" && (text === "" || back > 0)) || (event.key === "ArrowDown" && back > 0);
    if (recalls && recall(event.key === "ArrowUp" ? 1 : -1)) event.preventDefault();
  };

  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      {refused.value.map((line) => <p class="fault" role="alert" key={line}>{line}</p>)}
      {attached.value.length > 0 && (
        <div class="media">
          {attached.value.map((medium) => (
            <MediumView
              key={medium.name + medium.blob.size}
              medium={medium}
              remove={() => (attached.value = attached.value.filter((one) => one !== medium))}
            />
          ))}
        </div>
      )}
      <div class="line">
        <IconButton name="clip" word={t("attach")} act={() => picker.current?.click()} />
        <input
          ref={picker}
          type="file"
          multiple
          hidden
          accept="image/*,audio/*,video/*,.mkv,.flac,.opus"
          onChange={(event) => {
            addFiles(event.currentTarget.files ?? []);
            event.currentTarget.value = "";
            area.current?.focus();
          }}
        />
        <textarea
          ref={area}
          id="question"
          rows={1}
          value={text}
          placeholder={t("compose")}
          aria-label={t("compose")}
          dir="auto"
          onInput={(event) => {
            setBack(0);
            put(event.currentTarget.value);
          }}
          onKeyDown={key}
          onPaste={(event) => {
            const files = event.clipboardData?.files;
            if (!files?.length) return;
            event.preventDefault();
            addFiles(files);
          }}
        />
        {busy.value ? (
          <IconButton name="stop" word={t("stop")} class="strong" act={() => void stop()} />
        ) : canSend || talking.value || conversation.value.turns.length === 0 ? (
          <button type="submit" class="sign strong" aria-label={t("send")} title={t("send")} disabled={!canSend}>
            <Icon name="send" />
          </button>
        ) : (
          <button type="button" class="talk strong" disabled={reach.value !== "ready"} onClick={() => void startTalk()}>
            <Icon name="microphone" />
            {t("talk")}
          </button>
        )}
      </div>
    </form>
  );
}
