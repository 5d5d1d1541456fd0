import { useEffect, useSyncExternalStore } from 'react';
import { createRoot } from 'react-dom/client';
import { GraphiQL } from 'graphiql';
import { useEditorContext, useSchemaStore } from '@graphiql/react';
import { fetcher, signOut } from './fetcher.js';
import { session } from './session.js';
import { createStorage } from './storage.js';
import { tabs } from './tabs.js';
import './styles.css';

/** Names the editors for screen readers; GraphiQL leaves them nameless. */
function EditorNames() {
  const { queryEditor, variableEditor, headerEditor, responseEditor } = useEditorContext();

  useEffect(() => {
    queryEditor?.setOption('screenReaderLabel', 'Query');
    variableEditor?.setOption('screenReaderLabel', 'Variables');
    headerEditor?.setOption('screenReaderLabel', 'Headers');
    responseEditor?.setOption('screenReaderLabel', 'Response');
  }, [queryEditor, variableEditor, headerEditor, responseEditor]);
  return null;
}

/** Line under the editors that shows whether requests are sent with a session. */
function SessionLine() {
  const signedIn = useSyncExternalStore(session.subscribe, session.get) !== null;
  const { schema, isFetching, introspect } = useSchemaStore();

  // If introspection requires a session, the documentation is loaded after sign-in.
  useEffect(() => {
    if (signedIn && !schema && !isFetching) introspect();
  }, [signedIn]);

  return (
    <div className="session" data-signed-in={signedIn}>
      <span role="status">{signedIn ? 'Signed in' : 'Not signed in'}</span>
      {signedIn && (
        <button type="button" className="graphiql-button" onClick={signOut}>
          Sign out
        </button>
      )}
    </div>
  );
}

createRoot(document.getElementById('playground')).render(
  <main>
    <GraphiQL fetcher={fetcher} storage={createStorage()} defaultTabs={tabs} shouldPersistHeaders={false}>
      <GraphiQL.Logo>
        <h1>SentryOps</h1>
      </GraphiQL.Logo>
      <GraphiQL.Footer>
        <EditorNames />
        <SessionLine />
      </GraphiQL.Footer>
    </GraphiQL>
  </main>,
);
