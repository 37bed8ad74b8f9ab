import { beforeAll, describe, expect, it, vi } from "vitest";
import { pack, unpack } from "../src/store/archive";
import { newConversation, newTrace, newTurn } from "../src/store/model";
import { checked, DEFAULTS, fromLink, toLink } from "../src/store/settings";

beforeAll(() => {
  vi.stubGlobal("navigator", { languages: ["en"] });
});

describe("settings", () => {
  it("go into a link and come back, devices left out", () => {
    const chosen = { ...DEFAULTS, voice: "Nova", instructions: "Be brief & kind #1", aloud: false, silence: 300, seed: "7", camera: "secret" };
    const link = toLink(chosen);
    expect(link).not.toContain("secret");
    expect({ ...DEFAULTS, ...fromLink(link) }).toEqual({ ...chosen, camera: "" });
    expect(toLink(DEFAULTS)).toBe("");
  });

  it.each([
    ["theme=purple"], ["silence=-1"], ["silence=abc"], ["silence="], ["threshold=2"], ["temperature=3"], ["seed=-4"],
    ["key=0123"], ["talk=maybe"], ["__proto__=1"], ["temperature=NaN"], ["top_k=1e99"],
  ])("a link with %s sets nothing", (link) => {
    expect(fromLink(`#${link}`)).toEqual({});
  });

  it("of another kind are not taken from storage", () => {
    expect(checked({ silence: "500", aloud: 1, voice: 7, theme: null, talk: "push" })).toEqual({ silence: 500, talk: "push" });
  });
});

describe("a file of a conversation", () => {
  it("has everything but the clock", async () => {
    const medium = { kind: "image" as const, name: "a.png", blob: new Blob([Uint8Array.of(1, 2, 255)], { type: "image/png" }) };
    const answer = { ...newTurn("assistant", "three shapes"), spoken: true, sound: new Blob(["RIFF"]), heard: 5, trace: newTrace() };
    const kept = { ...newConversation(), title: "Shapes", turns: [newTurn("user", "How many?", [medium]), answer] };
    const back = await unpack(await pack(kept));
    expect(back.id).not.toBe(kept.id);
    expect(back.title).toBe("Shapes");
    expect(back.turns.map((turn) => [turn.role, turn.text, turn.heard])).toEqual([["user", "How many?", undefined], ["assistant", "three shapes", 5]]);
    expect(new Uint8Array(await back.turns[0]!.media[0]!.blob.arrayBuffer())).toEqual(Uint8Array.of(1, 2, 255));
    expect(await back.turns[1]!.sound!.text()).toBe("RIFF");
    expect(back.turns[1]!.trace).toBeUndefined();
  });

  it.each(["", "{}", "[]", "null", '{"format":"descant-conversation","version":2,"turns":[]}',
    '{"format":"descant-conversation","version":1,"turns":[{}]}',
    '{"format":"descant-conversation","version":1,"turns":[{"media":[{"kind":"script"}]}]}'])("%s is none", async (text) => {
    await expect(unpack(new Blob([text]))).rejects.toThrow();
  });
});

describe("files", () => {
  it("are told by type, then by name; what cannot be taken says why", async () => {
    const { kindOf, MOST_BYTES, takeFiles } = await import("../src/files");
    expect(kindOf({ name: "a.mkv", type: "" })).toBe("video");
    expect(kindOf({ name: "a.txt", type: "image/png" })).toBe("image");
    expect(kindOf({ name: "a.exe", type: "" })).toBeNull();
    const big = Object.defineProperty(new File(["x"], "big.wav"), "size", { value: MOST_BYTES + 1 });
    const taken = takeFiles([new File(["x"], "a.png"), new File(["x"], "a.doc"), big], []);
    expect(taken.media.map((medium) => medium.name)).toEqual(["a.png"]);
    expect(taken.refused).toHaveLength(2);
  });
});

describe("words", () => {
  it("are there in every language, with the same blanks", async () => {
    const { TABLE_FOR_TESTS } = await import("../src/words");
    for (const [word, row] of Object.entries(TABLE_FOR_TESTS)) {
      const blanks = row.map((text) => [...text.matchAll(/\{\w+\}/g)].map(([blank]) => blank).sort().join());
      expect(row.every((text) => text.trim()), word).toBe(true);
      expect(new Set(blanks).size, word).toBe(1);
    }
  });
});

describe("Markdown of a model", () => {
  const shown = async (text: string): Promise<string> => {
    const { Markdown } = await import("../src/ui/markdown");
    return JSON.stringify(Markdown({ text }), (key, value: unknown) => (key.startsWith("_") ? undefined : value));
  };

  it.each(["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[a](javascript:alert(1))", "[a](data:text/html,x)",
    "![a](https://elsewhere.example/x.png)", "<a href='javascript:x'>b</a>", "[x]: javascript:y\n[x]"])("%s becomes no markup", async (text) => {
    const tree = await shown(text);
    expect(tree).not.toMatch(/"type":"(script|img|iframe|style)"/);
    expect(tree).not.toMatch(/"href":"(?!https?:|mailto:)/);
    expect(tree).not.toContain("dangerouslySetInnerHTML");
  });

  it("has paragraphs, lists, code, tables and links of the web", async () => {
    const tree = await shown("# a\n\n- b\n\n`c`\n\n| d |\n|---|\n| e |\n\n[f](https://g.example)");
    for (const type of ["h3", "ul", "code", "table"]) expect(tree).toContain(`"type":"${type}"`);
    expect(tree).toContain('"href":"https://g.example"');
  });
});

