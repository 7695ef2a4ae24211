// The client of the service's HTTP API. Its types come from the OpenAPI document (`npm run types`).
import type { components } from "../openapi";

type Schemas = components["schemas"];
export type Payload = Schemas["Payload"];
export type Answer = Schemas["Answer"];
export type Prediction = Schemas["Prediction"];
export type Explanation = Schemas["Explanation"];
export type Contributions = Schemas["Contributions"];
export type Evidence = Schemas["TaskVariables"]["because"][number];
export type Receipt = Schemas["Receipt"];
export type Modality = Prediction["based_on"][number];
export type Problem = Schemas["Problem"];
export type Tim = Schemas["Tim"];
export type Model = Schemas["Model"];
export type Task = Schemas["TaskEntry"];
export type Usage = Schemas["Usage"];
export type Variable = Schemas["VariableEntry"];

/** What the service publishes about itself and its bundle. The page loads it once. */
export interface Known {
  tasks: Task[];
  variables: Variable[];
  model: Model;
  /** The task interaction matrix; null if the bundle has none. */
  tim: Tim | null;
}

/** The modalities in the order of the service, each with its label. */
export const MODALITIES: [Modality, string][] = [
  ["tabular", "Tabular data"],
  ["series", "Vital signs, labs, treatments"],
  ["notes", "Notes"],
  ["image", "Chest X-ray"],
];

/** A failed request. `problem` is the service's own (RFC 9457), or describes a failed connection. */
export class ProblemError extends Error {
  constructor(readonly problem: Problem) {
    super(problem.title);
  }
}

// The script is served from `page/` below the service's root, so the prefix of a proxy is kept.
const ROOT = new URL("..", import.meta.url);

/** The absolute URL of a path of the service, including the prefix of a proxy. */
export const serviceUrl = (path: string) => new URL(path, ROOT).href;

/** Raises ProblemError: when the service does not answer, or answers with an error status. */
async function request(path: string, options: RequestInit = {}): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(serviceUrl(path), options);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    const detail = "The service did not respond. Check that it is running and that the network works.";
    throw new ProblemError({ type: "about:blank", title: "No response", status: 0, detail });
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => null);
  if (problem?.title) throw new ProblemError(problem);
  const detail = "The response does not come from this service. A proxy may have sent it.";
  throw new ProblemError({ type: "about:blank", title: "Unexpected response", status: response.status, detail });
}

async function getJson<T>(path: string): Promise<T> {
  return (await request(path)).json();
}

async function getText(path: string): Promise<string> {
  return (await request(path)).text();
}

export async function fetchKnown(): Promise<Known> {
  const [tasks, variables, model, tim] = await Promise.all([
    getJson<Schemas["TaskList"]>("tasks"),
    getJson<Schemas["VariableList"]>("variables"),
    getJson<Model>("model"),
    fetchTim(),
  ]);
  return { tasks: tasks.tasks, variables: variables.variables, model, tim };
}

async function fetchTim(): Promise<Tim | null> {
  try {
    return await getJson<Tim>("tim");
  } catch (error) {
    if (error instanceof ProblemError && error.problem.status === 404) return null;
    throw error;
  }
}

export const fetchModelCard = () => getText("model-card");
export const fetchUsage = () => getJson<Usage>("usage");
export const fetchExample = (name: string) => getText(`page/examples/${name}.json`);

/** Sends `body` unchanged, so that pointers in a problem refer to the text that the user sees. */
export async function predict(body: string, query: Record<string, string>, signal?: AbortSignal): Promise<Answer> {
  const response = await request(`predict?${new URLSearchParams(query)}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body,
    ...(signal && { signal }),
  });
  return response.json();
}
