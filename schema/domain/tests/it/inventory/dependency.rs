//! Tests of dependencies and of the assets reached along them. Long, because there is a test for each shape of graph
//! and each limit.

use std::collections::HashMap;

use domain::{
    Id, Origin, Result,
    access::audit::{AuditEntry, AuditQuery},
    base::page::PageRequest,
    entity::{AssetId, DependencyId},
    inventory::{
        asset::{Asset, AssetType, CreateAssetInput, LifecycleState},
        dependency::{
            BlastRadius, Bounds, Criticality, Dependency, Direction, blast_radius, reach,
        },
    },
    testing::TestDb,
};
use tokio_postgres::Row;

use crate::harness::{TestOrg, assert_not_found, at, conflict, faults, host, organization};

const ALL: PageRequest = PageRequest { size: 100, backward: false, after: None, before: None };

/// Assets of a test organization, by name.
struct Graph {
    test: TestOrg,
    ids: HashMap<String, AssetId>,
}

impl Graph {
    /// Creates a graph from edges such as `web>db`: `web` depends on `db`. A name that begins with `svc` is a service.
    async fn of(edges: &str) -> Self {
        let mut graph = Self { test: TestOrg::new().await, ids: HashMap::new() };
        for edge in edges.split_whitespace() {
            let (source, target) = edge.split_once('>').unwrap();
            for name in [source, target] {
                graph.asset(name).await;
            }
            graph.add(source, target).await.unwrap();
        }
        graph
    }

    async fn asset(&mut self, name: &str) -> AssetId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let is_service = name.starts_with("svc");
        let asset_type = if is_service { AssetType::Service } else { AssetType::Host };
        let asset = self.test.asset(CreateAssetInput { asset_type, ..host(name) }).await;
        self.ids.insert(name.to_owned(), asset.id);
        asset.id
    }

    async fn add(&self, source: &str, target: &str) -> Result<Dependency> {
        add(&self.test, self.ids[source], self.ids[target], None, None).await
    }

    /// Returns the assets reached from an asset, in order, as `name depth via-source>via-target`.
    async fn reached(&self, root: &str, direction: Direction, bounds: Bounds) -> Vec<String> {
        let tx = self.test.db.read(self.test.org).await.unwrap();
        let roots = [self.ids[root]];
        let mut reached = reach(&tx, &roots, direction, bounds).await.unwrap();
        self.named(&reached.remove(&roots[0]).unwrap_or_default())
    }

    fn named(&self, reached: &[domain::inventory::dependency::Reached]) -> Vec<String> {
        let name = |id| self.ids.iter().find(|(_, known)| **known == id).unwrap().0;
        reached
            .iter()
            .map(|one| {
                let (source, target) = (name(one.via.source_id), name(one.via.target_id));
                format!("{} {} {source}>{target}", name(one.asset), one.depth)
            })
            .collect()
    }

    async fn radius(&self, root: &str, bounds: Bounds) -> BlastRadius {
        let tx = self.test.db.read(self.test.org).await.unwrap();
        let roots = [self.ids[root]];
        blast_radius(&tx, &roots, bounds).await.unwrap().remove(&roots[0]).unwrap()
    }
}

fn bounds(depth: i32, first: i32) -> Bounds {
    Bounds::check(depth, first).unwrap()
}

async fn add(
    test: &TestOrg,
    source: AssetId,
    target: AssetId,
    kind: Option<&str>,
    criticality: Option<Criticality>,
) -> Result<Dependency> {
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    let added = Dependency::add(&tx, source, target, kind, criticality, at(1)).await?;
    tx.commit().await?;
    Ok(added)
}

async fn remove(test: &TestOrg, id: DependencyId) -> Result<Dependency> {
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    let removed = Dependency::remove(&tx, id).await?;
    tx.commit().await?;
    Ok(removed)
}

#[tokio::test]
async fn what_is_added_is_what_is_stored() {
    let test = TestOrg::new().await;
    let (web, db) = (test.asset(host("web")).await.id, test.asset(host("db")).await.id);
    for (kind, criticality) in [(Some(" database "), Some(Criticality::High)), (Some(" "), None)] {
        let added = add(&test, web, db, kind, criticality).await.unwrap();
        let tx = test.db.read(test.org).await.unwrap();
        assert_eq!(Dependency::find(&tx, added.id).await.unwrap().as_ref(), Some(&added));
        assert_eq!((added.source_id, added.target_id, added.created_at), (web, db, at(1)));
        let kind = kind.map(str::trim).filter(|kind| !kind.is_empty());
        assert_eq!((added.kind.as_deref(), added.criticality), (kind, criticality));
        tx.commit().await.unwrap();
        remove(&test, added.id).await.unwrap();
    }
}

#[tokio::test]
async fn every_criticality_of_the_code_is_one_of_the_database() {
    let test = TestOrg::new().await;
    let web = test.asset(host("web")).await.id;
    for criticality in Criticality::ALL {
        let needed = test.asset(host(criticality.as_str())).await.id;
        add(&test, web, needed, None, Some(*criticality)).await.unwrap();
    }
}

#[tokio::test]
async fn bad_input_names_its_arguments() {
    let test = TestOrg::new().await;
    let web = test.asset(host("web")).await.id;
    let long = "x".repeat(51);
    assert_eq!(
        faults(add(&test, web, web, Some(&long), None).await),
        [
            "kind has 51 characters, at most 50 are allowed",
            "target is the source itself: an asset cannot depend on itself"
        ]
    );
    assert_eq!(
        faults(add(&test, web, Id::new(), Some("a\nb"), None).await),
        ["kind contains the control character U+000A"]
    );
}

#[tokio::test]
async fn an_asset_that_is_not_there_is_not_found() {
    let test = TestOrg::new().await;
    let web = test.asset(host("web")).await.id;
    assert_not_found(add(&test, web, Id::new(), None, None).await);
    assert_not_found(add(&test, Id::new(), web, None, None).await);
    assert_not_found(remove(&test, Id::new()).await);
}

#[tokio::test]
async fn the_same_need_is_not_said_twice() {
    let graph = Graph::of("web>db db>web").await;
    let sentence = "the source already depends on this target: delete that dependency before you create it again";
    assert_eq!(conflict(graph.add("web", "db").await), sentence);
}

#[tokio::test]
async fn a_dependency_stands_in_its_sources_history() {
    let test = TestOrg::new().await;
    let (web, db) = (test.asset(host("web")).await.id, test.asset(host("db")).await.id);
    let added = add(&test, web, db, Some("database"), None).await.unwrap();
    assert_eq!(remove(&test, added.id).await.unwrap(), added);
    let rows = test
        .db
        .superuser()
        .await
        .query(
            "SELECT action || ' ' || entity_type || ' ' || array_to_string(changed_paths, ',') AS entry,
                    before, after, entity_id FROM audit_entry WHERE action LIKE 'asset.dependency%' ORDER BY id",
            &[],
        )
        .await
        .unwrap();
    let entries: Vec<String> = rows.iter().map(|row| row.get("entry")).collect();
    let path = format!("dependsOn.{db}");
    assert_eq!(
        entries,
        [
            format!("asset.dependency_added asset {path}"),
            format!("asset.dependency_removed asset {path}")
        ]
    );
    for row in &rows {
        assert_eq!(row.get::<_, uuid::Uuid>("entity_id"), web.uuid());
    }
    let stored: serde_json::Value = rows[1].get("before");
    assert_eq!(stored["dependsOn"][db.to_string()]["kind"], "database");
}

#[tokio::test]
async fn a_dependency_goes_with_either_of_its_assets() {
    let graph = Graph::of("web>db db>disk").await;
    let test = &graph.test;
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    Asset::set_lifecycle(&tx, graph.ids["db"], LifecycleState::Retired, at(2)).await.unwrap();
    Asset::delete(&tx, graph.ids["db"], at(3)).await.unwrap();
    tx.commit().await.unwrap();
    let tx = test.db.read(test.org).await.unwrap();
    assert!(Dependency::list(&tx, &ALL).await.unwrap().rows.is_empty());
}

#[tokio::test]
async fn dependencies_are_listed_page_by_page() {
    let graph = Graph::of("a>b b>c c>d").await;
    let tx = graph.test.db.read(graph.test.org).await.unwrap();
    let first = PageRequest { size: 2, ..ALL };
    let page = Dependency::list(&tx, &first).await.unwrap();
    assert_eq!((page.rows.len(), page.has_next), (2, true));
    let rest = PageRequest { after: Some(page.rows[1].position()), ..first };
    let page = Dependency::list(&tx, &rest).await.unwrap();
    assert_eq!((page.rows.len(), page.has_next), (1, false));
    assert_eq!(page.rows[0].target_id, graph.ids["d"]);
}

#[tokio::test]
async fn both_directions_are_walked() {
    let graph = Graph::of("svc>web web>db web>cache db>disk").await;
    assert_eq!(
        graph.reached("web", Direction::DependsOn, bounds(10, 100)).await,
        ["cache 1 web>cache", "db 1 web>db", "disk 2 db>disk"]
    );
    assert_eq!(
        graph.reached("disk", Direction::Dependents, bounds(10, 100)).await,
        ["db 1 db>disk", "web 2 web>db", "svc 3 svc>web"]
    );
    assert!(graph.reached("svc", Direction::Dependents, bounds(10, 100)).await.is_empty());
}

#[tokio::test]
async fn a_walk_goes_no_deeper_than_asked() {
    let chain: Vec<_> = (0..12).map(|n| format!("n{:02}>n{n:02}", n + 1)).collect();
    let graph = Graph::of(&chain.join(" ")).await;
    for depth in [1, 3, 10] {
        let reached = graph.reached("n00", Direction::Dependents, bounds(depth, 100)).await;
        assert_eq!(reached.len(), usize::try_from(depth).unwrap());
        let last = format!("n{depth:02} {depth} n{depth:02}>n{:02}", depth - 1);
        assert_eq!(reached.last(), Some(&last));
    }
}

#[test]
fn a_walk_out_of_bounds_names_both_arguments() {
    for (depth, first) in [(0, 0), (11, 101), (-1, i32::MAX)] {
        assert_eq!(
            faults(Bounds::check(depth, first)),
            [
                format!("depth is {depth}, but must be between 1 and 10"),
                format!("first is {first}, but must be between 1 and 100")
            ]
        );
    }
}

#[tokio::test]
async fn a_cycle_ends_and_never_reaches_where_it_began() {
    let graph = Graph::of("a>b b>c c>a c>d d>c").await;
    for direction in [Direction::DependsOn, Direction::Dependents] {
        let reached = graph.reached("a", direction, bounds(10, 100)).await;
        assert_eq!(reached.len(), 3, "{reached:?}");
        assert!(!reached.iter().any(|one| one.starts_with("a ")), "{reached:?}");
    }
    assert_eq!(graph.radius("a", bounds(10, 100)).await.assets, 3);
}

#[tokio::test]
async fn a_diamond_is_reached_once_by_its_shortest_way() {
    // `b` is reached in one step and in two; `d` by two paths of two steps, of which `b>d` was added first.
    let graph = Graph::of("a>b a>c b>d c>d a>e e>b").await;
    assert_eq!(
        graph.reached("a", Direction::DependsOn, bounds(10, 100)).await,
        ["b 1 a>b", "c 1 a>c", "e 1 a>e", "d 2 b>d"]
    );
    assert_eq!(
        graph.reached("d", Direction::Dependents, bounds(10, 100)).await,
        ["b 1 b>d", "c 1 c>d", "a 2 a>b", "e 2 e>b"]
    );
}

#[tokio::test]
async fn what_is_shown_is_capped_and_what_is_counted_is_whole() {
    let mut edges: Vec<_> = (0..6).map(|n| format!("svc{n}>db")).collect();
    edges.extend((0..4).map(|n| format!("web{n}>svc0")));
    let graph = Graph::of(&edges.join(" ")).await;
    let radius = graph.radius("db", bounds(10, 3)).await;
    assert_eq!((radius.assets, radius.services, radius.is_truncated()), (10, 6, true));
    assert_eq!(graph.named(&radius.nodes), ["svc0 1 svc0>db", "svc1 1 svc1>db", "svc2 1 svc2>db"]);
    let radius = graph.radius("db", bounds(10, 7)).await;
    assert_eq!(graph.named(&radius.nodes).last().unwrap(), "web0 2 web0>svc0");
    let radius = graph.radius("db", bounds(10, 100)).await;
    assert_eq!((radius.nodes.len(), radius.is_truncated()), (10, false));
    let radius = graph.radius("db", bounds(1, 100)).await;
    assert_eq!((radius.assets, radius.services, radius.nodes.len()), (6, 6, 6));
}

#[tokio::test]
async fn the_asset_itself_is_no_part_of_its_blast_radius() {
    let graph = Graph::of("svc1>svc2 svc2>svc1").await;
    let radius = graph.radius("svc1", bounds(10, 100)).await;
    assert_eq!((radius.assets, radius.services), (1, 1));
    assert_eq!(graph.named(&radius.nodes), ["svc2 1 svc2>svc1"]);
}

#[tokio::test]
async fn many_assets_are_walked_from_at_once() {
    let graph = Graph::of("a>b b>c svc>c x>y").await;
    let tx = graph.test.db.read(graph.test.org).await.unwrap();
    let nobody = Id::new();
    let roots = [graph.ids["c"], graph.ids["y"], graph.ids["x"], graph.ids["c"], nobody];
    let mut reached = reach(&tx, &roots, Direction::Dependents, bounds(10, 100)).await.unwrap();
    assert_eq!(
        graph.named(&reached.remove(&graph.ids["c"]).unwrap()),
        ["b 1 b>c", "svc 1 svc>c", "a 2 a>b"]
    );
    assert_eq!(graph.named(&reached.remove(&graph.ids["y"]).unwrap()), ["x 1 x>y"]);
    assert!(reached.is_empty());
    let radii = blast_radius(&tx, &roots, bounds(10, 1)).await.unwrap();
    let counted =
        roots.map(|root| (radii[&root].assets, radii[&root].services, radii[&root].nodes.len()));
    assert_eq!(counted, [(3, 1, 1), (1, 0, 1), (0, 0, 0), (3, 1, 1), (0, 0, 0)]);
}

#[tokio::test]
async fn assets_of_one_name_are_ordered_by_id() {
    let test = TestOrg::new().await;
    let root = test.asset(host("root")).await.id;
    let mut twins = Vec::new();
    for _ in 0..3 {
        twins.push(test.asset(host("twin")).await.id);
    }
    for twin in twins.iter().rev() {
        add(&test, *twin, root, None, None).await.unwrap();
    }
    let tx = test.db.read(test.org).await.unwrap();
    let reached = reach(&tx, &[root], Direction::Dependents, bounds(1, 2)).await.unwrap();
    let shown: Vec<_> = reached[&root].iter().map(|one| one.asset).collect();
    assert_eq!(shown, twins[..2]);
}

#[tokio::test]
async fn a_foreign_organization_sees_and_touches_nothing() {
    let graph = Graph::of("web>db").await;
    let test = &graph.test;
    let evil = organization(&test.db, "evil").await;
    let tx = test.db.read(test.org).await.unwrap();
    let own = Dependency::list(&tx, &ALL).await.unwrap().rows.remove(0);
    tx.commit().await.unwrap();
    let tx = test.db.write(evil, Origin::system()).await.unwrap();
    let (web, db) = (graph.ids["web"], graph.ids["db"]);
    assert_eq!(Dependency::find(&tx, own.id).await.unwrap(), None);
    assert!(Dependency::list(&tx, &ALL).await.unwrap().rows.is_empty());
    assert_not_found(Dependency::remove(&tx, own.id).await);
    assert_not_found(Dependency::add(&tx, db, web, None, None, at(1)).await);
    for direction in [Direction::DependsOn, Direction::Dependents] {
        assert!(reach(&tx, &[web, db], direction, bounds(10, 100)).await.unwrap().is_empty());
    }
    let radius = blast_radius(&tx, &[db], bounds(10, 100)).await.unwrap().remove(&db).unwrap();
    assert_eq!((radius.assets, radius.services, radius.nodes), (0, 0, Vec::new()));
}

#[tokio::test]
async fn no_dependency_joins_two_organizations() {
    let db = TestDb::new().await;
    let (acme, evil) = (organization(&db, "acme").await, organization(&db, "evil").await);
    let mut assets = Vec::new();
    for org in [acme, evil] {
        let tx = db.write(org, Origin::system()).await.unwrap();
        assets.push(Asset::create(&tx, &host("x"), at(0)).await.unwrap().id);
        tx.commit().await.unwrap();
    }
    let tx = db.write(acme, Origin::system()).await.unwrap();
    assert_not_found(Dependency::add(&tx, assets[0], assets[1], None, None, at(1)).await);
    // Code that omits the check is stopped by the foreign key.
    let forced: Result<Row> = tx
        .one(
            "INSERT INTO dependency (org_id, id, source_id, target_id, created_at)
             VALUES ($1, gen_random_uuid(), $2, $3, now()) RETURNING id",
            &[&acme, &assets[0], &assets[1]],
        )
        .await;
    assert!(forced.is_err());
}

#[tokio::test]
async fn whoever_needed_a_deleted_asset_is_told() {
    let test = TestOrg::new().await;
    let needed = test.asset(host("db")).await;
    let source = test.asset(host("web")).await;
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    Dependency::add(&tx, source.id, needed.id, None, None, at(1)).await.unwrap();
    Asset::set_lifecycle(&tx, needed.id, LifecycleState::Retired, at(2)).await.unwrap();
    Asset::delete(&tx, needed.id, at(3)).await.unwrap();
    let query = AuditQuery { entity_id: Some(source.id.uuid()), ..Default::default() };
    let page = PageRequest { size: 1, backward: false, after: None, before: None };
    let entry = AuditEntry::list(&tx, &query, &page).await.unwrap().rows.remove(0);
    assert_eq!(entry.action, "asset.dependency_removed");
    assert_eq!(entry.changed_paths, [format!("dependsOn.{}", needed.id)]);
}

#[tokio::test]
async fn an_asset_that_too_many_need_stays() {
    let test = TestOrg::new().await;
    let needed = test.asset(host("db")).await.id;
    let source = test.asset(host("web")).await.id.uuid();
    let (org, target) = (test.org.uuid(), needed.uuid());
    let many = format!(
        "INSERT INTO asset (org_id, id, code, name, type, lifecycle_state, environment, created_at, updated_at)
         SELECT org_id, gen_random_uuid(), 'X-' || n, name, type, lifecycle_state, environment, created_at, updated_at
         FROM asset, generate_series(1, 10000) AS n WHERE id = '{source}';
         INSERT INTO dependency (org_id, id, source_id, target_id, created_at)
         SELECT org_id, gen_random_uuid(), id, '{target}', now() FROM asset WHERE org_id = '{org}' AND id <> '{target}'"
    );
    test.db.superuser().await.batch_execute(&many).await.unwrap();
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    Asset::set_lifecycle(&tx, needed, LifecycleState::Retired, at(2)).await.unwrap();
    let refused = Asset::delete(&tx, needed, at(3)).await.unwrap_err().to_string();
    assert!(refused.contains("10000 dependencies"), "{refused}");
    tx.exec("DELETE FROM dependency WHERE source_id = $1", &[&source]).await.unwrap();
    Asset::delete(&tx, needed, at(3)).await.unwrap();
    assert_eq!(Asset::find(&tx, needed).await.unwrap(), None);
}
