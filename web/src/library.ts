/** The conversations that are kept: open, rename, delete, export, import. */
import { effect } from "@preact/signals";
import { leave } from "./app";
import { conversation, keepIn, listAgain, rename, saveNow, say, server } from "./state";
import { pack, unpack } from "./store/archive";
import { Database } from "./store/database";
import { type Conversation, newConversation, titleOf } from "./store/model";
import { t } from "./words";

const OPEN_KEY = "descant.open"; // of this tab, so that a reload finds its conversation again

let database: Database | null = null;

export async function openLibrary(): Promise<void> {
  server.key = sessionStorage.getItem("descant.key") ?? "";
  try {
    database = await Database.open();
  } catch {
    say("storageOff");
    return;
  }
  keepIn(database);
  database.watch((id) => void changedElsewhere(id));
  await listAgain();
  const kept = sessionStorage.getItem(OPEN_KEY);
  const found = kept ? await database.get(kept) : undefined;
  if (found && conversation.value.turns.length === 0) show(mended(found));
  effect(() => {
    const { id, turns } = conversation.value;
    if (turns.length) sessionStorage.setItem(OPEN_KEY, id);
  });
  window.addEventListener("pagehide", () => void saveNow());
}

function show(next: Conversation): void {
  conversation.value = next;
  sessionStorage.setItem(OPEN_KEY, next.id);
}

/** What was being made when the page was closed will not be made any more. */
function mended(kept: Conversation): Conversation {
  const turns = kept.turns
    .filter((turn) => turn.state !== "making" || turn.text || turn.role === "user")
    .map((turn) =>
      turn.state === "making" ? { ...turn, state: "stopped" as const, error: t("broken"), trace: undefined } : turn,
    );
  return { ...kept, turns: turns as Conversation["turns"] };
}

async function changedElsewhere(id: string): Promise<void> {
  if (!database) return;
  await listAgain();
  const kept = await database.get(id);
  const mine = conversation.value;
  const isMaking = mine.turns.some((turn) => turn.state === "making");
  if (id === mine.id && kept && !isMaking && kept.updated > mine.updated) conversation.value = kept;
}

export async function newChat(): Promise<void> {
  await leave();
  await saveNow();
  show(newConversation());
}

export async function openChat(id: string): Promise<void> {
  if (id === conversation.value.id) return;
  await leave();
  await saveNow();
  const found = await database?.get(id);
  if (found) show(mended(found));
}

export async function renameChat(id: string, title: string): Promise<void> {
  if (id === conversation.value.id) return rename(title);
  const found = await database?.get(id);
  if (!database || !found) return;
  await database.put({ ...found, title });
  await listAgain();
}

export async function deleteChat(id: string): Promise<void> {
  if (id === conversation.value.id) await newChat();
  await database?.delete(id);
  await listAgain();
}

/** Give a file to the user. */
export function download(blob: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  window.setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

export async function exportChat(id: string): Promise<void> {
  await saveNow();
  const found = await database?.get(id);
  if (!found) return;
  const name = (titleOf(found) || t("untitled")).replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 40);
  download(await pack(found), `${name}.descant.json`);
}

export async function importChat(file: File): Promise<void> {
  let made: Conversation;
  try {
    made = await unpack(file);
  } catch {
    return say("importBad", { name: file.name });
  }
  await leave();
  await database?.put(made);
  await listAgain();
  show(made);
}
