/** Conversations of this browser, in IndexedDB. Nothing of it leaves the machine. */
import { type DBSchema, type IDBPDatabase, openDB } from "idb";
import { type Conversation, titleOf } from "./model";

interface Tables extends DBSchema {
  conversations: { key: string; value: Conversation; indexes: { updated: number } };
}

export interface Summary {
  id: string;
  title: string;
  updated: number;
}

export function summaryOf(one: Conversation): Summary {
  return { id: one.id, title: titleOf(one), updated: one.updated };
}

const CHANNEL = "descant";

/** The table, and the news of other tabs that changed it. */
export class Database {
  private readonly db: IDBPDatabase<Tables>;
  private readonly channel = new BroadcastChannel(CHANNEL);

  private constructor(db: IDBPDatabase<Tables>) {
    this.db = db;
  }

  static async open(): Promise<Database> {
    const db = await openDB<Tables>("descant", 1, {
      upgrade: (made) => made.createObjectStore("conversations", { keyPath: "id" }).createIndex("updated", "updated"),
    });
    return new Database(db);
  }

  /** changed: another tab wrote or deleted the conversation of this id. */
  watch(changed: (id: string) => void): void {
    this.channel.onmessage = (event: MessageEvent<string>) => changed(event.data);
  }

  /** All conversations, the latest first. */
  async list(): Promise<Summary[]> {
    const all = await this.db.getAllFromIndex("conversations", "updated");
    return all.reverse().map(summaryOf);
  }

  get(id: string): Promise<Conversation | undefined> {
    return this.db.get("conversations", id);
  }

  async put(conversation: Conversation): Promise<void> {
    await this.db.put("conversations", conversation);
    this.channel.postMessage(conversation.id);
  }

  async delete(id: string): Promise<void> {
    await this.db.delete("conversations", id);
    this.channel.postMessage(id);
  }
}
