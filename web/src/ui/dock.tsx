/** What goes on in a live talk: who listens, thinks or speaks, and the buttons of the microphone and the camera. */
import { useEffect, useRef } from "preact/hooks";
import { endTalk, mute, press, show, stop, stopShowing } from "../app";
import { busy, muted, phase, settings, showing, talking } from "../state";
import { t, type Word } from "../words";
import { Icon, IconButton } from "./icons";
import { Waveform } from "./waveform";

function stateWord(): Word {
  if (phase.value === "idle") return "ready";
  if (phase.value === "listening" && settings.value.talk === "push") return "pressToTalk";
  if (phase.value === "listening" && muted.value) return "muted";
  return phase.value;
}

export function Dock() {
  const isPush = settings.value.talk === "push";
  useEffect(() => (isPush ? holdSpace() : undefined), [isPush]);
  if (!talking.value) return null;
  const side = phase.value === "speaking" ? "model" : "you";
  return (
    <section class={`dock ${phase.value}`} aria-label={t("talk")}>
      {showing.value && <Preview stream={showing.value} />}
      <button type="button" class="stage" onClick={() => void stop()} disabled={!busy.value} title={busy.value ? t("stop") : ""}>
        <Waveform side={side} />
        <span class="state" role="status">{t(stateWord())}</span>
      </button>
      {isPush && (
        <button
          type="button"
          class="hold strong"
          title={t("holdKey")}
          onPointerDown={(event) => {
            event.currentTarget.setPointerCapture(event.pointerId);
            press(true);
          }}
          onPointerUp={() => press(false)}
          onPointerCancel={() => press(false)}
        >
          {t("hold")}
        </button>
      )}
      <div class="buttons">
        <IconButton
          name={muted.value ? "muted" : "microphone"}
          word={t(muted.value ? "unmute" : "mute")}
          pressed={muted.value}
          act={() => mute(!muted.value)}
        />
        {showing.value ? (
          <IconButton name="close" word={t("stopCamera")} act={stopShowing} />
        ) : (
          <>
            <IconButton name="camera" word={t("camera")} act={() => void show("camera")} />
            {"getDisplayMedia" in (navigator.mediaDevices ?? {}) && (
              <IconButton name="screen" word={t("screen")} act={() => void show("screen")} />
            )}
          </>
        )}
        <button type="button" class="end" onClick={endTalk}>
          <Icon name="stop" />
          {t("endTalk")}
        </button>
      </div>
    </section>
  );
}

function Preview({ stream }: { stream: MediaStream }) {
  const video = useRef<HTMLVideoElement>(null);
  useEffect(() => {
    if (video.current) video.current.srcObject = stream;
  }, [stream]);
  return <video ref={video} class="preview" autoplay muted playsInline aria-label={t("preview")} />;
}

/** The space bar is the button, unless something is being typed. */
function holdSpace(): () => void {
  const isTyping = (target: EventTarget | null) =>
    target instanceof Element && target.closest("textarea, input, select, button, dialog") !== null;
  const down = (event: KeyboardEvent) => {
    if (event.code !== "Space" || event.repeat || isTyping(event.target)) return;
    event.preventDefault();
    press(true);
  };
  const up = (event: KeyboardEvent) => {
    if (event.code === "Space") press(false);
  };
  window.addEventListener("keydown", down);
  window.addEventListener("keyup", up);
  return () => {
    window.removeEventListener("keydown", down);
    window.removeEventListener("keyup", up);
  };
}
