import DOMPurify from "dompurify";
import { Marked } from "marked";
import { useEffect, useRef, useState } from "preact/hooks";
import { fetchModelCard, type Problem, ProblemError } from "../../lib/api";
import { Panel } from "../panel";
import { ProblemNote } from "../problem_note";

/** The model card of the bundle (Markdown). */
export function ModelCard() {
  const [markdown, setMarkdown] = useState<string>();
  const [problem, setProblem] = useState<Problem>();
  const container = useRef<HTMLDivElement>(null);
  useEffect(() => {
    fetchModelCard().then(setMarkdown, (error) => error instanceof ProblemError && setProblem(error.problem));
  }, []);
  useEffect(() => {
    if (markdown !== undefined) container.current?.replaceChildren(renderMarkdown(markdown));
  }, [markdown]);
  return (
    <Panel title="Model card">
      {problem?.status === 404 && <p>This bundle has no model card.</p>}
      {problem && problem.status !== 404 && <ProblemNote problem={problem} />}
      {markdown !== undefined && (
        <details>
          <summary>Intended use, limits, training data and measured performance</summary>
          <div ref={container} class="card-text" />
        </details>
      )}
    </Panel>
  );
}

// Headings move two levels down, below the heading of the panel.
const parser = new Marked({
  walkTokens(token) {
    if (token.type === "heading") token.depth = Math.min(6, token.depth + 2);
  },
});

/** Sanitised HTML, with the changes that accessibility needs. */
function renderMarkdown(markdown: string): DocumentFragment {
  const html = parser.parse(markdown, { async: false });
  const card = DOMPurify.sanitize(html, { RETURN_DOM_FRAGMENT: true });
  // An empty corner cell is not a header.
  for (const corner of card.querySelectorAll("th:empty")) corner.replaceWith(document.createElement("td"));
  for (const [i, table] of card.querySelectorAll("table").entries()) {
    const region = document.createElement("div");
    region.className = "scroll";
    region.tabIndex = 0;
    region.role = "region";
    region.ariaLabel = `Table ${i + 1} of the model card`;
    table.replaceWith(region);
    region.append(table);
  }
  return card;
}
