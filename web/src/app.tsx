import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import * as api from "./api";
import { ModelView } from "./model";
import { Network } from "./network";
import { Patient } from "./patient";
import { ProblemNote } from "./problem";
import { TimView } from "./tim";

const VIEWS = { patient: "Patient", tim: "Which task teaches which", network: "Network", model: "Model" };
type View = keyof typeof VIEWS;

const PALETTES = { "light dark": "as the system", light: "light", dark: "dark" };
type Palette = keyof typeof PALETTES;

/** `#tim/sepsis`: the view, and what of it. */
function place(): { view: View; of: string | undefined } {
  const [view = "", of] = location.hash.slice(1).split("/");
  return { view: view in VIEWS ? (view as View) : "patient", of };
}

export interface Known {
  tasks: api.Task[];
  variables: api.Variable[];
  model: api.Model;
  tim: api.Tim | null;
}

export function App() {
  const [{ view, of }, go] = useState(place);
  const [known, know] = useState<Known>();
  const [problem, fail] = useState<api.Problem>();
  const [palette, paint] = useState<Palette>("light dark");

  useEffect(() => {
    const follow = () => go(place());
    addEventListener("hashchange", follow);
    Promise.all([api.tasks(), api.variables(), api.model(), api.tim()]).then(
      ([tasks, variables, model, tim]) => know({ tasks, variables, model, tim }),
      (error) => fail(error instanceof api.Refused ? error.problem : NO_PAGE),
    );
    return () => removeEventListener("hashchange", follow);
  }, []);
  useEffect(() => {
    document.documentElement.style.colorScheme = palette;
  }, [palette]);
  useEffect(() => {
    document.title = `${VIEWS[view]} · M3H`;
  }, [view]);

  return (
    <>
      <a class="skip" href="#content" onClick={skip}>
        To the content
      </a>
      <header class="top">
        <strong class="brand">M3H</strong>
        <nav aria-label="Views">
          {Object.entries(VIEWS).map(([name, title]) => (
            <a key={name} href={`#${name}`} aria-current={name === view ? "page" : undefined}>
              {title}
            </a>
          ))}
        </nav>
        <label class="palette">
          Colours{" "}
          <select value={palette} onChange={(event) => paint(event.currentTarget.value as Palette)}>
            {Object.entries(PALETTES).map(([name, title]) => (
              <option key={name} value={name}>
                {title}
              </option>
            ))}
          </select>
        </label>
      </header>
      <main id="content" tabIndex={-1}>
        {problem && <ProblemNote problem={problem} />}
        {!problem && !known && <p role="status">Asking the service what it knows …</p>}
        {known && (
          <>
            {/* It stays, so that a patient is still there after a look at the model. */}
            <div hidden={view !== "patient"}>
              <Patient known={known} />
            </div>
            {view === "tim" && <TimView known={known} of={of} />}
            {view === "network" && <Network known={known} />}
            {view === "model" && <ModelView known={known} />}
          </>
        )}
      </main>
      <footer>
        <p>
          <strong>For research. Not a medical device.</strong> A disease’s probability means “coded at any time in
          this stay”: it is no proof of the disease, nor of its absence.
        </p>
        {known && (
          <p>
            {known.model.name} {known.model.version}, <code title={known.model.digest}>{known.model.digest.slice(0, 12)}</code>.
            This page keeps nothing and asks nobody but this service. <a href={api.address("page/licenses.txt")}>Licences</a>
          </p>
        )}
      </footer>
    </>
  );
}

const NO_PAGE = { type: "about:blank", title: "The page could not be shown", status: 0, detail: "Load it again." };

/** A link to a part of the page would change the view, which is what the hash says here. */
function skip(event: Event) {
  event.preventDefault();
  document.getElementById("content")?.focus();
}

/** A figure with its title. */
export function Panel(props: { title: string; class?: string; children: ComponentChildren }) {
  return (
    <section class={`panel ${props.class ?? ""}`}>
      <h2>{props.title}</h2>
      {props.children}
    </section>
  );
}
