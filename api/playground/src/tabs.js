/**
 * Tabs of a first visit. GraphiQL names a tab after its operation, and stores the tabs in
 * localStorage from then on. To add a tab, add an entry.
 *
 * @type {{query: string, variables?: string}[]}
 */
export const tabs = [
  {
    query: `# Sign in: enter your e-mail and password in the
# Variables pane below, then run the operation
# (Ctrl+Enter). Later requests send the token
# until you sign out or close this browser tab.
# The password is not stored.
mutation SignIn($email: String!, $password: String!) {
  login(email: $email, password: $password) {
    tokens {
      accessToken
      refreshToken
      accessExpiresAt
    }
  }
}
`,
    variables: `{
  "email": "",
  "password": ""
}
`,
  },
  {
    query: `# The signed-in user or API key, with its
# organization, roles and permissions.
query WhoAmI {
  viewer {
    organization {
      name
      slug
    }
    permissions
    roles {
      key
    }
    actor {
      __typename
      ... on User {
        name
      }
    }
  }
}
`,
  },
  {
    query: `# The first twenty assets. For the next page
# add after: "…" with the value of endCursor.
query Assets {
  assets(first: 20) {
    nodes {
      id
      code
      name
      type
      lifecycleState
      environment
    }
    pageInfo {
      hasNextPage
      endCursor
    }
    totalCount
  }
}
`,
  },
  {
    query: `# Watch the queues: each job as it changes.
# Start a run in another tab to see its jobs here.
# The stop button ends the subscription.
subscription Jobs {
  jobs {
    id
    queue
    kind
    state
    attempt
  }
}
`,
  },
  {
    query: `# Evaluate every rule for all assets. Run it, copy
# the id into the Variables pane of the next tab,
# and watch the progress there.
mutation Scan {
  startComplianceRun {
    id
    state
    shards
  }
}
`,
  },
  {
    query: `# Watch a compliance run until it ends. Enter the
# id from the previous tab in the Variables pane.
subscription Watch($id: ID!) {
  complianceRun(id: $id) {
    state
    shards
    shardsDone
    assets
    passed
    failed
    notAssessed
    opened
    fixed
    score {
      weighted
      mean
      coverage
    }
  }
}
`,
    variables: `{
  "id": ""
}
`,
  },
  {
    query: `# Open findings, most severe first, with the
# evidence and the remediation.
query Findings {
  findings(first: 20, filter: { state: [OPEN] }) {
    nodes {
      severity
      asset {
        code
        name
      }
      rule {
        key
        title
        remediation
      }
      evidence
      openedAt
    }
    pageInfo {
      hasNextPage
      endCursor
    }
  }
}
`,
  },
];
