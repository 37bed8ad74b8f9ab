/** What the user chooses; kept between visits in localStorage, and read from the link that was opened. */
export interface Settings {
  language: "" | "en" | "ru" | "zh"; // "": the browser's
  theme: "auto" | "light" | "dark";
  voice: string; // "": the model's first
  aloud: boolean;
  latency: "" | "low" | "balanced" | "quality"; // "": as the server was started
  memory: "" | "all" | "one"; // what the model is told of before a question; "": by the model
  instructions: string;
  temperature: string; // of sampling; "": the model's own
  top_p: string;
  top_k: string;
  max_tokens: string;
  seed: string;
  talk: "free" | "push";
  transport: "socket" | "call"; // of a hands-free talk: WebSocket or WebRTC
  threshold: number; // of voice detection
  silence: number; // ms after which a turn is over
  padding: number; // ms before speech that belong to it
  microphone: string; // device ids; "": the browser's choice
  camera: string;
  speaker: string;
}

export const DEFAULTS: Settings = {
  language: "",
  theme: "auto",
  voice: "",
  aloud: true,
  latency: "",
  memory: "",
  instructions: "",
  temperature: "",
  top_p: "",
  top_k: "",
  max_tokens: "",
  seed: "",
  talk: "free",
  transport: "socket",
  threshold: 0.5,
  silence: 500,
  padding: 300,
  microphone: "",
  camera: "",
  speaker: "",
};

const KEY = "descant.settings";
const WORDS: { [Name in keyof Settings]?: readonly string[] } = {
  language: ["", "en", "ru", "zh"],
  theme: ["auto", "light", "dark"],
  latency: ["", "low", "balanced", "quality"],
  talk: ["free", "push"],
  transport: ["socket", "call"],
  memory: ["", "all", "one"],
};
const RANGES: { [Name in keyof Settings]?: readonly [number, number] } = {
  temperature: [0, 2],
  top_p: [0.01, 1],
  top_k: [0, 1_000_000],
  max_tokens: [1, 1_000_000],
  seed: [0, Number.MAX_SAFE_INTEGER],
  threshold: [0, 1],
  silence: [20, 10_000],
  padding: [0, 5000],
};

/** The settings among what was given; what is of another kind or out of its range is left out. */
export function checked(given: Record<string, unknown>): Partial<Settings> {
  const found: Record<string, unknown> = {};
  for (const [name, standard] of Object.entries(DEFAULTS) as [keyof Settings, unknown][]) {
    let value = given[name];
    if (typeof value === "string" && typeof standard === "boolean") value = value === "true" || value === "1";
    if (typeof value === "string" && typeof standard === "number" && value.trim() !== "") value = Number(value);
    if (typeof value !== typeof standard) continue;
    const words = WORDS[name];
    const range = RANGES[name];
    if (words && !words.includes(value as string)) continue;
    if (range && value !== "" && !(Number(value) >= range[0] && Number(value) <= range[1])) continue;
    found[name] = value;
  }
  return found as Partial<Settings>;
}

/** Settings in the part of an address that never leaves the browser: #voice=Nova&silence=300 */
export function fromLink(hash: string): Partial<Settings> {
  return checked(Object.fromEntries(new URLSearchParams(hash.replace(/^#/, ""))));
}

/** The link that opens with what differs from the defaults; devices belong to one machine and are left out. */
export function toLink(settings: Settings): string {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(settings)) {
    const isDevice = name === "microphone" || name === "camera" || name === "speaker";
    if (!isDevice && value !== DEFAULTS[name as keyof Settings]) found.set(name, String(value));
  }
  return found.size ? `#${found}` : "";
}

export function loadSettings(): Settings {
  let kept: unknown = null;
  try {
    kept = JSON.parse(localStorage.getItem(KEY) ?? "null");
  } catch {
    // no JSON, or no storage: the defaults
  }
  const record = typeof kept === "object" && kept !== null ? (kept as Record<string, unknown>) : {};
  return { ...DEFAULTS, ...checked(record), ...fromLink(location.hash) };
}

export function keepSettings(settings: Settings): void {
  try {
    localStorage.setItem(KEY, JSON.stringify(settings));
  } catch {
    // storage is off or full; they hold for this visit
  }
}
