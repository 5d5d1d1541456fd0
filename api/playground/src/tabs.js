/**
 * The tabs a first visit starts with. GraphiQL names a tab after its operation, and keeps the tabs
 * in localStorage from then on. To prepare another tab, add an entry.
 *
 * @type {{query: string, variables?: string}[]}
 */
export const tabs = [
  {
    query: `# Sign in. Write your e-mail and password into
# the Variables pane below, then press run
# (Ctrl+Enter). Later requests carry the token,
# until you sign out or close this browser tab.
# The password is not kept.
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
    query: `# Who am I: your organization, your roles
# and what they let you do.
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
    query: `# The first twenty assets. For the next ones
# add after: "…" with the endCursor.
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
# Start a run in another tab, and look here;
# the stop button ends it.
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
    query: `# Judge all assets by every rule. Run it, copy
# the id into the variables of the next tab, and
# see there how far it is.
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
    query: `# Watch a run to its end: write its id, which
# the tab before answered, into the Variables pane.
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
    query: `# What is broken now, the worst first, with
# what was found and what to do about it.
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
