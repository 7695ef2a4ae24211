import DOMPurify from "dompurify";
import { Marked } from "marked";
import { useEffect, useRef, useState } from "preact/hooks";
import { modelCard, type Problem, Refused } from "./api";
import { Panel } from "./app";
import { ProblemNote } from "./problem";

/** The model card that the bundle holds. */
export function Card() {
  const [text, show] = useState<string>();
  const [problem, fail] = useState<Problem>();
  const place = useRef<HTMLDivElement>(null);
  useEffect(() => {
    modelCard().then(show, (error) => error instanceof Refused && fail(error.problem));
  }, []);
  useEffect(() => {
    if (text !== undefined) place.current?.replaceChildren(rendered(text));
  }, [text]);
  return (
    <Panel title="Model card">
      {problem?.status === 404 && <p>This bundle has no model card.</p>}
      {problem && problem.status !== 404 && <ProblemNote problem={problem} />}
      {text !== undefined && (
        <details>
          <summary>What it is for and what not, what it learned from, what was measured</summary>
          <div ref={place} class="card-text" />
        </details>
      )}
    </Panel>
  );
}

// Its headings come below that of the panel.
const markdown = new Marked({
  walkTokens(token) {
    if (token.type === "heading") token["depth"] = Math.min(6, token["depth"] + 2);
  },
});

function rendered(text: string): DocumentFragment {
  const html = markdown.parse(text, { async: false });
  const card = DOMPurify.sanitize(html, { RETURN_DOM_FRAGMENT: true });
  // An empty corner is no header.
  for (const corner of card.querySelectorAll("th:empty")) corner.replaceWith(document.createElement("td"));
  for (const [i, table] of card.querySelectorAll("table").entries()) {
    const box = document.createElement("div");
    box.className = "scroll";
    box.tabIndex = 0;
    box.role = "region";
    box.ariaLabel = `Table ${i + 1} of the model card`;
    table.replaceWith(box);
    box.append(table);
  }
  return card;
}
