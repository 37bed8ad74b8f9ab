/** Files that are dropped, pasted or picked. */
import type { Medium, MediaKind } from "./store/model";
import { bytes, t } from "./words";

export const MOST_BYTES = 22_000_000; // of one question: a request of 32 MiB carries it in base64
const KINDS: readonly [MediaKind, RegExp, RegExp][] = [
  ["image", /^image\//, /\.(jpe?g|png|webp|gif|bmp|tiff?|avif)$/i],
  ["sound", /^audio\//, /\.(wav|mp3|flac|ogg|oga|opus|m4a|aac|aiff?|wma|amr|caf)$/i],
  ["video", /^video\//, /\.(mp4|mov|webm|mkv|avi|ts|3gp|wmv)$/i],
];

export function kindOf(file: { name: string; type: string }): MediaKind | null {
  const found = KINDS.find(([, type, name]) => type.test(file.type) || (!file.type && name.test(file.name)));
  return found?.[0] ?? null;
}

export interface Taken {
  media: Medium[];
  refused: string[]; // why, one line a file
}

/** Take files beside those that are there. */
export function takeFiles(files: Iterable<File>, there: readonly Medium[]): Taken {
  const media: Medium[] = [];
  const refused: string[] = [];
  let size = there.reduce((sum, medium) => sum + medium.blob.size, 0);
  for (const file of files) {
    const kind = kindOf(file);
    if (!kind) refused.push(t("notRead", { name: file.name }));
    else if (size + file.size > MOST_BYTES) {
      refused.push(t("tooLarge", { name: file.name, size: bytes(file.size), most: bytes(MOST_BYTES) }));
    } else {
      media.push({ kind, blob: file, name: file.name });
      size += file.size;
    }
  }
  return { media, refused };
}
