/** Pictures, sounds and videos as they are shown. */
import { useEffect, useState } from "preact/hooks";
import type { Medium } from "../store/model";
import { bytes, t } from "../words";
import { Icon } from "./icons";

/** An address of a blob, for as long as it is shown. */
export function useAddress(blob: Blob): string {
  const [address, setAddress] = useState("");
  useEffect(() => {
    const made = URL.createObjectURL(blob);
    setAddress(made);
    return () => URL.revokeObjectURL(made);
  }, [blob]);
  return address;
}

export function MediumView({ medium, remove }: { medium: Medium; remove?: () => void }) {
  const address = useAddress(medium.blob);
  const name = medium.name || t("preview");
  return (
    <figure class={`medium ${medium.kind} ${medium.name ? "" : "seen"}`}>
      {address && medium.kind === "image" && <img src={address} alt={name} />}
      {address && medium.kind === "video" && <video src={address} controls preload="metadata" aria-label={name} />}
      {address && medium.kind === "sound" && <audio src={address} controls preload="metadata" aria-label={name} />}
      {medium.name && (
        <figcaption>
          <span class="name" dir="auto">{name}</span>
          <span>{bytes(medium.blob.size)}</span>
        </figcaption>
      )}
      {remove && (
        <button type="button" class="remove" aria-label={t("removeFile", { name })} onClick={remove}>
          <Icon name="close" />
        </button>
      )}
    </figure>
  );
}
