/** The timeline of a turn: what was said, written, sent and heard, on one clock that begins where the question ended. */
import type { Trace } from "../store/model";
import { language, number, t } from "../words";

const WIDTH = 640;
const LANE = 26;
const LEFT = 108;
const TICKS = [50, 100, 200, 250, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000];

export function Timeline({ trace }: { trace: Trace }) {
  const zero = trace.asked ?? trace.sent ?? 0;
  const end = Math.max(trace.ended ?? 0, trace.silent ?? 0, trace.written ?? 0, zero + 1);
  const begin = Math.min(trace.spoke ?? zero, zero);
  const at = (time: number) => LEFT + ((time - begin) / (end - begin)) * (WIDTH - LEFT - 12);
  const step = TICKS.find((tick) => (end - begin) / tick <= 7) ?? 60_000;
  const marks: number[] = [];
  for (let tick = Math.ceil((begin - zero) / step) * step; zero + tick <= end; tick += step) marks.push(tick);
  const lanes = [t("laneYou"), t("laneText"), t("laneSound"), t("lanePlay")];
  const height = LANE * lanes.length + 22;
  const y = (lane: number) => LANE * lane + 7;
  const played = trace.played === undefined ? null : [trace.played, trace.silent ?? trace.ended ?? end];
  return (
    <figure class="timeline" tabIndex={0} aria-label={t("details")}>
      <svg viewBox={`0 0 ${WIDTH} ${height}`} role="img" aria-label={summary(trace)}>
        {marks.map((tick) => (
          <g key={tick} class={tick === 0 ? "zero" : "tick"}>
            <line x1={at(zero + tick)} x2={at(zero + tick)} y1={0} y2={height - 18} />
            <text x={at(zero + tick)} y={height - 5}>{number(tick)}</text>
          </g>
        ))}
        {lanes.map((name, lane) => (
          <text key={name} class="lane" x={0} y={y(lane) + 10}>{name}</text>
        ))}
        {trace.spoke !== undefined && (
          <rect class="you" x={at(trace.spoke)} y={y(0)} width={Math.max(2, at(zero) - at(trace.spoke))} height={12} rx={3} />
        )}
        {trace.deltas.map((time, place) => (
          <rect key={place} class="text" x={at(time) - 1} y={y(1)} width={2} height={12} />
        ))}
        {trace.sounds.map((sound, place) => (
          <circle key={place} class="sound" cx={at(sound.at)} cy={y(2) + 6} r={Math.min(6, 2 + sound.ms / 240)} />
        ))}
        {played && (
          <rect class="play" x={at(played[0]!)} y={y(3)} width={Math.max(2, at(played[1]!) - at(played[0]!))} height={12} rx={3} />
        )}
        {trace.stopAt !== undefined && (
          <line class="cut" x1={at(trace.stopAt)} x2={at(trace.stopAt)} y1={0} y2={height - 18} />
        )}
      </svg>
      <figcaption>{t("afterQuestion")}</figcaption>
    </figure>
  );
}

export function seconds(ms: number): string {
  const style = { style: "unit", unit: "second", unitDisplay: "short", maximumFractionDigits: 2 } as const;
  return new Intl.NumberFormat(language.value, style).format(ms / 1000);
}

/** The latency of a turn in words. */
export function summary(trace: Trace): string {
  const from = trace.asked ?? trace.sent;
  if (from === undefined) return "";
  const parts = [];
  if (trace.text !== undefined) parts.push(`${t("firstText")} ${seconds(trace.text - from)}`);
  if (trace.played !== undefined) parts.push(`${t("firstSound")} ${seconds(trace.played - from)}`);
  return parts.join(" · ");
}
