// Bundles src/ into dist/, which is committed and embedded by the server: `npm ci && npm run build`.
// The same lockfile gives the same bytes.
import { build } from 'esbuild';
import { copyFile, mkdir, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { join, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

const here = fileURLToPath(new URL('.', import.meta.url));
const src = (name) => join(here, 'src', name);
const dist = join(here, 'dist');

/** Loads GraphiQL's style sheet without its data URLs, which the CSP would have to allow. */
const lean = {
  name: 'lean-styles',
  setup({ onLoad }) {
    onLoad({ filter: /graphiql[\\/]dist[\\/]style\.css$/ }, async ({ path }) => {
      const contents = (await readFile(path, 'utf8'))
        .replace(/@font-face\s*\{[^}]*\}/g, '')
        .replace(/background-image:\s*url\("data:[^"]*"\);/g, '')
        .replace('"Roboto", sans-serif', 'system-ui, sans-serif')
        .replace('"Fira Code", monospace', 'ui-monospace, SFMono-Regular, Menlo, Consolas, monospace');
      const left = /data:|Roboto|Fira/.exec(contents);
      if (left) throw new Error(`GraphiQL's style sheet has changed: it still has ${left[0]}`);
      return { contents, loader: 'css' };
    });
  },
};

/** Returns the licences of all packages with code in the bundle. @param {string[]} inputs */
async function licences(inputs) {
  const folders = new Set();
  for (const input of inputs) {
    const found = /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(input);
    if (found) folders.add(found[1]);
  }
  const texts = [];
  for (const folder of [...folders].sort()) {
    const { name, version, license } = JSON.parse(await readFile(join(here, folder, 'package.json'), 'utf8'));
    const file = (await readdir(join(here, folder))).find((entry) => /^licen[cs]e/i.test(entry));
    const text = file ? await readFile(join(here, folder, file), 'utf8') : '';
    texts.push(`${name} ${version} (${license})\n\n${text.replace(/\r/g, '').trim()}`.trim());
  }
  return `${texts.join(`\n\n${'-'.repeat(72)}\n\n`)}\n`;
}

await rm(dist, { recursive: true, force: true });
await mkdir(dist, { recursive: true });
const { metafile } = await build({
  absWorkingDir: here,
  entryPoints: { playground: src('main.jsx') },
  outdir: dist,
  bundle: true,
  minify: true,
  format: 'iife',
  target: ['chrome111', 'firefox113', 'safari16.4'],
  jsx: 'automatic',
  // graphql keeps its development checks unless a global process says otherwise.
  define: { 'process.env.NODE_ENV': '"production"', 'globalThis.process': 'true' },
  alias: { 'react-style-singleton': src('sheets.js') },
  plugins: [lean],
  legalComments: 'none', // LICENCES.txt has them whole
  metafile: true,
});
for (const name of ['index.html', 'favicon.svg']) await copyFile(src(name), join(dist, name));
const inputs = Object.keys(metafile.inputs).map((path) => path.split(sep).join('/'));
await writeFile(join(dist, 'LICENCES.txt'), await licences(inputs));

for (const name of (await readdir(dist)).sort()) {
  const bytes = await readFile(join(dist, name));
  console.log(`${name.padEnd(16)} ${String(bytes.length).padStart(9)} B ${String(gzipSync(bytes).length).padStart(9)} B gzip`);
}
if (process.argv.includes('--analyze')) {
  const { analyzeMetafile } = await import('esbuild');
  console.log(await analyzeMetafile(metafile));
}
