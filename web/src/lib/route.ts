// The route in the URL's hash: `#tim/sepsis` is the view `tim` of the task `sepsis`.

export const VIEWS = {
  patient: "Patient",
  tim: "Task interactions",
  network: "Network",
  model: "Model",
};
export type View = keyof typeof VIEWS;

export interface Route {
  view: View;
  task: string | undefined;
}

/** The route of a hash; an unknown view is the patient view. */
export function parseRoute(hash: string): Route {
  const [view = "", task] = hash.slice(1).split("/");
  return { view: view in VIEWS ? (view as View) : "patient", task };
}
