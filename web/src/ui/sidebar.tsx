/** The conversations of this browser. */
import { signal } from "@preact/signals";
import { useRef, useState } from "preact/hooks";
import { deleteChat, exportChat, importChat, newChat, openChat, renameChat } from "../library";
import { conversation, summaries } from "../state";
import type { Summary } from "../store/database";
import { t } from "../words";
import { Icon, IconButton } from "./icons";

export const drawer = signal(false); // on a narrow screen: the list lies over the page

export function Sidebar() {
  const picker = useRef<HTMLInputElement>(null);
  return (
    <nav class={`sidebar ${drawer.value ? "open" : ""}`} aria-label={t("conversations")}>
      <div class="head">
        <span class="brand">descant</span>
        <IconButton name="close" word={t("close")} class="narrow-only" act={() => (drawer.value = false)} />
      </div>
      <button
        type="button"
        class="wide-button"
        onClick={() => {
          drawer.value = false;
          void newChat();
        }}
      >
        <Icon name="plus" />
        {t("newChat")}
      </button>
      {summaries.value.length === 0 ? (
        <p class="note">{t("noConversations")}</p>
      ) : (
        <ul>{summaries.value.map((one) => <Entry key={one.id} one={one} />)}</ul>
      )}
      <div class="foot">
        <button type="button" class="quiet" onClick={() => picker.current?.click()}>{t("import")}</button>
        <input
          ref={picker}
          type="file"
          hidden
          accept=".json,application/json"
          onChange={(event) => {
            const file = event.currentTarget.files?.[0];
            event.currentTarget.value = "";
            if (file) void importChat(file);
          }}
        />
        <p class="note">{t("keptHere")}</p>
      </div>
    </nav>
  );
}

function Entry({ one }: { one: Summary }) {
  const [mode, setMode] = useState<"" | "rename" | "delete">("");
  const title = one.title || t("untitled");
  const isOpen = conversation.value.id === one.id;
  if (mode === "rename") return <Rename one={one} close={() => setMode("")} />;
  if (mode === "delete") {
    return (
      <li class="asking">
        <p dir="auto">{t("deleteAsk", { title })}</p>
        <div class="row">
          <button type="button" class="quiet" onClick={() => setMode("")}>{t("cancel")}</button>
          <button type="button" class="danger" onClick={() => void deleteChat(one.id)}>{t("delete")}</button>
        </div>
      </li>
    );
  }
  return (
    <li class={isOpen ? "open" : ""}>
      <button
        type="button"
        class="entry"
        dir="auto"
        aria-current={isOpen}
        onClick={() => {
          drawer.value = false;
          void openChat(one.id);
        }}
      >
        {title}
      </button>
      <span class="tools">
        <IconButton name="edit" word={t("rename")} act={() => setMode("rename")} />
        <IconButton name="download" word={t("export")} act={() => void exportChat(one.id)} />
        <IconButton name="trash" word={t("delete")} act={() => setMode("delete")} />
      </span>
    </li>
  );
}

function Rename({ one, close }: { one: Summary; close: () => void }) {
  const [title, setTitle] = useState(one.title);
  return (
    <li class="asking">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void renameChat(one.id, title.trim());
          close();
        }}
      >
        <input
          value={title}
          aria-label={t("rename")}
          dir="auto"
          ref={(field) => field?.focus()}
          onInput={(event) => setTitle(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key === "Escape") close();
          }}
        />
        <div class="row">
          <button type="button" class="quiet" onClick={close}>{t("cancel")}</button>
          <button type="submit" class="strong">{t("save")}</button>
        </div>
      </form>
    </li>
  );
}
