/** The waveforms of both sides, drawn from the peaks of what was captured and of what was really played. */
import { useEffect, useRef } from "preact/hooks";
import { levels, PEAKS } from "../audio/levels";
import { t } from "../words";

const BARS = 40;
const GAIN = 1.6; // speech peaks are well below full scale

export function Waveform({ side }: { side: "you" | "model" }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    let frame = 0;
    let drawn = -1;
    const draw = () => {
      frame = requestAnimationFrame(draw);
      const element = canvas.current;
      const shown = levels[side];
      if (!element || drawn === shown.count) return;
      drawn = shown.count;
      paint(element, side);
    };
    draw();
    return () => cancelAnimationFrame(frame);
  }, [side]);
  return <canvas ref={canvas} class={`waveform ${side}`} role="img" aria-label={t("waveform")} />;
}

function paint(canvas: HTMLCanvasElement, side: "you" | "model"): void {
  const scale = window.devicePixelRatio || 1;
  const width = Math.round(canvas.clientWidth * scale);
  const height = Math.round(canvas.clientHeight * scale);
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const pen = canvas.getContext("2d");
  if (!pen) return;
  pen.clearRect(0, 0, width, height);
  pen.fillStyle = getComputedStyle(canvas).color;
  const step = width / BARS;
  const thick = Math.max(scale, step * 0.5);
  for (let bar = 0; bar < BARS; bar++) {
    const from = Math.floor((bar * PEAKS) / BARS / 2);
    const peak = Math.min(1, GAIN * levels[side].past(from));
    const tall = Math.max(thick, peak * height);
    pen.beginPath();
    pen.roundRect(width - (bar + 1) * step + (step - thick) / 2, (height - tall) / 2, thick, tall, thick / 2);
    pen.fill();
  }
}
