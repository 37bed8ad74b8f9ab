/** What can be chosen, in one window. */
import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { endReplay, sampleVoice, settingsChanged } from "../app";
import { model, replaying, settings, talking, voices } from "../state";
import { DEFAULTS, type Settings, toLink } from "../store/settings";
import { t } from "../words";
import { Dialog } from "./dialog";
import { IconButton } from "./icons";

export const settingsOpen = signal(false);

type TextName = { [Name in keyof Settings]: Settings[Name] extends string ? Name : never }[keyof Settings];

function set(patch: Partial<Settings>): void {
  settings.value = { ...settings.value, ...patch };
}

export function SettingsDialog() {
  const [before] = useState(settings.value);
  const [copied, setCopied] = useState(false);
  const close = () => {
    settingsOpen.value = false;
    endReplay();
    if (talking.value && before !== settings.value) void settingsChanged();
  };
  const copyLink = async () => {
    await navigator.clipboard.writeText(location.origin + location.pathname + toLink(settings.value));
    setCopied(true);
  };
  return (
    <Dialog title={t("settings")} close={close} class="settings">
      <Voice />
      <Talking />
      <Sampling />
      <Devices />
      <fieldset>
        <legend>{t("look")}</legend>
        <Choice name="language" label={t("language")} options={[["", t("browserChoice")], ["en", "English"], ["ru", "Русский"], ["zh", "中文"]]} />
        <Choice name="theme" label={t("themeWord")} options={[["auto", t("themeAuto")], ["light", t("themeLight")], ["dark", t("themeDark")]]} />
      </fieldset>
      <div class="row">
        <button type="button" class="quiet" onClick={() => void copyLink()}>{copied ? t("copied") : t("link")}</button>
        <button type="button" class="quiet" onClick={() => (settings.value = { ...DEFAULTS })}>{t("reset")}</button>
      </div>
    </Dialog>
  );
}

function Voice() {
  const name = settings.value.voice || voices.value[0] || "";
  return (
    <fieldset>
      <legend>{t("answers")}</legend>
      <Row label={t("modelName")}><output>{model.value}</output></Row>
      <Choice name="voice" label={t("voice")} options={voices.value.map((voice, place) => [place ? voice : "", voice])}>
        {replaying.value === "sample" ? (
          <IconButton name="stop" word={t("stopReplay")} act={endReplay} />
        ) : (
          <IconButton name="play" word={t("voiceSample")} act={() => void sampleVoice(name)} />
        )}
      </Choice>
      <Row label={t("aloud")}>
        <input type="checkbox" role="switch" checked={settings.value.aloud} onChange={(event) => set({ aloud: event.currentTarget.checked })} />
      </Row>
      <Choice
        name="latency"
        label={t("latency")}
        note={t("latencyNote")}
        options={[["", t("latencyServer")], ["low", t("latencyLow")], ["balanced", t("latencyBalanced")], ["quality", t("latencyQuality")]]}
      />
      <Choice name="memory" label={t("memory")} options={[["", t("memoryAuto")], ["all", t("memoryAll")], ["one", t("memoryOne")]]} />
      <label class="field tall">
        <span>{t("instructions")}</span>
        <textarea rows={3} dir="auto" value={settings.value.instructions} onInput={(event) => set({ instructions: event.currentTarget.value })} />
      </label>
    </fieldset>
  );
}

function Talking() {
  const { threshold, silence, padding, talk } = settings.value;
  return (
    <fieldset>
      <legend>{t("talking")}</legend>
      <Choice name="talk" label={t("turnTaking")} options={[["free", t("handsFree")], ["push", t("pushToTalk")]]} />
      {talk === "free" && (
        <>
          <Choice name="transport" label={t("transport")} note={t("transportNote")} options={[["socket", "WebSocket"], ["call", "WebRTC"]]} />
          <Slider label={t("threshold")} value={threshold} most={1} step={0.05} change={(value) => set({ threshold: value })} />
          <Slider label={t("silence")} value={silence} least={100} most={2000} step={50} change={(value) => set({ silence: value })} />
          <Slider label={t("padding")} value={padding} most={1000} step={50} change={(value) => set({ padding: value })} />
        </>
      )}
    </fieldset>
  );
}

function Sampling() {
  return (
    <fieldset>
      <legend>{t("sampling")}</legend>
      <Figure name="temperature" label={t("temperature")} least={0} most={2} step={0.1} />
      <Figure name="top_p" label={t("topP")} least={0.01} most={1} step={0.01} />
      <Figure name="top_k" label={t("topK")} least={0} step={1} />
      <Figure name="max_tokens" label={t("maxTokens")} least={1} step={1} />
      <Figure name="seed" label={t("seed")} least={0} step={1} />
    </fieldset>
  );
}

function Devices() {
  const [found, setFound] = useState<MediaDeviceInfo[]>([]);
  useEffect(() => {
    const devices = navigator.mediaDevices;
    if (!devices) return undefined;
    const look = () => void devices.enumerateDevices().then(setFound);
    look();
    devices.addEventListener("devicechange", look);
    return () => devices.removeEventListener("devicechange", look);
  }, []);
  const options = (kind: MediaDeviceKind): [string, string][] => [
    ["", t("browserChoice")],
    ...found
      .filter((one) => one.kind === kind && one.deviceId && one.deviceId !== "default")
      .map((one, place): [string, string] => [one.deviceId, one.label || `${place + 1}`]),
  ];
  return (
    <fieldset>
      <legend>{t("devices")}</legend>
      <Choice name="microphone" label={t("microphone")} options={options("audioinput")} />
      <Choice name="speaker" label={t("speaker")} options={options("audiooutput")} />
      <Choice name="camera" label={t("camera")} options={options("videoinput")} />
    </fieldset>
  );
}

// ---------------------------------------------------------------- the rows

function Row({ label, note, children }: { label: string; note?: string; children: ComponentChildren }) {
  return (
    <label class="field">
      <span>
        {label}
        {note && <small>{note}</small>}
      </span>
      {children}
    </label>
  );
}

function Choice(props: {
  name: TextName;
  label: string;
  note?: string;
  options: [string, string][];
  children?: ComponentChildren;
}) {
  const id = `set-${props.name}`;
  return (
    <div class="field">
      <label for={id}>
        {props.label}
        {props.note && <small>{props.note}</small>}
      </label>
      <select id={id} value={settings.value[props.name]} onChange={(event) => set({ [props.name]: event.currentTarget.value })}>
        {props.options.map(([value, word]) => <option key={value} value={value}>{word}</option>)}
      </select>
      {props.children}
    </div>
  );
}

function Slider(props: { label: string; value: number; least?: number; most: number; step: number; change: (value: number) => void }) {
  return (
    <Row label={props.label}>
      <input
        type="range"
        min={props.least ?? 0}
        max={props.most}
        step={props.step}
        value={props.value}
        onInput={(event) => props.change(Number(event.currentTarget.value))}
      />
      <output>{props.value}</output>
    </Row>
  );
}

function Figure(props: { name: TextName; label: string; least: number; most?: number; step: number }) {
  return (
    <Row label={props.label}>
      <input
        type="number"
        min={props.least}
        max={props.most ?? ""}
        step={props.step}
        placeholder={t("modelDefault")}
        value={settings.value[props.name]}
        onInput={(event) => {
          if (event.currentTarget.validity.valid) set({ [props.name]: event.currentTarget.value });
        }}
      />
    </Row>
  );
}
