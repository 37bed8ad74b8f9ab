import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { t } from "../words";
import { IconButton } from "./icons";

/** A window before the page. close: absent where it must be answered. */
export function Dialog(props: { title: string; close?: () => void; class?: string; children: ComponentChildren }) {
  const { close } = props;
  const element = useRef<HTMLDialogElement>(null);
  useEffect(() => element.current?.showModal(), []);
  return (
    <dialog
      ref={element}
      class={props.class ?? ""}
      aria-label={props.title}
      onCancel={(event) => {
        event.preventDefault();
        close?.();
      }}
      onClick={(event) => {
        if (event.target === element.current) close?.();
      }}
    >
      <header>
        <h2>{props.title}</h2>
        {close && <IconButton name="close" word={t("close")} act={close} />}
      </header>
      <div class="body">{props.children}</div>
    </dialog>
  );
}
