// Runs in the browser: executes the same story with each client when `clients.mjs` calls it.
import { overApollo } from './apollo.ts';
import { overStreams } from './graphql-sse.ts';
import { overSockets } from './graphql-ws.ts';
import { story, type Person } from './story.ts';

const clients = { 'graphql-ws': overSockets, Apollo: overApollo, 'graphql-sse': overStreams };

async function tell(url: string, person: Person): Promise<Record<string, string>> {
  const told: Record<string, string> = {};
  for (const [name, client] of Object.entries(clients)) {
    told[name] = await story(client(`${url}/graphql`), person).catch((error) => `FAILED ${error?.message ?? error}`);
  }
  return told;
}

Object.assign(globalThis, { tell });
