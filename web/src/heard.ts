/**
 * How much of a text was heard in a time of its sound. The Talker keeps no alignment, so time is dealt out over the
 * characters by weights, and a word counts when more than half of it was heard. The server cuts by a finer rule; what
 * it says replaces this.
 */
const LETTER_S = 0.066; // of speech, where the length of the whole is not known yet
const WEIGHTS: readonly [RegExp, number][] = [
  [/[\u2e80-\u9fff\uac00-\ud7af]/u, 3],
  [/[0-9]/, 4],
  [/[.!?。！？]/, 5],
  [/[,;:，；：]/, 3],
];

function weight(character: string): number {
  return WEIGHTS.find(([kind]) => kind.test(character))?.[1] ?? 1;
}

/** seconds: heard; known: of the whole sound, or null. Returns a place in the text that ends a word. */
export function heardCharacters(text: string, seconds: number, known: number | null): number {
  const all = [...text].reduce((sum, character) => sum + weight(character), 0);
  const share = known === null ? seconds / LETTER_S : (seconds / Math.max(known, 1e-9)) * all;
  let passed = 0;
  let end = 0;
  for (const word of text.matchAll(/\s*(?:[\u2e80-\u9fff]|[^\s\u2e80-\u9fff]+)/gu)) {
    const cost = [...word[0]].reduce((sum, character) => sum + weight(character), 0);
    if (passed + cost / 2 > share) break;
    passed += cost;
    end = word.index + word[0].length;
  }
  return end;
}
