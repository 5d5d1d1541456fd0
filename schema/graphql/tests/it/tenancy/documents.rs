//! Documents of the random requests. A new root field needs a document here.
//!
//! Long, because there is a document for each root field.

use serde_json::{Value, json};

use super::{Fuzz, MARKS, Rng};
use crate::harness::{self, PASSWORD};

/// Fragments with all fields in which a row of the other organization could appear.
const FRAGMENTS: &str = "
    fragment U on User { id name email roles { id key name } }
    fragment P on User { id name }
    fragment K on ApiKey { id name prefix createdBy { ...P } }
    fragment A on Asset { id code name externalId owner { ...U } attributes customFields }
    fragment D on Dependency { id kind source { ...N } target { ...N } }
    fragment H on Custody { id notes returnNotes asset { ...N } holder { ...U } checkedOutBy { ...U ...KP } checkedInBy { ...U ...KP } }
    fragment N on Asset { id name }
    fragment Z on Change { id action paths actor { ...U ...KP } }
    fragment W on Asset { dependsOn(depth: 3, first: 4) { asset { ...N } via { ...D } } dependents(first: 4) { asset { ...N } } blastRadius(first: 3) { assets services nodes { asset { ...N } } } }
    fragment X on Asset { custody { ...H } custodyHistory(first: 3) { totalCount nodes { ...H } } changes(first: 3) { totalCount pageInfo { endCursor } nodes { ...Z } } }
    fragment E on AuditEntry { id action entityId before after requestId actor { ...U ...KP } }
    fragment KP on ApiKey { id name }
    fragment O on Organization { id slug name }
    fragment R on Role { id key name }
    fragment T on Tag { id name color }
    fragment I on ImportRun { id state rows reason errors { nodes { row column message } } startedBy { ...U ...KP } }
    fragment C on ComplianceRun { id state startedBy { ...U ...KP } }
    fragment J on Job { id kind state error worker subject actor { ...U ...KP } }
    fragment S on Schedule { id name cron actor { ...U ...KP } }
    fragment G on Rule { key title condition params controls { framework code } }
    fragment F on Finding { id state evidence asset { ...N } rule { key title } waiver { ...Y } }
    fragment Y on Waiver { id reason rule { key } asset { ...N } grantedBy { ...U ...KP } revokedBy { ...U ...KP } }
    fragment V on Viewer { actor { ...U } organization { ...O } organizations { ...O } roles { ...R } sessions { id sourceIp } }
";

/// Documents as pairs of root field and text. Variables such as `$asset` get random values for each request.
pub(super) const DOCUMENTS: &[(&str, &str)] = &[
    ("viewer", "{ viewer { ...V } }"),
    (
        "node",
        "{ node(id: $any) { id __typename ...A ...D ...H ...U ...K ...E ...O ...R ...C ...J ...S ...T ...I ...F ...Y } }",
    ),
    (
        "node",
        "{ a: node(id: $any) { id ...P ...A ...R } b: node(id: $any2) { id ...U ...O } c: node(id: $user) { id ...P } }",
    ),
    (
        "node",
        "{ node(id: $any) { id ...P ...KP ...O ...R } viewer { permissions organization { ...O } } }",
    ),
    ("asset", "{ asset(id: $asset) { ...A } }"),
    ("asset", "{ asset(id: $asset) { ...A ...W ...X } }"),
    (
        "asset",
        "{ asset(id: $asset) { changes(first: $first, after: $cursor) { nodes { ...Z } } custodyHistory(first: $first, after: $cursor) { nodes { ...H } } } }",
    ),
    ("assets", "{ assets(first: $first) { nodes { ...N ...W ...X } } }"),
    ("asset", "{ asset(code: $code) { id name owner { ...P } } }"),
    (
        "asset",
        "{ a: asset(id: $asset) { id name owner { ...P } } b: asset(id: $asset2) { id name owner { ...P } } }",
    ),
    ("assets", "{ assets(first: $first) { totalCount nodes { ...A } } }"),
    (
        "assets",
        "{ assets(first: $first, after: $cursor, orderBy: { field: NAME }) { pageInfo { endCursor } edges { cursor node { id name owner { ...P } } } } }",
    ),
    (
        "assets",
        "{ assets(filter: { owner: $user }) { totalCount nodes { id name owner { ...P } } } }",
    ),
    (
        "assets",
        "{ assets(filter: { text: $text }, last: $last, before: $cursor) { pageInfo { startCursor } nodes { id name owner { ...P } } } }",
    ),
    (
        "auditEntries",
        "{ auditEntries(first: $first) { totalCount pageInfo { endCursor } nodes { ...E } } }",
    ),
    (
        "auditEntries",
        "{ auditEntries(filter: { entityId: $any }, last: $last) { totalCount nodes { ...E } } }",
    ),
    (
        "auditEntries",
        "{ auditEntries(filter: { actorId: $any }, first: $first, after: $cursor) { nodes { ...E } } }",
    ),
    (
        "users",
        "{ users(first: $first, after: $cursor) { totalCount pageInfo { endCursor } nodes { ...U } } }",
    ),
    (
        "users",
        "{ users(last: $last) { nodes { ...U } } viewer { ...V } assets(first: 5) { nodes { ...A } } }",
    ),
    (
        "tags",
        "{ tags { ...T } assets(first: 5) { nodes { id tags { ...T } facts { key value } } } }",
    ),
    ("assets", "{ assets(filter: { tag: $tag }) { totalCount nodes { id tags { ...T } } } }"),
    ("attributes", "{ attributes { key aliases } }"),
    ("importRun", "{ importRun(id: $import) { ...I } }"),
    ("rules", "{ rules { ...G enabled version } }"),
    ("rule", "{ rule(key: $ruleName) { ...G } }"),
    ("finding", "{ finding(id: $finding) { ...F } }"),
    (
        "findings",
        "{ findings(first: $first, after: $cursor) { totalCount pageInfo { endCursor } nodes { ...F } } }",
    ),
    ("findings", "{ findings(filter: { asset: $asset, owner: $user }) { nodes { ...F } } }"),
    (
        "asset",
        "{ asset(id: $asset) { posture { score verdicts { rule { key } evidence } } findings(first: $first) { totalCount nodes { ...F } } } }",
    ),
    ("waivers", "{ waivers(first: $first) { totalCount nodes { ...Y } } }"),
    ("complianceScore", "{ complianceScore { mean coverage assets bySeverity { failing } } }"),
    ("postureBy", "{ postureBy(dimension: OWNER) { label assets owner { ...P } } }"),
    ("postureBy", "{ postureBy(dimension: TAG) { label assets tag { ...T } } }"),
    (
        "complianceDrift",
        "{ complianceDrift(from: $run, to: $run2) { from { ...C } newlyFailing(first: $first) { totalCount nodes { ...F } } } }",
    ),
    (
        "complianceDrift",
        "{ complianceDrift(to: $run, from: $run2) { scoreChange newlyPassing(first: $first) { nodes { ...F } } } }",
    ),
    ("complianceTrend", "{ complianceTrend(last: $first) { run { ...C } score { mean } } }"),
    (
        "complianceForecast",
        "{ complianceForecast(until: $soon, first: $first) { totalCount nodes { at asset { ...N } rule { key } } } }",
    ),
    (
        "complianceReport",
        "{ complianceReport(run: $run) { organization run { ...C } worstAssets(first: $first) { asset { ...N } } findings(first: $first) { nodes { ...F } } } }",
    ),
    (
        "complianceReport",
        "{ complianceReport { families { family } remediations { rule { key } } rules { key } verdicts { passed } } }",
    ),
    ("complianceRun", "{ complianceRun(id: $run) { ...C } }"),
    (
        "complianceRuns",
        "{ complianceRuns(first: $first, after: $cursor) { totalCount pageInfo { endCursor } nodes { ...C } } }",
    ),
    ("job", "{ job(id: $job) { ...J } }"),
    (
        "jobs",
        "{ jobs(first: $first, after: $cursor) { totalCount pageInfo { endCursor } nodes { ...J } } }",
    ),
    (
        "jobs",
        "{ jobs(last: $last, filter: { state: [BURIED, CANCELLED, DISCARDED] }) { totalCount nodes { ...J } } }",
    ),
    ("jobs", "{ jobs(filter: { subject: $text }) { totalCount nodes { ...J } } }"),
    ("queues", "{ queues { queue waiting buried donePerMinute } }"),
    ("queues", "{ queues(fleet: true) { queue waiting } }"),
    ("workers", "{ workers { id host } }"),
    ("schedules", "{ schedules { ...S } }"),
    ("roles", "{ roles { ...R } }"),
    ("apiKeys", "{ apiKeys { ...K } }"),
    ("login", "mutation { login(email: $email, password: $password) { tokens { accessToken } } }"),
    ("refreshSession", "mutation { refreshSession(refreshToken: $refresh) { accessToken } }"),
    ("logout", "mutation { logout }"),
    ("switchOrganization", "mutation { switchOrganization(organization: $org) { accessToken } }"),
    (
        "changePassword",
        "mutation { changePassword(current: $password, new: \"another pelican mosaic\") }",
    ),
    ("revokeSession", "mutation { revokeSession(id: $session) }"),
    (
        "acceptInvitation",
        "mutation { acceptInvitation(organization: $org, password: $password, invitationPassword: $password2) { permissions } }",
    ),
    ("declineInvitation", "mutation { declineInvitation(organization: $org) }"),
    (
        "createUser",
        "mutation { createUser(input: { email: $newEmail, name: $text, password: $password2, roles: $roles }) { ...U } }",
    ),
    ("updateUser", "mutation { updateUser(id: $user, input: { name: $text }) { ...U } }"),
    (
        "updateUser",
        "mutation { updateUser(id: $user, input: { password: $password2, active: true }) { ...U } }",
    ),
    ("setUserRoles", "mutation { setUserRoles(user: $user, roles: $roles) { ...U } }"),
    ("deactivateUser", "mutation { deactivateUser(user: $user) { ...U } }"),
    ("revokeUserSessions", "mutation { revokeUserSessions(user: $user) }"),
    (
        "saveRole",
        "mutation { saveRole(key: $roleKey, name: $text, permissions: [CHECK_RUN]) { ...R } }",
    ),
    ("deleteRole", "mutation { deleteRole(key: $roleKey) }"),
    (
        "createApiKey",
        "mutation { createApiKey(input: { name: $text, permissions: [ASSET_READ], expiresAt: $soon }) { apiKey { ...K } } }",
    ),
    ("revokeApiKey", "mutation { revokeApiKey(id: $key) }"),
    (
        "createAsset",
        "mutation { createAsset(input: { name: $text, type: HOST, externalId: $external, owner: $user }) { ...A } }",
    ),
    (
        "createAsset",
        "mutation { a: createAsset(input: { name: $text, type: SERVICE }) { ...A } b: createAsset(input: { name: $text, type: HOST, owner: $user }) { id owner { ...P } } }",
    ),
    (
        "updateAsset",
        "mutation { updateAsset(id: $asset, input: { name: $text, owner: $user, externalId: $external, attributes: { model: $text } }) { ...A } }",
    ),
    (
        "updateAsset",
        "mutation { a: updateAsset(id: $asset, input: { owner: null }) { ...A } b: updateAsset(id: $asset2, input: { location: $text }) { ...A } }",
    ),
    ("setAssetLifecycle", "mutation { setAssetLifecycle(id: $asset, state: $state) { ...A } }"),
    ("deleteAsset", "mutation { deleteAsset(id: $asset) }"),
    (
        "addDependency",
        "mutation { addDependency(source: $asset, target: $asset2, kind: $text) { ...D } }",
    ),
    (
        "addDependency",
        "mutation { addDependency(target: $asset, source: $asset2, criticality: HIGH) { source { ...W } target { ...W } } }",
    ),
    ("removeDependency", "mutation { removeDependency(id: $dependency) }"),
    (
        "checkOutAsset",
        "mutation { checkOutAsset(id: $asset, holder: $user, notes: $text) { ...H } }",
    ),
    (
        "checkOutAsset",
        "mutation { checkOutAsset(holder: $user, id: $asset) { id asset { ...X } } }",
    ),
    ("checkInAsset", "mutation { checkInAsset(id: $asset, notes: $text) { ...H } }"),
    ("createTag", "mutation { createTag(name: $text) { ...T } }"),
    ("deleteTag", "mutation { deleteTag(id: $tag) }"),
    (
        "updateAsset",
        "mutation { updateAsset(id: $asset, input: { tags: [$tag, $tag2] }) { id tags { ...T } } }",
    ),
    (
        "importAssets",
        "mutation { importAssets(input: { format: CSV, content: $file, dependencies: $edges, idempotencyKey: $text }) { ...I } }",
    ),
    ("cancelImportRun", "mutation { cancelImportRun(id: $import) { ...I } }"),
    (
        "saveRule",
        "mutation { saveRule(input: { key: $ruleName, title: $text, severity: LOW, condition: \"has(attr.os_name)\", remediation: $text }) { ...G id } }",
    ),
    ("setRuleParams", "mutation { setRuleParams(key: $ruleName, enabled: false) { ...G id } }"),
    (
        "tryRule",
        "mutation { tryRule(input: { key: $ruleName, title: $text, severity: LOW, condition: \"has(owner.id)\", evidence: { name: \"asset.name\" }, remediation: $text }) { passed failed examples { evidence asset { ...N } } } }",
    ),
    (
        "grantWaiver",
        "mutation { grantWaiver(input: { rule: $rule, asset: $asset, reason: $text, expiresAt: $soon }) { ...Y } }",
    ),
    ("revokeWaiver", "mutation { revokeWaiver(id: $waiver) { ...Y } }"),
    ("startComplianceRun", "mutation { startComplianceRun(idempotencyKey: $text) { ...C } }"),
    ("cancelComplianceRun", "mutation { cancelComplianceRun(id: $run) { ...C } }"),
    ("retryJob", "mutation { retryJob(id: $job) { ...J } }"),
    ("retryJobs", "mutation { retryJobs(filter: { subject: $text }) }"),
    ("discardJob", "mutation { discardJob(id: $job) { ...J } }"),
    ("cancelJob", "mutation { cancelJob(id: $job) { ...J } }"),
    (
        "saveSchedule",
        "mutation { saveSchedule(input: { name: $text, cron: \"0 2 * * *\", action: COMPLIANCE_RUN }) { ...S } }",
    ),
    ("deleteSchedule", "mutation { deleteSchedule(id: $schedule) }"),
];

/// Documents that no member of an organization may execute.
pub(super) const FLEET_DOCUMENTS: [&str; 2] =
    ["{ queues(fleet: true) { queue waiting } }", "{ workers { id host } }"];

/// Variables of the documents with their types.
pub(super) const VARIABLES: &[(&str, &str)] = &[
    ("asset", "ID!"),
    ("asset2", "ID!"),
    ("user", "ID!"),
    ("user2", "ID!"),
    ("key", "ID!"),
    ("session", "ID!"),
    ("org", "ID!"),
    ("run", "ID!"),
    ("run2", "ID!"),
    ("rule", "ID!"),
    ("finding", "ID!"),
    ("waiver", "ID!"),
    ("job", "ID!"),
    ("schedule", "ID!"),
    ("dependency", "ID!"),
    ("tag", "ID!"),
    ("tag2", "ID!"),
    ("import", "ID!"),
    ("file", "String!"),
    ("edges", "String"),
    ("any", "ID!"),
    ("any2", "ID!"),
    ("cursor", "String"),
    ("first", "Int"),
    ("last", "Int"),
    ("text", "String!"),
    ("code", "String!"),
    ("email", "String!"),
    ("newEmail", "String!"),
    ("password", "String!"),
    ("password2", "String!"),
    ("refresh", "String!"),
    ("roles", "[String!]!"),
    ("roleKey", "String!"),
    ("ruleName", "String!"),
    ("soon", "DateTime!"),
    ("external", "String"),
    ("state", "LifecycleState!"),
];

impl Fuzz {
    /// Returns a random value for a variable, from the caller's or from the other organization.
    fn draw(&self, rng: &mut Rng, org: usize, variable: &str) -> Value {
        let from = if rng.chance(40) { 1 - org } else { org };
        let known = self.known.lock().unwrap();
        let id = |rng: &mut Rng, prefix: &str| match known[from].by_prefix.get(prefix) {
            Some(ids) if rng.chance(20) => ids[ids.len() - 1].clone(),
            Some(ids) if !rng.chance(3) => rng.pick(ids).clone(),
            _ => format!("{prefix}_01j8xq4m9ke5trv3yx2f7nbc6d"),
        };
        let mark = MARKS[org];
        match variable.trim_end_matches('2') {
            "asset" => json!(id(rng, "ast")),
            "user" => json!(id(rng, "usr")),
            "key" => json!(id(rng, "key")),
            "session" => json!(id(rng, "ses")),
            "org" => json!(id(rng, "org")),
            "run" => json!(id(rng, "run")),
            "rule" => json!(id(rng, "rul")),
            "finding" => json!(id(rng, "fnd")),
            "waiver" => json!(id(rng, "wvr")),
            "job" => json!(id(rng, "job")),
            "schedule" => json!(id(rng, "sch")),
            "dependency" => json!(id(rng, "dep")),
            "tag" => json!(id(rng, "tag")),
            "import" => json!(id(rng, "imp")),
            "file" => {
                json!(format!(
                    "external_id,name,type\n{mark}-{},{mark} thing,host\n",
                    rng.below(12)
                ))
            }
            "edges" | "external" if rng.chance(50) => Value::Null,
            "edges" => json!(format!(
                "source_external_id,target_external_id\n{mark}-{},{}-{}\n",
                rng.below(12),
                MARKS[from],
                rng.below(12)
            )),
            "any" => {
                let prefix = *rng.pick(&[
                    "ast", "dep", "cus", "usr", "key", "ses", "org", "rol", "aud", "run", "job",
                    "sch", "tag", "imp", "fnd", "wvr",
                ]);
                json!(id(rng, prefix))
            }
            "cursor" if known[from].cursors.is_empty() || rng.chance(30) => Value::Null,
            "cursor" => json!(rng.pick(&known[from].cursors)),
            "first" | "last" => json!(1 + rng.below(12)),
            // Written text must carry the mark of the organization that writes it.
            "text" => json!(format!("{mark} thing {}", rng.below(50))),
            "code" if known[from].codes.is_empty() => json!("HST-00000"),
            "code" => json!(rng.pick(&known[from].codes)),
            "email" => json!(rng.pick(&known[org].emails)),
            // Not of the other organization: that would be an invitation, which shows one person to both.
            "newEmail" if rng.chance(30) => json!(rng.pick(&known[org].emails)),
            "newEmail" => json!(format!("new-{}@{mark}.example", rng.below(100_000))),
            "password" if variable == "password" && rng.chance(5) => {
                json!("a wrong pelican mosaic")
            }
            "password" => json!(PASSWORD),
            "refresh" if known[org].refreshes.is_empty() || rng.chance(20) => json!("unknown"),
            "refresh" => json!(rng.pick(&known[org].refreshes)),
            "roles" => {
                let custom = format!("shift-{}", rng.below(4));
                json!([*rng.pick(&[
                    "viewer",
                    "operator",
                    "admin",
                    "owner",
                    custom.as_str(),
                    "nobody"
                ])])
            }
            "roleKey" if rng.chance(20) => json!("viewer"),
            // Both organizations use the same role keys; the roles' names carry the marks.
            "roleKey" => json!(format!("shift-{}", rng.below(4))),
            "ruleName" if rng.chance(30) => json!("patch-age"),
            "ruleName" => json!(format!("rule-{}", rng.below(8))),
            "soon" => json!((harness::now() + chrono::TimeDelta::days(1)).to_rfc3339()),
            "external" => json!(format!("{mark}-{}", rng.below(12))),
            "state" => {
                json!(*rng.pick(&["ACTIVE", "MAINTENANCE", "RETIRED", "RETIRED", "DISPOSED"]))
            }
            other => panic!("${other} is not drawn"),
        }
    }

    /// Returns the document with its variables declared and its fragments added, and random values.
    /// A `modest` document selects only the fields of users and keys that every member may read.
    pub(super) fn document(
        &self,
        rng: &mut Rng,
        org: usize,
        text: &str,
        modest: bool,
    ) -> (String, Value) {
        let shown = |text: &str| {
            if modest {
                text.replace("...U", "...P").replace("...K ", "...KP ")
            } else {
                text.to_owned()
            }
        };
        let text = &shown(text);
        let mut declared = Vec::new();
        let mut values = serde_json::Map::new();
        for (name, kind) in VARIABLES {
            let used = text.match_indices(&format!("${name}")).any(|(at, found)| {
                text[at + found.len()..].chars().next().is_none_or(|next| !next.is_alphanumeric())
            });
            if used {
                declared.push(format!("${name}: {kind}"));
                values.insert((*name).to_owned(), self.draw(rng, org, name));
            }
        }
        let (kind, body) = text.split_once('{').unwrap();
        let kind = if kind.trim().is_empty() { "query" } else { kind.trim() };
        let variables =
            if declared.is_empty() { String::new() } else { format!("({})", declared.join(", ")) };
        let mut whole = format!("{kind}{variables} {{{body}");
        // A document with unused fragments is invalid, and used fragments may spread others.
        let fragments: Vec<String> = FRAGMENTS
            .lines()
            .map(|line| shown(line.trim()))
            .filter(|line| !line.is_empty())
            .collect();
        loop {
            let missing = fragments.iter().find(|fragment| {
                let name = fragment.split(' ').nth(1).unwrap();
                let spread = |text: &str| {
                    text.match_indices(&format!("...{name}")).any(|(at, found)| {
                        text[at + found.len()..]
                            .chars()
                            .next()
                            .is_none_or(|next| !next.is_alphanumeric())
                    })
                };
                spread(&whole) && !whole.contains(fragment.as_str())
            });
            let Some(fragment) = missing else { return (whole, Value::Object(values)) };
            whole = format!("{whole}\n{fragment}");
        }
    }
}
