import { beforeAll, describe, expect, it, vi } from "vitest";
import { countsOf, type Layout, marksOf, ticksOf } from "../src/sight";

beforeAll(() => {
  vi.stubGlobal("navigator", { languages: ["en"] });
});

// two chunks of two seconds before a camera, as the server tells them
const TALK: Layout = {
  positions_per_second: 25,
  runs: [
    { type: "text", count: 4, start: [0, 0, 0] },
    { type: "text", count: 1, start: [3, 3, 3] },
    { type: "video", count: 6, start: [4, 4, 4], columns: 3 },
    { type: "video", count: 6, start: [29, 4, 4], columns: 3 },
    { type: "audio", count: 50, start: [4, 4, 4] },
    { type: "video", count: 6, start: [54, 4, 4], columns: 3 },
    { type: "audio", count: 30, start: [54, 54, 54] },
    { type: "text", count: 3, start: [84, 84, 84] },
  ],
};

describe("the picture of what the model sees", () => {
  it("has each run at its time, in the order of reading", () => {
    const marks = marksOf(TALK);
    expect(marks.map(({ lane, from, to }) => [lane, from, to])).toEqual([
      ["text", 0, 4], ["text", 3, 4], ["seen", 4, 5], ["seen", 29, 30], ["heard", 4, 54], ["seen", 54, 55],
      ["heard", 54, 84], ["text", 84, 87],
    ]);
    expect(marks[2]).toMatchObject({ rows: 2, columns: 3 });
    expect(countsOf(marks)).toEqual({ text: 8, heard: 80, seen: 18, pictures: 3 });
  });

  it("is marked at seconds, never more often than asked", () => {
    expect(ticksOf(marksOf(TALK), 25, 8)).toEqual([0, 25, 50, 75]);
    for (const count of [1, 9, 60, 700, 7500, 100_000]) {
      const runs = [{ type: "audio" as const, count, start: [0, 0, 0] as [number, number, number] }];
      const ticks = ticksOf(marksOf({ positions_per_second: 25, runs }), 25, 8);
      expect(ticks.length).toBeLessThanOrEqual(9);
      expect(ticks.at(-1)!).toBeLessThanOrEqual(count);
      expect(ticks[0]).toBe(0);
    }
  });

  it("stays inside its frame, and is told in words", async () => {
    const { Sight } = await import("../src/ui/sight");
    const tree = JSON.stringify(Sight({ layout: TALK }), (key, value: unknown) => (key.startsWith("_") ? undefined : value));
    const places = [...tree.matchAll(/"x[12]?":([\d.]+)/g)].map(([, x]) => Number(x));
    expect(Math.max(...places)).toBeLessThanOrEqual(640);
    expect(places.every((x) => x === 0 || x >= 108)).toBe(true);
    expect(tree).toContain("80");
    // down to the sound, back up to the next picture: one line, in the order of reading
    const way = /"class":"way","d":"([^"]+)"/.exec(tree)![1]!;
    expect(way.split("L").map((step) => Number(step.split(" ")[1]!.split("H")[0]))).toEqual([17, 17, 51, 51, 85, 51, 85, 17]);
  });
});
