// What the service says. The types are made from its OpenAPI document (`npm run types`).
import type { components } from "./openapi";

type Schemas = components["schemas"];
export type Payload = Schemas["Payload"];
export type Answer = Schemas["Answer"];
export type Prediction = Schemas["Prediction"];
export type Explanation = Schemas["Explanation"];
export type Contributions = Schemas["Contributions"];
export type TaskVariables = Schemas["TaskVariables"];
export type Part = TaskVariables["because"][number];
export type Receipt = Schemas["Receipt"];
export type Modality = Prediction["based_on"][number];
export type Problem = Schemas["Problem"];
export type Tim = Schemas["Tim"];
export type Model = Schemas["Model"];
export type Task = Schemas["TaskEntry"];
export type Usage = Schemas["Usage"];
export type Variable = Schemas["VariableEntry"];

/** In the order of the service, in words. */
export const MODALITIES: [Modality, string][] = [
  ["tabular", "Tabular data"],
  ["series", "Vital signs, labs, treatments"],
  ["notes", "Notes"],
  ["image", "Chest X-ray"],
];

/** The service, or the way to it, did not answer as it should have; `problem` says why (RFC 9457). */
export class Refused extends Error {
  constructor(readonly problem: Problem) {
    super(problem.title);
  }
}

/** Where the service is: this script is in its folder page, whatever path a proxy has put before it. */
const SERVICE = new URL("..", import.meta.url);
export const address = (path: string) => new URL(path, SERVICE).href;

async function ask(path: string, options: RequestInit = {}): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(address(path), options);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    const detail = "Nothing came back. Is the service running, and the network there?";
    throw new Refused({ type: "about:blank", title: "No answer", status: 0, detail });
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => null);
  const detail = "The answer is none of this service: something between may have given it.";
  throw new Refused(
    told?.title ? told : { type: "about:blank", title: "Unexpected answer", status: response.status, detail },
  );
}

async function json<T>(path: string): Promise<T> {
  return (await ask(path)).json();
}

export const tasks = async () => (await json<Schemas["TaskList"]>("tasks")).tasks;
export const variables = async () => (await json<Schemas["VariableList"]>("variables")).variables;
export const model = () => json<Model>("model");
export const modelCard = async () => (await ask("model-card")).text();
export const usage = () => json<Usage>("usage");
export const example = async (name: string) => (await ask(`page/examples/${name}.json`)).text();

/** The matrix, or null if the bundle has none. */
export async function tim(): Promise<Tim | null> {
  try {
    return await json<Tim>("tim");
  } catch (error) {
    if (error instanceof Refused && error.problem.status === 404) return null;
    throw error;
  }
}

/** `body`: as it was dropped or pasted, so that what is wrong with it is said of it. */
export async function predict(body: string, query: Record<string, string>, signal?: AbortSignal): Promise<Answer> {
  const response = await ask(`predict?${new URLSearchParams(query)}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body,
    ...(signal && { signal }),
  });
  return response.json();
}
