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
];
