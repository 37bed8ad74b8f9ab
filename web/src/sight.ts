/** What the model sees of a question and when, as the server tells it: tokens in the order in which they are read. */
export interface Run {
  type: "text" | "audio" | "image" | "video";
  count: number;
  start: [number, number, number]; // time, height and width of the first token
  columns?: number; // of a picture; without it each token stands one further on all three
}

export interface Layout {
  positions_per_second: number;
  runs: Run[];
}

export const LANES = ["text", "seen", "heard"] as const;

/** A run in the picture. from, to: positions of time; rows, columns: of a picture's tokens. */
export interface Mark {
  lane: (typeof LANES)[number];
  from: number;
  to: number;
  rows: number;
  columns: number;
}

export function marksOf({ runs }: Layout): Mark[] {
  return runs.map(({ type, count, start: [from], columns }) => {
    if (columns) return { lane: "seen", from, to: from + 1, rows: count / columns, columns };
    return { lane: type === "audio" ? "heard" : "text", from, to: from + count, rows: 1, columns: count };
  });
}

/** Positions with a mark below them: of whole seconds, or of even parts of one. */
export function ticksOf(marks: readonly Mark[], second: number, most: number): number[] {
  const end = Math.max(1, ...marks.map((mark) => mark.to));
  const steps = [0.2, 1, 2, 5, 10, 20, 60, 120].map((share) => Math.round(share * second));
  const step = steps.find((one) => one > 0 && end / one < most) ?? Math.ceil(end / most);
  return Array.from({ length: Math.floor(end / step) + 1 }, (_, n) => n * step);
}

/** Tokens by what they are, and the number of pictures. */
export function countsOf(marks: readonly Mark[]): { text: number; heard: number; seen: number; pictures: number } {
  const tokens = (lane: Mark["lane"]) =>
    marks.filter((mark) => mark.lane === lane).reduce((sum, mark) => sum + mark.rows * mark.columns, 0);
  const pictures = marks.filter((mark) => mark.lane === "seen").length;
  return { text: tokens("text"), heard: tokens("heard"), seen: tokens("seen"), pictures };
}
