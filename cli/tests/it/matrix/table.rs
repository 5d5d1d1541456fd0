//! The API contract as a table, written by hand and never derived from the schema that it is compared with.
//!
//! A new type, root field or field with its own permission needs a row here; otherwise the test fails.
//!
//! Long, because each of them has a row.

use Requires::{Anonymous, SignedIn, Take};

/// Built-in roles in ascending order, each with the permissions that it adds to the previous ones.
pub(super) const ROLES: [(&str, &[&str]); 4] = [
    (
        "viewer",
        &[
            "ASSET_READ",
            "COMPLIANCE_READ",
            "SERVICE_READ",
            "INCIDENT_READ",
            "TRIAGE_READ",
            "JOB_READ",
            "BUDGET_READ",
        ],
    ),
    (
        "operator",
        &[
            "ASSET_WRITE",
            "ASSET_IMPORT",
            "COMPLIANCE_RUN",
            "SERVICE_WRITE",
            "CHECK_RUN",
            "INCIDENT_WRITE",
            "TRIAGE_RUN",
            "TRIAGE_REVIEW",
            "SCHEDULE_WRITE",
        ],
    ),
    (
        "admin",
        &[
            "ASSET_DELETE",
            "COMPLIANCE_WRITE",
            "WAIVER_GRANT",
            "JOB_MANAGE",
            "AUDIT_READ",
            "USER_READ",
            "USER_MANAGE",
            "API_KEY_MANAGE",
            "SECRET_MANAGE",
        ],
    ),
    ("owner", &["ROLE_MANAGE", "ORGANIZATION_MANAGE"]),
];

/// Requirement of a row on its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Requires {
    /// No requirement: open to anonymous callers.
    Anonymous,
    /// A signed-in caller, without any permission.
    SignedIn,
    /// A caller with this permission.
    Take(&'static str),
}

impl Requires {
    /// Returns true for permissions that no API key can have: those on the installation, and those that manage people,
    /// roles, keys and the organization.
    pub(super) fn is_for_no_key(self) -> bool {
        matches!(self, Take(permission) if permission.starts_with("FLEET_") || NOT_FOR_KEYS.contains(&permission))
    }
}

/// Permissions in an organization that no API key can have.
pub(super) const NOT_FOR_KEYS: [&str; 4] =
    ["USER_MANAGE", "ROLE_MANAGE", "API_KEY_MANAGE", "ORGANIZATION_MANAGE"];

/// A row of the contract: subject, declared requirement, and a document that selects it.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// Subject as in the schema: `Query.assets`, `Asset` or `User.email`.
    pub(super) of: String,
    /// Requirement that the schema declares.
    pub(super) states: Requires,
    /// Requirement of the document; differs for types that are reachable only below another field.
    pub(super) takes: Requires,
    /// True if the caller's own object is always readable.
    pub(super) own: bool,
    /// True if only people may use it: the resolver rejects API keys.
    pub(super) people_only: bool,
    /// GraphQL document, with placeholders for ids such as `%asset` and `%user`.
    pub(super) document: String,
    /// Path that the refusal must name.
    pub(super) path: String,
}

impl Row {
    fn new(of: &str, states: Requires, path: &str, document: &str) -> Self {
        Self {
            of: of.to_owned(),
            states,
            takes: states,
            own: false,
            people_only: false,
            document: document.to_owned(),
            path: path.to_owned(),
        }
    }

    fn query(name: &str, states: Requires, selection: &str) -> Self {
        Self::new(&format!("Query.{name}"), states, name, &format!("{{ {selection} }}"))
    }

    fn mutation(name: &str, states: Requires, selection: &str) -> Self {
        let document = format!("mutation {{ {name}{selection} }}");
        Self::new(&format!("Mutation.{name}"), states, name, &document)
    }

    /// Returns a row for a type that `node(id:)` finds.
    fn node(of: &str, states: Requires, id: &str, field: &str) -> Self {
        let document = format!("{{ node(id: \"{id}\") {{ ... on {of} {{ {field} }} }} }}");
        Self::new(of, states, &format!("node.{field}"), &document)
    }

    fn taking(self, takes: Requires, path: &str) -> Self {
        Self { takes, path: path.to_owned(), ..self }
    }

    fn for_people(self) -> Self {
        Self { people_only: true, ..self }
    }

    /// Returns the permissions that a key needs, because the result of a mutation may require more than the mutation.
    pub(super) fn permissions(permission: &'static str) -> Vec<&'static str> {
        match permission {
            "ASSET_WRITE" => vec!["ASSET_WRITE", "ASSET_READ"],
            "JOB_MANAGE" => vec!["JOB_MANAGE", "JOB_READ"],
            // A finding includes its asset.
            "COMPLIANCE_READ" => vec!["COMPLIANCE_READ", "ASSET_READ"],
            "WAIVER_GRANT" => vec!["WAIVER_GRANT", "COMPLIANCE_READ"],
            "COMPLIANCE_WRITE" => vec!["COMPLIANCE_WRITE", "COMPLIANCE_READ"],
            // The counts of a trial tell facts of assets.
            "COMPLIANCE_RUN" => vec!["COMPLIANCE_RUN", "ASSET_READ"],
            // A schedule requires the permission for the action that it starts.
            "SCHEDULE_WRITE" => vec!["SCHEDULE_WRITE", "COMPLIANCE_RUN", "JOB_READ"],
            permission => vec![permission],
        }
    }

    fn subscription(of: &str, states: Requires, path: &str, selection: &str) -> Self {
        Self::new(of, states, path, &format!("subscription {{ {selection} }}"))
    }

    pub(super) fn is_mutation(&self) -> bool {
        self.document.starts_with("mutation")
    }

    pub(super) fn is_subscription(&self) -> bool {
        self.document.starts_with("subscription")
    }
}

/// Returns true for types without a row: roots, and types that share the requirement of their node.
pub(super) fn needs_no_statement(name: &str) -> bool {
    matches!(name, "Query" | "Mutation" | "Subscription" | "PageInfo")
        || name.ends_with("Connection")
        || name.ends_with("Edge")
}

/// Returns every row. `Mutation.logout` is last, because it ends the caller's session.
pub(super) fn rows() -> Vec<Row> {
    let mut rows = root_queries();
    rows.extend(types());
    rows.extend(own_fields());
    rows.extend(subscriptions());
    rows.extend(mutations());
    rows
}

fn root_queries() -> Vec<Row> {
    let reads = Take("COMPLIANCE_READ");
    vec![
        Row::query("viewer", Anonymous, "viewer { permissions organization { slug } }"),
        Row::query("node", SignedIn, "node(id: \"%user\") { id }"),
        Row::query("asset", Take("ASSET_READ"), "asset(id: \"%asset\") { name }"),
        Row::query("assets", Take("ASSET_READ"), "assets { totalCount nodes { name } }"),
        Row::query("tags", Take("ASSET_READ"), "tags { name }"),
        Row::query("attributes", Take("ASSET_READ"), "attributes { key }"),
        Row::query("importRun", Take("ASSET_READ"), "importRun(id: \"%import\") { state rows }"),
        Row::query("auditEntries", Take("AUDIT_READ"), "auditEntries { nodes { action } }"),
        Row::query("users", Take("USER_READ"), "users { nodes { name email } }"),
        Row::query("roles", Take("USER_READ"), "roles { key name }"),
        Row::query("apiKeys", Take("API_KEY_MANAGE"), "apiKeys { name prefix }"),
        Row::query("rules", Take("COMPLIANCE_READ"), "rules { key params }"),
        Row::query("rule", Take("COMPLIANCE_READ"), "rule(key: \"patch-age\") { key reads }"),
        Row::query(
            "complianceRun",
            Take("COMPLIANCE_READ"),
            "complianceRun(id: \"%run\") { state passed }",
        ),
        Row::query(
            "complianceRuns",
            Take("COMPLIANCE_READ"),
            "complianceRuns { totalCount nodes { state } }",
        ),
        Row::query("finding", reads, "finding(id: \"%finding\") { state evidence }"),
        Row::query("findings", reads, "findings { totalCount nodes { state } }"),
        Row::query("waivers", reads, "waivers { totalCount nodes { reason } }"),
        Row::query("complianceScore", reads, "complianceScore { mean coverage }"),
        Row::query("postureBy", reads, "postureBy(dimension: TYPE) { label score }"),
        Row::query(
            "complianceDrift",
            reads,
            "complianceDrift(from: \"%earlier\", to: \"%later\") { scoreChange }",
        ),
        Row::query("complianceTrend", reads, "complianceTrend { score { mean } }"),
        Row::query(
            "complianceForecast",
            reads,
            "complianceForecast(until: \"%in_a_month\") { nodes { at } }",
        ),
        Row::query("complianceReport", reads, "complianceReport { organization }"),
        Row::query("job", Take("JOB_READ"), "job(id: \"%buried\") { state subject }"),
        Row::query("jobs", Take("JOB_READ"), "jobs { totalCount nodes { state subject } }"),
        Row::query("queues", Take("JOB_READ"), "queues { queue waiting }"),
        Row::query("workers", Take("FLEET_READ"), "workers { host }"),
        Row::query("schedules", Take("JOB_READ"), "schedules { name nextRunAt }"),
    ]
}

fn types() -> Vec<Row> {
    let of_asset = |of: &str, selection: &str| {
        let document = format!("{{ asset(id: \"%lent\") {{ {selection} }} }}");
        Row::new(of, Take("ASSET_READ"), "asset", &document)
    };
    let compliance = |of: &str, selection: &str| {
        let root = selection.split(['(', ' ']).next().unwrap();
        Row::new(of, Take("COMPLIANCE_READ"), root, &format!("{{ {selection} }}"))
    };
    let key = "mutation { createApiKey(input: %new_key) { secret apiKey { name } } }";
    let rule = "input: { key: \"tried\", title: \"Tried\", severity: LOW, condition: \"has(owner.id)\", remediation: \"None\" }";
    let login = "mutation { login(email: \"%email\", password: \"%password\")";
    vec![
        Row::node("Asset", Take("ASSET_READ"), "%asset", "name"),
        Row::node("Tag", Take("ASSET_READ"), "%tag", "name"),
        Row::new("Attribute", Take("ASSET_READ"), "attributes", "{ attributes { unit } }"),
        of_asset("Fact", "facts { key }"),
        Row::new(
            "ImportError",
            Take("ASSET_READ"),
            "importRun",
            "{ importRun(id: \"%import\") { errors { nodes { row } } } }",
        ),
        Row::node("Dependency", Take("ASSET_READ"), "%dependency", "kind"),
        Row::node("Custody", Take("ASSET_READ"), "%custody", "notes"),
        of_asset("Reached", "dependsOn { depth }"),
        of_asset("BlastRadius", "blastRadius { assets }"),
        of_asset("Change", "changes { nodes { action } }"),
        Row::node("AuditEntry", Take("AUDIT_READ"), "%entry", "action"),
        Row::node("Organization", SignedIn, "%organization", "slug"),
        Row::node("Role", SignedIn, "%role", "key"),
        Row::new("Rule", Take("COMPLIANCE_READ"), "rules", "{ rules { title } }"),
        Row::new("Control", Take("COMPLIANCE_READ"), "rules", "{ rules { controls { code } } }"),
        Row::new("RuleScope", Take("COMPLIANCE_READ"), "rules", "{ rules { appliesTo { tags } } }"),
        Row::new(
            "RuleTrial",
            Take("ASSET_READ"),
            "tryRule",
            &format!("mutation {{ tryRule({rule}) {{ cost }} }}"),
        )
        .taking(Take("COMPLIANCE_RUN"), "tryRule"),
        Row::new(
            "RuleExample",
            Take("ASSET_READ"),
            "tryRule",
            &format!("mutation {{ tryRule({rule}) {{ examples {{ verdict }} }} }}"),
        )
        .taking(Take("COMPLIANCE_RUN"), "tryRule"),
        Row::node("Finding", Take("COMPLIANCE_READ"), "%finding", "state"),
        Row::node("Waiver", Take("COMPLIANCE_READ"), "%waiver", "reason"),
        compliance("Posture", "finding(id: \"%finding\") { asset { posture { score } } }"),
        compliance(
            "RuleVerdict",
            "finding(id: \"%finding\") { asset { posture { verdicts { verdict } } } }",
        ),
        compliance("Score", "complianceScore { weighted }"),
        compliance("SeverityCount", "complianceScore { bySeverity { failing } }"),
        compliance("PostureGroup", "postureBy(dimension: OWNER) { failing }"),
        compliance(
            "Drift",
            "complianceDrift(from: \"%earlier\", to: \"%later\") { newlyFailing { totalCount } }",
        ),
        compliance("TrendPoint", "complianceTrend { run { id } }"),
        compliance("Flip", "complianceForecast(until: \"%in_a_month\") { nodes { to } }"),
        compliance("ComplianceReport", "complianceReport(run: \"%later\") { generatedAt }"),
        compliance("VerdictCounts", "complianceReport { verdicts { waived } }"),
        compliance("ControlFamily", "complianceReport { families { family } }"),
        compliance("Remediation", "complianceReport { remediations { scoreGain } }"),
        compliance("WorstAsset", "complianceReport { worstAssets { failedWeight } }"),
        Row::node("Schedule", Take("JOB_READ"), "%schedule", "name"),
        Row::new("QueueStats", Take("JOB_READ"), "queues", "{ queues { oldestWaitingSeconds } }"),
        Row::new("Worker", Take("FLEET_READ"), "workers", "{ workers { id } }"),
        Row::node("User", SignedIn, "%user", "name"),
        Row::node("ApiKey", SignedIn, "%key", "name"),
        Row::new("CreatedApiKey", Take("API_KEY_MANAGE"), "createApiKey", key).for_people(),
        // Reachable below `viewer`, which is null for anonymous callers.
        Row::new("Viewer", Anonymous, "", "{ viewer { actor { __typename } } }"),
        Row::new("Session", SignedIn, "", "{ viewer { sessions { id } } }").taking(Anonymous, ""),
        Row::new("Invitation", SignedIn, "", "{ viewer { invitations { at } } }")
            .taking(Anonymous, ""),
        Row::new("LoginPayload", Anonymous, "", &format!("{login} {{ mfaChallenge }} }}")),
        Row::new(
            "Tokens",
            Anonymous,
            "",
            &format!("{login} {{ tokens {{ accessExpiresAt }} }} }}"),
        ),
        Row::new(
            "System",
            SignedIn,
            "",
            "{ auditEntries { nodes { actor { ... on System { name } } } } }",
        )
        .taking(Take("AUDIT_READ"), "auditEntries"),
    ]
}

/// Fields readable for the user itself and for callers with the permission to see every user.
pub(super) const USER_FIELDS: [&str; 6] =
    ["email", "active", "mfaEnabled", "createdAt", "lastSeenAt", "roles { key }"];
pub(super) const KEY_FIELDS: [&str; 8] = [
    "prefix",
    "permissions",
    "allowedCidrs",
    "createdBy { id }",
    "createdAt",
    "expiresAt",
    "lastUsedAt",
    "revokedAt",
];

fn own_fields() -> Vec<Row> {
    let field = |of: &str, needs, id, selection: &str| {
        let name = selection.split(' ').next().unwrap();
        let row = Row::node(of, needs, id, selection);
        Row { of: format!("{of}.{name}"), own: true, path: format!("node.{name}"), ..row }
    };
    let users = USER_FIELDS.map(|name| field("User", Take("USER_READ"), "%user", name));
    let keys = KEY_FIELDS.map(|name| field("ApiKey", Take("API_KEY_MANAGE"), "%key", name));
    users.into_iter().chain(keys).collect()
}

fn subscriptions() -> Vec<Row> {
    let reads = Take("COMPLIANCE_READ");
    let run = |of: &str, states, selection: &str| {
        let selection = format!("complianceRun(id: \"%run\") {{ {selection} }}");
        Row::subscription(of, states, "complianceRun", &selection)
    };
    let import = |of: &str, states, selection: &str| {
        let selection = format!("importRun(id: \"%import\") {{ {selection} }}");
        Row::subscription(of, states, "importRun", &selection)
    };
    let outcome = [
        "reason",
        "scope",
        "assets",
        "passed",
        "failed",
        "waived",
        "notAssessed",
        "errors",
        "opened",
        "fixed",
    ];
    let outcome = outcome.map(|field| run(&format!("ComplianceRun.{field}"), reads, field));
    let mut rows = vec![
        run("Subscription.complianceRun", reads, "state"),
        run("ComplianceRun", SignedIn, "id").taking(reads, "complianceRun"),
        run("ComplianceRun.score", reads, "score { mean }"),
        import("Subscription.importRun", Take("ASSET_READ"), "state"),
        import("ImportRun", SignedIn, "id").taking(Take("ASSET_READ"), "importRun"),
        import("ImportRun.reason", Take("ASSET_READ"), "reason"),
        import("ImportRun.errors", Take("ASSET_READ"), "errors { totalCount }"),
        Row::subscription("Subscription.jobs", Take("JOB_READ"), "jobs", "jobs { state }"),
        Row::subscription("Job", Take("JOB_READ"), "jobs", "jobs(queue: SCAN) { id }"),
    ];
    rows.extend(outcome);
    rows
}

fn mutations() -> Vec<Row> {
    let (write, manage) = (Take("ASSET_WRITE"), Take("USER_MANAGE"));
    let (run, jobs, schedule) =
        (Take("COMPLIANCE_RUN"), Take("JOB_MANAGE"), Take("SCHEDULE_WRITE"));
    let rows = [
        Row::mutation(
            "login",
            Anonymous,
            "(email: \"%email\", password: \"%password\") { mfaChallenge }",
        ),
        Row::mutation(
            "refreshSession",
            Anonymous,
            "(refreshToken: \"%refresh\") { accessExpiresAt }",
        ),
        Row::mutation("switchOrganization", SignedIn, "(organization: \"%nowhere\") { accessToken }")
            .for_people(),
        Row::mutation("changePassword", SignedIn, "(current: \"wrong\", new: \"%new_password\")")
            .for_people(),
        Row::mutation(
            "acceptInvitation",
            SignedIn,
            "(organization: \"%other\", password: \"wrong\", invitationPassword: \"wrong\") { permissions }",
        )
        .for_people(),
        Row::mutation("declineInvitation", SignedIn, "(organization: \"%other\")").for_people(),
        Row::mutation("revokeSession", SignedIn, "(id: \"%session\")"),
        Row::mutation("createUser", manage, "(input: %new_user) { id }"),
        Row::mutation("updateUser", manage, "(id: \"%victim\", input: { name: \"New\" }) { id }"),
        Row::mutation("setUserRoles", manage, "(user: \"%victim\", roles: [\"manager\"]) { id }"),
        Row::mutation("revokeUserSessions", manage, "(user: \"%victim\")"),
        Row::mutation("deactivateUser", manage, "(user: \"%leaver\") { id }"),
        Row::mutation(
            "saveRole",
            Take("ROLE_MANAGE"),
            "(key: \"made\", name: \"Made\", permissions: [ROLE_MANAGE]) { id }",
        ),
        Row::mutation("deleteRole", Take("ROLE_MANAGE"), "(key: \"made\")"),
        Row::mutation(
            "createApiKey",
            Take("API_KEY_MANAGE"),
            "(input: %new_key) { apiKey { id } }",
        )
        .for_people(),
        Row::mutation("revokeApiKey", Take("API_KEY_MANAGE"), "(id: \"%old_key\")"),
        Row::mutation("createAsset", write, "(input: { name: \"Made\", type: HOST }) { id }"),
        Row::mutation(
            "updateAsset",
            write,
            "(id: \"%asset\", input: { location: \"Here\" }) { id }",
        ),
        Row::mutation("setAssetLifecycle", write, "(id: \"%asset\", state: MAINTENANCE) { id }"),
        Row::mutation("addDependency", write, "(source: \"%asset\", target: \"%needed\") { id }"),
        Row::mutation("removeDependency", write, "(id: \"%dependency\")"),
        Row::mutation("checkOutAsset", write, "(id: \"%asset\", holder: \"%user\") { id }"),
        Row::mutation("checkInAsset", write, "(id: \"%lent\") { id }"),
        Row::mutation("createTag", write, "(name: \"Made\") { id }"),
        Row::mutation("deleteTag", write, "(id: \"%tag\")"),
        Row::mutation(
            "importAssets",
            Take("ASSET_IMPORT"),
            "(input: { format: CSV, content: \"external_id,name,type\\nmade:1,Made,host\" }) { id state }",
        ),
        Row::mutation("cancelImportRun", Take("ASSET_IMPORT"), "(id: \"%import\") { id }"),
        Row::mutation("deleteAsset", Take("ASSET_DELETE"), "(id: \"%retired\")"),
        Row::mutation(
            "saveRule",
            Take("COMPLIANCE_WRITE"),
            "(input: { key: \"made\", title: \"Made\", severity: LOW, condition: \"has(owner.id)\", remediation: \"None\" }) { cost }",
        ),
        Row::mutation(
            "setRuleParams",
            Take("COMPLIANCE_WRITE"),
            "(key: \"patch-age\", params: { max_age_days: 20 }) { params }",
        ),
        Row::mutation(
            "tryRule",
            run,
            "(input: { key: \"made\", title: \"Made\", severity: LOW, condition: \"has(owner.id)\", remediation: \"None\" }) { passed }",
        ),
        Row::mutation(
            "grantWaiver",
            Take("WAIVER_GRANT"),
            "(input: { rule: \"%rule\", asset: \"%asset\", reason: \"Made\", expiresAt: \"%in_a_month\" }) { id }",
        ),
        Row::mutation("revokeWaiver", Take("WAIVER_GRANT"), "(id: \"%waiver\") { id }"),
        Row::mutation("startComplianceRun", run, "(idempotencyKey: \"made\") { id state }"),
        Row::mutation("cancelComplianceRun", run, "(id: \"%run\") { id state }"),
        Row::mutation("retryJob", jobs, "(id: \"%buried\") { id }"),
        Row::mutation("retryJobs", jobs, "(filter: { kind: \"none\" })"),
        Row::mutation("discardJob", jobs, "(id: \"%given_up\") { id }"),
        Row::mutation("cancelJob", jobs, "(id: \"%waiting\") { id }"),
        Row::mutation(
            "saveSchedule",
            schedule,
            "(input: { name: \"Made\", cron: \"0 2 * * *\", action: COMPLIANCE_RUN }) { id }",
        ),
        Row::mutation("deleteSchedule", schedule, "(id: \"%schedule\")"),
        Row::mutation("logout", Anonymous, ""),
    ];
    rows.into()
}
