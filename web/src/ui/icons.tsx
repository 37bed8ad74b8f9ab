/** The few signs of the page, drawn as lines of one weight. */
const PATHS = {
  menu: "M4 7h16M4 12h16M4 17h16",
  plus: "M12 5v14M5 12h14",
  gear: "M4 7h9M17 7h3M4 17h3M11 17h9M15 4.5v5M9 14.5v5",
  microphone: "M12 4a2.5 2.5 0 0 0-2.5 2.5v5a2.5 2.5 0 0 0 5 0v-5A2.5 2.5 0 0 0 12 4zM6 11.5a6 6 0 0 0 12 0M12 17.5V21",
  muted: "M12 4a2.5 2.5 0 0 0-2.5 2.5v5a2.5 2.5 0 0 0 5 0v-5A2.5 2.5 0 0 0 12 4zM6 11.5a6 6 0 0 0 12 0M12 17.5V21M4 4l16 16",
  camera: "M4 7.5h10.5v9H4zM14.5 11l5.5-3v8l-5.5-3z",
  screen: "M4 5h16v11H4zM9 20h6M12 16v4",
  clip: "M18 11l-6.5 6.5a3.5 3.5 0 0 1-5-5l7-7a2.4 2.4 0 0 1 3.4 3.4l-6.9 6.9a1.2 1.2 0 0 1-1.7-1.7L14.5 8",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M7 7h10v10H7z",
  close: "M6 6l12 12M18 6L6 18",
  copy: "M9 9h10v11H9zM5 15V4h10",
  done: "M5 12.5l4.5 4.5L19 7",
  edit: "M5 19l1-4L16 5l3 3L9 18zM14 7l3 3",
  again: "M19 12a7 7 0 1 1-2.2-5.1M19 4v4h-4",
  play: "M8 5.5v13l10.5-6.5z",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  chart: "M4 6h9M7 11h11M4 16h6",
  eye: "M3.5 12C6 8 9 6.5 12 6.5s6 1.5 8.5 5.5c-2.5 4-5.5 5.5-8.5 5.5S6 16 3.5 12zM12 9.8a2.2 2.2 0 1 0 0 4.4a2.2 2.2 0 0 0 0-4.4z",
  trash: "M5 7h14M10 7V4.5h4V7M7 7l.8 12.5h8.4L17 7",
  sound: "M5 10v4M9 7v10M13 4v16M17 8v8M21 11v2",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}

/** A button that is only a sign; its word is for readers and hints. */
export function IconButton(props: {
  name: IconName;
  word: string;
  act: () => void;
  class?: string;
  pressed?: boolean;
  disabled?: boolean;
}) {
  return (
    <button
      type="button"
      class={`sign ${props.class ?? ""}`}
      aria-label={props.word}
      title={props.word}
      aria-pressed={props.pressed}
      disabled={props.disabled ?? false}
      onClick={props.act}
    >
      <Icon name={props.name} />
    </button>
  );
}
