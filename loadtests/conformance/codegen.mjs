import { execFile } from 'node:child_process';
import { mkdir, readFile, readdir, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { codegen as generate } from '@graphql-codegen/core';
import * as operations from '@graphql-codegen/typescript-operations';
import * as documentNodes from '@graphql-codegen/typed-document-node';
import { buildSchema, parse } from 'graphql';

const run = promisify(execFile);
const here = fileURLToPath(new URL('.', import.meta.url));

/** Returns the SDL. @param {{binary?: string, schema?: string}} options file with the SDL, or binary that prints it */
async function sdl({ binary, schema }) {
  if (schema) return readFile(schema, 'utf8');
  if (!binary) throw new Error('the codegen step needs --binary or --schema');
  return (await run(binary, ['schema'], { maxBuffer: 1 << 26 })).stdout;
}

/** Generates the types of the operations, then the typed documents, in the usual order of GraphQL Code Generator. */
async function generated(text) {
  const schemaAst = buildSchema(text); // validates the whole SDL
  const files = (await readdir(`${here}documents`)).filter((name) => name.endsWith('.graphql')).sort();
  const documents = await Promise.all(
    files.map(async (name) => ({
      location: name,
      document: parse(await readFile(`${here}documents/${name}`, 'utf8')),
    })),
  );
  const source = await generate({
    filename: 'documents.ts',
    schema: parse(text),
    schemaAst,
    documents,
    config: {
      useTypeImports: true,
      enumsAsTypes: true,
      defaultScalarType: 'unknown',
      scalars: { DateTime: 'string', JSON: 'unknown' },
    },
    pluginMap: { operations, documentNodes },
    plugins: [{ operations: {} }, { documentNodes: {} }],
  });
  return { source, count: files.length };
}

/**
 * Generates typed documents from the SDL and compiles a TypeScript client against them.
 *
 * @param {{binary?: string, schema?: string}} options
 * @returns {Promise<string>}
 */
export async function codegen(options) {
  const { source, count } = await generated(await sdl(options));
  await mkdir(`${here}generated`, { recursive: true });
  await writeFile(`${here}generated/documents.ts`, source);
  const tsc = createRequire(import.meta.url).resolve('typescript/package.json').replace('package.json', 'bin/tsc');
  await run(process.execPath, [tsc, '--project', here]).catch(({ stdout, stderr }) => {
    throw new Error(`tsc reports errors:\n${stdout}${stderr}`);
  });
  return `${count} documents typed, tsc --strict accepts the client`;
}
