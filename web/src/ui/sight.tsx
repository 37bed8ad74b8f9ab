/** The picture of what the model sees of a question and when: text, pictures and sound on the model's own clock, and a
 * line through them in the order in which it reads them. */
import { countsOf, LANES, type Layout, type Mark, marksOf, ticksOf } from "../sight";
import { number, t, type Word } from "../words";

const WIDTH = 640;
const LANE = 34;
const LEFT = 108;
const RIGHT = 24; // where the last picture may stand out
const BAR = 10;
const PICTURE = 20; // of the longer side at most
const WORDS: Record<Mark["lane"], Word> = { text: "laneText", seen: "laneSeen", heard: "laneHeard" };

export function Sight({ layout }: { layout: Layout }) {
  const marks = marksOf(layout);
  const end = Math.max(1, ...marks.map((mark) => mark.to));
  const at = (position: number) => LEFT + (position / end) * (WIDTH - LEFT - RIGHT);
  const middle = (lane: Mark["lane"]) => LANE * LANES.indexOf(lane) + LANE / 2;
  const height = LANE * LANES.length + 22;
  const way = marks.map((mark) => `${at(mark.from).toFixed(1)} ${middle(mark.lane)}H${at(mark.to).toFixed(1)}`).join("L");
  const second = layout.positions_per_second;
  return (
    <figure class="timeline sight" tabIndex={0} aria-label={t("sight")}>
      <svg viewBox={`0 0 ${WIDTH} ${height}`} role="img" aria-label={t("sightTold", countsOf(marks))}>
        {ticksOf(marks, second, 8).map((tick) => (
          <g key={tick} class="tick">
            <line x1={at(tick)} x2={at(tick)} y1={0} y2={height - 18} />
            <text x={at(tick)} y={height - 5}>{number(tick)}</text>
          </g>
        ))}
        {LANES.map((lane) => (
          <text key={lane} class="lane" x={0} y={middle(lane) + 4}>{t(WORDS[lane])}</text>
        ))}
        <path class="way" d={`M${way}`} />
        {marks.map((mark, place) =>
          mark.lane === "seen" ? (
            <Picture key={place} mark={mark} x={at(mark.from)} y={middle("seen")} />
          ) : (
            <rect
              key={place}
              class={mark.lane}
              x={at(mark.from)}
              y={middle(mark.lane) - BAR / 2}
              width={Math.max(1, at(mark.to) - at(mark.from) - 0.5)}
              height={BAR}
            />
          ),
        )}
      </svg>
      <figcaption>{t("sightClock", { second })}</figcaption>
    </figure>
  );
}

/** One picture as the grid of its tokens, its left edge at its time. */
function Picture({ mark: { rows, columns }, x, y }: { mark: Mark; x: number; y: number }) {
  const cell = PICTURE / Math.max(rows, columns);
  const [width, height] = [columns * cell, rows * cell];
  const top = y - height / 2;
  const across = Array.from({ length: rows - 1 }, (_, n) => `M${x} ${top + (n + 1) * cell}h${width}`);
  const down = Array.from({ length: columns - 1 }, (_, n) => `M${x + (n + 1) * cell} ${top}v${height}`);
  return (
    <g class="seen">
      <rect x={x} y={top} width={width} height={height} />
      {cell >= 3 && <path d={[...across, ...down].join("")} />}
    </g>
  );
}
