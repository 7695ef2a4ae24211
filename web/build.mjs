// Builds the page into the folder that is given, by default where the service serves it from.
// The same sources give the same bytes: a test compares a fresh build with what is shipped.
import { cp, mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const out = process.argv[2] ?? join(here, "../service/page");

await rm(out, { recursive: true, force: true });
await mkdir(out, { recursive: true });
const { metafile } = await build({
  absWorkingDir: here,
  entryPoints: { app: "src/main.tsx" },
  outdir: out,
  bundle: true,
  minify: true,
  charset: "utf8",
  format: "esm",
  target: "es2022",
  jsx: "automatic",
  jsxImportSource: "preact",
  metafile: true,
});
await cp(join(here, "src/index.html"), join(out, "index.html"));
await cp(join(here, "../examples"), join(out, "examples"), { recursive: true });
await writeFile(join(out, "licenses.txt"), await licenses(Object.keys(metafile.inputs)));

/** The licences of the libraries that were built in, as each of them wants to be named. */
async function licenses(inputs) {
  const inside = inputs.map((path) => /^node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1]);
  const texts = [];
  for (const name of [...new Set(inside)].filter(Boolean).sort()) {
    const folder = join(here, "node_modules", name);
    const file = (await readdir(folder)).find((entry) => /^licen[sc]e/i.test(entry));
    texts.push(`${name}\n\n${await readFile(join(folder, file), "utf8")}`);
  }
  return texts.join("\n----\n\n");
}
