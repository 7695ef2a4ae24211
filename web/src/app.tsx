import { useEffect, useState } from "preact/hooks";
import { ProblemNote } from "./components/problem_note";
import { fetchKnown, type Known, type Problem, ProblemError, serviceUrl } from "./lib/api";
import { parseRoute, VIEWS, type View } from "./lib/route";
import { ModelView } from "./views/model_view";
import { NetworkView } from "./views/network_view";
import { PatientView } from "./views/patient_view";
import { TimView } from "./views/tim_view";

const LOAD_FAILURE: Problem = {
  type: "about:blank",
  title: "The page failed to load",
  status: 0,
  detail: "Reload the page.",
};

/** The page: its header, the view that the URL's hash selects, and its footer. */
export function App() {
  const { view, task } = useRoute();
  const { known, problem } = useKnown();
  useEffect(() => {
    document.title = `${VIEWS[view]} · M3H`;
  }, [view]);
  return (
    <>
      {/* biome-ignore lint/a11y/useValidAnchor: it is a link to a part of the page */}
      <a class="skip-link" href="#content" onClick={focusContent}>
        Skip to content
      </a>
      <Header view={view} />
      <main id="content" tabIndex={-1}>
        {problem && <ProblemNote problem={problem} />}
        {!problem && !known && <p role="status">Loading …</p>}
        {known && (
          <>
            {/* The patient view is hidden, not removed, so that it keeps the patient. */}
            <div hidden={view !== "patient"}>
              <PatientView known={known} />
            </div>
            {view === "tim" && <TimView known={known} task={task} />}
            {view === "network" && <NetworkView known={known} />}
            {view === "model" && <ModelView known={known} />}
          </>
        )}
      </main>
      <Footer known={known} />
    </>
  );
}

function useRoute() {
  const [route, setRoute] = useState(() => parseRoute(location.hash));
  useEffect(() => {
    const update = () => setRoute(parseRoute(location.hash));
    addEventListener("hashchange", update);
    return () => removeEventListener("hashchange", update);
  }, []);
  return route;
}

function useKnown() {
  const [known, setKnown] = useState<Known>();
  const [problem, setProblem] = useState<Problem>();
  useEffect(() => {
    fetchKnown().then(setKnown, (error) => setProblem(error instanceof ProblemError ? error.problem : LOAD_FAILURE));
  }, []);
  return { known, problem };
}

/** Focuses the content without changing the hash, which selects the view. */
function focusContent(event: Event) {
  event.preventDefault();
  document.getElementById("content")?.focus();
}

const PALETTES = { "light dark": "system", light: "light", dark: "dark" };
type Palette = keyof typeof PALETTES;

function Header({ view }: { view: View }) {
  const [palette, setPalette] = useState<Palette>("light dark");
  useEffect(() => {
    document.documentElement.style.colorScheme = palette;
  }, [palette]);
  return (
    <header class="top-bar">
      <strong class="brand">M3H</strong>
      <nav aria-label="Views">
        {Object.entries(VIEWS).map(([name, title]) => (
          <a key={name} href={`#${name}`} aria-current={name === view ? "page" : undefined}>
            {title}
          </a>
        ))}
      </nav>
      <label>
        Colours{" "}
        <select value={palette} onChange={(event) => setPalette(event.currentTarget.value as Palette)}>
          {Object.entries(PALETTES).map(([name, title]) => (
            <option key={name} value={name}>
              {title}
            </option>
          ))}
        </select>
      </label>
    </header>
  );
}

function Footer({ known }: { known: Known | undefined }) {
  return (
    <footer>
      <p>
        <strong>For research. Not a medical device.</strong> The probability of a disease is the probability that it is
        coded at any time in this stay. It is no proof that the patient has or does not have the disease.
      </p>
      {known && (
        <p>
          {known.model.name} {known.model.version},{" "}
          <code title={known.model.digest}>{known.model.digest.slice(0, 12)}</code>. This page stores nothing and
          contacts only this service. <a href={serviceUrl("page/licenses.txt")}>Licences</a>
        </p>
      )}
    </footer>
  );
}
