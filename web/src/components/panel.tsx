import type { ComponentChildren } from "preact";

/** A bordered section with a heading. */
export function Panel(props: { title: string; class?: string; children: ComponentChildren }) {
  return (
    <section class={`panel ${props.class ?? ""}`}>
      <h2>{props.title}</h2>
      {props.children}
    </section>
  );
}
