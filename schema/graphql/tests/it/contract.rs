//! The contract with clients. The schema may grow freely; a type or field listed here is changed or removed only for a
//! good reason, and then here too.

use std::collections::BTreeMap;

use async_graphql::{
    Positioned,
    parser::types::{ConstDirective, InputValueDefinition, TypeDefinition, TypeKind},
};

use crate::sdl::{fields, types};

/// The part of the contract that is served today, as SDL.
const CONTRACT: &str = r"
scalar DateTime
scalar JSON

interface Node { id: ID! }
union Actor = User | ApiKey | System

type Role { id: ID! key: String! name: String! permissions: [Permission!]! builtin: Boolean! }
enum Permission {
  ASSET_READ ASSET_WRITE ASSET_DELETE ASSET_IMPORT COMPLIANCE_READ COMPLIANCE_RUN COMPLIANCE_WRITE WAIVER_GRANT
  SERVICE_READ SERVICE_WRITE CHECK_RUN INCIDENT_READ INCIDENT_WRITE TRIAGE_READ TRIAGE_RUN TRIAGE_REVIEW
  JOB_READ JOB_MANAGE SCHEDULE_WRITE BUDGET_READ AUDIT_READ USER_READ USER_MANAGE ROLE_MANAGE API_KEY_MANAGE
  SECRET_MANAGE ORGANIZATION_MANAGE FLEET_READ FLEET_MANAGE
}
enum ErrorCode { UNAUTHENTICATED FORBIDDEN NOT_FOUND VALIDATION CONFLICT RATE_LIMITED QUERY_TOO_COMPLEX BUDGET_EXHAUSTED BUDGET_UNAVAILABLE AI_DISABLED DEPENDENCY_UNAVAILABLE TIMEOUT INTERNAL }

type Query {
  viewer: Viewer @public
  node(id: ID!): Node @authenticated
  asset(id: ID, code: String): Asset @requiresPermission(permission: ASSET_READ)
  assets(filter: AssetFilter, orderBy: AssetOrder, first: Int, after: String, last: Int, before: String): AssetConnection! @requiresPermission(permission: ASSET_READ)
  rules: [Rule!]! @requiresPermission(permission: COMPLIANCE_READ)
  complianceRun(id: ID!): ComplianceRun @requiresPermission(permission: COMPLIANCE_READ)
  complianceRuns(first: Int, after: String): ComplianceRunConnection! @requiresPermission(permission: COMPLIANCE_READ)
  complianceScore: Score @requiresPermission(permission: COMPLIANCE_READ)
  findings(filter: FindingFilter, first: Int, after: String): FindingConnection! @requiresPermission(permission: COMPLIANCE_READ)
  complianceDrift(from: ID!, to: ID!): Drift! @requiresPermission(permission: COMPLIANCE_READ)
  complianceForecast(until: DateTime!, first: Int, after: String): FlipConnection! @requiresPermission(permission: COMPLIANCE_READ)
  complianceReport(run: ID): ComplianceReport! @requiresPermission(permission: COMPLIANCE_READ)
  waivers(first: Int, after: String): WaiverConnection! @requiresPermission(permission: COMPLIANCE_READ)
  postureBy(dimension: PostureDimension!): [PostureGroup!]! @requiresPermission(permission: COMPLIANCE_READ)
  job(id: ID!): Job @requiresPermission(permission: JOB_READ)
  jobs(filter: JobFilter, first: Int, after: String): JobConnection! @requiresPermission(permission: JOB_READ)
  queues: [QueueStats!]! @requiresPermission(permission: JOB_READ)
  workers: [Worker!]! @requiresPermission(permission: FLEET_READ)
  schedules: [Schedule!]! @requiresPermission(permission: JOB_READ)
  attributes: [Attribute!]! @requiresPermission(permission: ASSET_READ)
  tags: [Tag!]! @requiresPermission(permission: ASSET_READ)
  importRun(id: ID!): ImportRun @requiresPermission(permission: ASSET_READ)
  auditEntries(filter: AuditFilter, first: Int, after: String): AuditEntryConnection! @requiresPermission(permission: AUDIT_READ)
  users(first: Int, after: String): UserConnection! @requiresPermission(permission: USER_READ)
  roles: [Role!]! @requiresPermission(permission: USER_READ)
  apiKeys: [ApiKey!]! @requiresPermission(permission: API_KEY_MANAGE)
}

type Mutation {
  login(email: String!, password: String!): LoginPayload! @public
  refreshSession(refreshToken: String!): Tokens! @public
  logout: Boolean! @public
  switchOrganization(organization: ID!): Tokens! @authenticated
  changePassword(current: String!, new: String!): Boolean! @authenticated
  revokeSession(id: ID!): ID! @authenticated
  createUser(input: CreateUserInput!): User! @requiresPermission(permission: USER_MANAGE)
  updateUser(id: ID!, input: UpdateUserInput!): User! @requiresPermission(permission: USER_MANAGE)
  setUserRoles(user: ID!, roles: [String!]!): User! @requiresPermission(permission: USER_MANAGE)
  deactivateUser(user: ID!): User! @requiresPermission(permission: USER_MANAGE)
  createApiKey(input: CreateApiKeyInput!): CreatedApiKey! @requiresPermission(permission: API_KEY_MANAGE)
  revokeApiKey(id: ID!): ID! @requiresPermission(permission: API_KEY_MANAGE)
  createAsset(input: CreateAssetInput!): Asset! @requiresPermission(permission: ASSET_WRITE)
  updateAsset(id: ID!, input: UpdateAssetInput!): Asset! @requiresPermission(permission: ASSET_WRITE)
  setAssetLifecycle(id: ID!, state: LifecycleState!): Asset! @requiresPermission(permission: ASSET_WRITE)
  deleteAsset(id: ID!): ID! @requiresPermission(permission: ASSET_DELETE)
  createTag(name: String!, color: String): Tag! @requiresPermission(permission: ASSET_WRITE)
  deleteTag(id: ID!): ID! @requiresPermission(permission: ASSET_WRITE)
  importAssets(input: ImportAssetsInput!): ImportRun! @requiresPermission(permission: ASSET_IMPORT)
  addDependency(source: ID!, target: ID!, kind: String, criticality: Criticality): Dependency! @requiresPermission(permission: ASSET_WRITE)
  removeDependency(id: ID!): ID! @requiresPermission(permission: ASSET_WRITE)
  checkOutAsset(id: ID!, holder: ID!, notes: String): Custody! @requiresPermission(permission: ASSET_WRITE)
  checkInAsset(id: ID!, notes: String): Custody! @requiresPermission(permission: ASSET_WRITE)
  saveRule(input: RuleInput!): Rule! @requiresPermission(permission: COMPLIANCE_WRITE)
  setRuleParams(key: String!, params: JSON, enabled: Boolean): Rule! @requiresPermission(permission: COMPLIANCE_WRITE)
  tryRule(input: RuleInput!): RuleTrial! @requiresPermission(permission: COMPLIANCE_RUN)
  grantWaiver(input: WaiverInput!): Waiver! @requiresPermission(permission: WAIVER_GRANT)
  revokeWaiver(id: ID!): Waiver! @requiresPermission(permission: WAIVER_GRANT)
  retryJobs(filter: JobFilter!): Int! @requiresPermission(permission: JOB_MANAGE)
  retryJob(id: ID!): Job! @requiresPermission(permission: JOB_MANAGE)
  discardJob(id: ID!): Job! @requiresPermission(permission: JOB_MANAGE)
  cancelJob(id: ID!): Job! @requiresPermission(permission: JOB_MANAGE)
  saveSchedule(input: ScheduleInput!): Schedule! @requiresPermission(permission: SCHEDULE_WRITE)
  deleteSchedule(id: ID!): ID! @requiresPermission(permission: SCHEDULE_WRITE)
}

type LoginPayload { tokens: Tokens mfaChallenge: String }
type Tokens { accessToken: String! accessExpiresAt: DateTime! refreshToken: String! refreshExpiresAt: DateTime! }
type Viewer { actor: Actor! organization: Organization! organizations: [Organization!]! roles: [Role!]! permissions: [Permission!]! sessions: [Session!]! }
type User { id: ID! name: String! email: String! roles: [Role!]! active: Boolean! mfaEnabled: Boolean! createdAt: DateTime! lastSeenAt: DateTime }
type Organization { id: ID! slug: String! name: String! }

enum AssetType { HOST NETWORK_DEVICE SERVICE SOFTWARE_LICENSE CLOUD_RESOURCE }
enum LifecycleState { PROVISIONING ACTIVE MAINTENANCE RETIRED DISPOSED }
enum Environment { PROD STAGING DEV }
type Asset {
  id: ID! code: String! externalId: String name: String! type: AssetType! lifecycleState: LifecycleState! environment: Environment!
  location: String description: String owner: User tags: [Tag!]! attributes: JSON! customFields: JSON! createdAt: DateTime! updatedAt: DateTime!
  facts: [Fact!]!
  dependsOn(depth: Int = 1, first: Int = 100): [Reached!]! dependents(depth: Int = 1, first: Int = 100): [Reached!]!
  blastRadius(depth: Int = 10, first: Int = 100): BlastRadius!
  custody: Custody custodyHistory(first: Int, after: String): CustodyConnection!
  changes(first: Int, after: String): ChangeConnection!
  posture: Posture findings(first: Int, after: String): FindingConnection!
  qrSvg: String! qrPng: String!
}
enum Criticality { LOW MEDIUM HIGH CRITICAL }
type Attribute { key: String! type: AttributeType! unit: String aliases: [String!]! description: String! }
enum ImportFormat { CSV JSON }
input ImportAssetsInput { format: ImportFormat! content: String! dependencies: String dryRun: Boolean = false idempotencyKey: String }
type ImportRun {
  id: ID! state: RunState! dryRun: Boolean! rows: Int! done: Int! created: Int! updated: Int! unchanged: Int! failed: Int!
  errors(first: Int, after: String): ImportErrorConnection! startedBy: Actor startedAt: DateTime! finishedAt: DateTime
}
type Reached { asset: Asset! depth: Int! via: Dependency! }
type BlastRadius { assets: Int! services: Int! nodes: [Reached!]! truncated: Boolean! }
type Dependency { id: ID! source: Asset! target: Asset! kind: String criticality: Criticality createdAt: DateTime! }
type Custody {
  id: ID! asset: Asset! holder: User notes: String checkedOutAt: DateTime! checkedOutBy: Actor
  returnNotes: String checkedInAt: DateTime checkedInBy: Actor
}
type CustodyConnection { edges: [CustodyEdge!]! nodes: [Custody!]! pageInfo: PageInfo! totalCount: Int }
type CustodyEdge { cursor: String! node: Custody! }
type Change { id: ID! at: DateTime! actor: Actor action: String! paths: [String!]! }
type ChangeConnection { edges: [ChangeEdge!]! nodes: [Change!]! pageInfo: PageInfo! totalCount: Int }
type ChangeEdge { cursor: String! node: Change! }
input CreateAssetInput { name: String! type: AssetType! environment: Environment = PROD lifecycleState: LifecycleState = ACTIVE externalId: String location: String description: String owner: ID tags: [ID!] attributes: JSON customFields: JSON }
input UpdateAssetInput { name: String environment: Environment externalId: String location: String description: String owner: ID tags: [ID!] attributes: JSON customFields: JSON }
input AssetFilter { type: [AssetType!] environment: [Environment!] lifecycleState: [LifecycleState!] owner: ID tag: ID text: String }
type AssetConnection { edges: [AssetEdge!]! nodes: [Asset!]! pageInfo: PageInfo! totalCount: Int }
type AssetEdge { cursor: String! node: Asset! }
type PageInfo { hasNextPage: Boolean! hasPreviousPage: Boolean! startCursor: String endCursor: String }
enum Severity { LOW MEDIUM HIGH CRITICAL }
enum Verdict { PASS FAIL NOT_ASSESSED ERROR }
type Rule { id: ID! key: String! version: Int! title: String! severity: Severity! controls: [Control!]! condition: String! params: JSON! remediation: String! builtin: Boolean! enabled: Boolean! }
type Control { framework: String! code: String! title: String family: String }
type Score { mean: Float weighted: Float coverage: Float! assets: Int! bySeverity: [SeverityCount!]! at: DateTime! }
type SeverityCount { severity: Severity! failing: Int! }
type Posture { score: Float coverage: Float! verdicts: [RuleVerdict!]! evaluatedAt: DateTime! }
type RuleVerdict { rule: Rule! verdict: Verdict! waived: Boolean! reason: String evidence: JSON flipsAt: DateTime }
type Finding { id: ID! asset: Asset! rule: Rule! severity: Severity! state: FindingState! evidence: JSON! openedAt: DateTime! lastSeenAt: DateTime! fixedAt: DateTime waiver: Waiver reopened: Int! }
enum FindingState { OPEN WAIVED FIXED OUT_OF_SCOPE }
input FindingFilter { state: [FindingState!] severity: [Severity!] rule: String asset: ID owner: ID reopened: Boolean }
type Waiver { id: ID! rule: Rule! asset: Asset reason: String! grantedBy: Actor grantedAt: DateTime! expiresAt: DateTime! revokedBy: Actor revokedAt: DateTime state: WaiverState! }
enum WaiverState { ACTIVE EXPIRED REVOKED }
input WaiverInput { rule: ID! asset: ID reason: String! expiresAt: DateTime! }
type Drift { newlyFailing(first: Int, after: String): FindingConnection! newlyPassing(first: Int, after: String): FindingConnection! scoreChange: Float }
type Flip { asset: Asset! rule: Rule! from: Verdict! to: Verdict! at: DateTime! }
enum PostureDimension { OWNER TAG TYPE ENVIRONMENT }
enum Queue { SCAN PROBE TRIAGE IMPORT NOTIFY UPKEEP }
enum JobState { WAITING SCHEDULED RUNNING SUCCEEDED BURIED CANCELLED DISCARDED }
type Job { id: ID! queue: Queue! kind: String! state: JobState! attempt: Int! maxAttempts: Int! priority: Int! runAt: DateTime! queuedAt: DateTime! startedAt: DateTime finishedAt: DateTime error: String worker: String actor: Actor subject: String }
type QueueStats { queue: Queue! waiting: Int! scheduled: Int! running: Int! buried: Int! oldestWaitingSeconds: Float donePerMinute: Float! failedPerMinute: Float! }
type Worker { id: String! host: String! queues: [Queue!]! running: Int! capacity: Int! version: String! startedAt: DateTime! lastSeenAt: DateTime! }
type Schedule { id: ID! name: String! cron: String! timeZone: String! action: ScheduleAction! enabled: Boolean! lastRunAt: DateTime nextRunAt: DateTime }
enum ScheduleAction { COMPLIANCE_RUN }
type AuditEntry { id: ID! at: DateTime! actor: Actor action: String! entityType: String! entityId: ID! changedPaths: [String!]! before: JSON after: JSON sourceIp: String requestId: String }
";

/// Returns the schema as comparable lines: `Query.asset(id)` is `ID`, `Permission.ASSET_READ` is a value.
fn lines(definitions: &[TypeDefinition]) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    for definition in definitions {
        let name = &definition.name.node;
        let kind = match &definition.kind {
            TypeKind::Scalar => "scalar",
            TypeKind::Object(_) => "type",
            TypeKind::Interface(_) => "interface",
            TypeKind::Union(union) => {
                for member in &union.members {
                    lines.insert(format!("{name} = {}", member.node), "member".to_owned());
                }
                "union"
            }
            TypeKind::Enum(all) => {
                for value in &all.values {
                    lines.insert(format!("{name}.{}", value.node.value.node), "value".to_owned());
                }
                "enum"
            }
            TypeKind::InputObject(object) => {
                for field in &object.fields {
                    lines.insert(format!("{name}.{}", field.node.name.node), input(&field.node));
                }
                "input"
            }
        };
        lines.insert(name.to_string(), kind.to_owned());
        for field in fields(definition) {
            let path = format!("{name}.{}", field.node.name.node);
            for argument in &field.node.arguments {
                lines.insert(format!("{path}({})", argument.node.name.node), input(&argument.node));
            }
            if matches!(name.as_str(), "Query" | "Mutation" | "Subscription") {
                lines.insert(format!("{path} takes"), statement(&field.node.directives));
            }
            lines.insert(path, field.node.ty.node.to_string());
        }
    }
    lines
}

fn input(input: &InputValueDefinition) -> String {
    let default = input.default_value.as_ref();
    let default = default.map(|default| format!(" = {}", default.node)).unwrap_or_default();
    format!("{}{default}", input.ty.node)
}

fn statement(directives: &[Positioned<ConstDirective>]) -> String {
    let output = directives.iter().map(|directive| {
        let permission = directive.node.get_argument("permission");
        let permission = permission.map(|permission| permission.node.to_string());
        format!("@{} {}", directive.node.name.node, permission.unwrap_or_default())
    });
    output.collect()
}

#[test]
fn what_clients_rely_on_is_served() {
    let (promised, served) = (lines(&types(CONTRACT)), lines(&types(&graphql::sdl())));
    let broken: Vec<_> = promised
        .iter()
        .filter(|(name, promise)| served.get(*name) != Some(promise))
        .map(|(name, promise)| (name, promise, served.get(name)))
        .collect();
    assert!(broken.is_empty(), "name, promised, served: {broken:#?}");
}

#[test]
fn what_was_added_asks_nothing_of_clients_that_do_not_know_it() {
    let (promised, served) = (lines(&types(CONTRACT)), lines(&types(&graphql::sdl())));
    let inputs = types(CONTRACT).into_iter().filter_map(|definition| match definition.kind {
        TypeKind::InputObject(_) => Some(definition.name.node.to_string()),
        _ => None,
    });
    let inputs: Vec<_> = inputs.collect();
    let demanded = served.iter().filter(|(name, _)| !promised.contains_key(*name));
    let demanded = demanded.filter(|(name, demand)| {
        let (owner, is_input) = match (name.split_once('('), name.split_once('.')) {
            (Some((field, _)), _) => (field.to_owned(), true),
            (None, Some((owner, _))) => (owner.to_owned(), inputs.iter().any(|one| one == owner)),
            (None, None) => return false,
        };
        is_input && promised.contains_key(&owner) && demand.ends_with('!')
    });
    let demanded: Vec<_> = demanded.collect();
    assert!(demanded.is_empty(), "new and required: {demanded:#?}");
}
