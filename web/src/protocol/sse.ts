/** One event of a server's stream. note: what its comment lines say. */
export interface ServerEvent {
  data: string;
  note: string;
}

/** The events of a stream of bytes in any cuts, as the HTML standard reads them. */
export class EventParser {
  private rest = "";
  private decoder = new TextDecoder();

  push(bytes: Uint8Array): ServerEvent[] {
    this.rest += this.decoder.decode(bytes, { stream: true });
    const blocks = this.rest.split(/\r\n\r\n|\n\n/);
    this.rest = blocks.pop()!;
    return blocks.map(eventOf);
  }
}

function eventOf(block: string): ServerEvent {
  const lines = block.split(/\r\n|\n/);
  const after = (head: string) =>
    lines.filter((line) => line.startsWith(head)).map((line) => line.slice(head.length).replace(/^ /, ""));
  return { data: after("data:").join("\n"), note: after(":").join("\n") };
}
