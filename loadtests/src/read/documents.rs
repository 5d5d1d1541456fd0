//! Documents that cost a server as much as its limits allow. Each repeats one selection as often as the server accepts.

/// A selection, and how often a document can have it at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct AttackDocument {
    /// Name of the document in the report.
    pub(super) name: &'static str,
    /// Root field, with the names of [`Subjects`] in place of values.
    root: &'static str,
    /// Maximum number of repetitions: that of root fields, or 1 for a document that is one already.
    pub(super) most: usize,
}

impl AttackDocument {
    const fn repeated(name: &'static str, root: &'static str) -> Self {
        Self { name, root, most: 20 }
    }

    const fn once(name: &'static str, root: &'static str) -> Self {
        Self { name, root, most: 1 }
    }

    /// Returns the text of the document with this number of repetitions.
    pub(super) fn text(&self, times: usize, subjects: &Subjects) -> String {
        let root = self.root.replace("$asset", &subjects.asset);
        let root = root.replace("$until", &subjects.until);
        if self.most == 1 {
            return format!("{{ {root} }}");
        }
        let roots: Vec<_> = (0..times).map(|time| format!("a{time}: {root}")).collect();
        format!("{{ {} }}", roots.join(" "))
    }
}

/// Values that the documents are about.
#[derive(Debug, Default)]
pub(super) struct Subjects {
    /// Id of the asset with most dependents, written `$asset`.
    pub(super) asset: String,
    /// End of the forecast, written `$until`.
    pub(super) until: String,
}

/// All documents, one for each kind of root or leaf. The newest assets are those with large custom fields.
pub(super) const DOCUMENTS: &[AttackDocument] = &[
    AttackDocument::repeated(
        "large custom fields",
        "assets(first: 100, orderBy: { field: CREATED_AT, direction: DESC }) { nodes { customFields description } }",
    ),
    AttackDocument::repeated(
        "attributes and facts",
        "assets(first: 100) { nodes { attributes facts { key value source observedAt } } }",
    ),
    AttackDocument::repeated("QR codes as PNG", "assets(first: 100) { nodes { qrPng } }"),
    AttackDocument::repeated("QR codes as SVG", "assets(first: 100) { nodes { qrSvg } }"),
    AttackDocument::repeated("QR codes as PNG, 10 rows", "assets(first: 10) { nodes { qrPng } }"),
    AttackDocument::repeated(
        "all scalars",
        "assets(first: 100) { nodes { id code externalId name type lifecycleState environment location description attributes customFields createdAt updatedAt } }",
    ),
    AttackDocument::repeated(
        "owners and tags",
        "assets(first: 100) { nodes { owner { name } tags { name } } }",
    ),
    AttackDocument::repeated(
        "blast radius of one asset",
        "asset(id: \"$asset\") { blastRadius(depth: 10, first: 100) { assets services truncated nodes { depth asset { name } } } }",
    ),
    AttackDocument::repeated(
        "blast radius of a list",
        "assets(first: 10) { nodes { blastRadius(depth: 10, first: 1) { assets services } } }",
    ),
    AttackDocument::repeated(
        "dependencies, 10 deep",
        "asset(id: \"$asset\") { dependents(depth: 10, first: 100) { depth asset { name } } dependsOn(depth: 10, first: 100) { asset { name } } }",
    ),
    AttackDocument::repeated(
        "dependents with custom fields",
        "assets(first: 48, orderBy: { field: CREATED_AT, direction: DESC }) { nodes { dependents(first: 20) { asset { customFields } } } }",
    ),
    AttackDocument::repeated(
        "filter for text",
        "assets(first: 1, filter: { text: \"lolololololololololololololololo\" }) { totalCount nodes { id } }",
    ),
    AttackDocument::repeated("total counts", "assets(first: 1) { totalCount }"),
    AttackDocument::repeated("total counts of findings", "findings(first: 1) { totalCount }"),
    AttackDocument::repeated(
        "custody and changes",
        "assets(first: 20) { nodes { custodyHistory(first: 10) { nodes { id } } changes(first: 10) { nodes { action paths } } } }",
    ),
    AttackDocument::repeated(
        "postures with verdicts",
        "assets(first: 20) { nodes { posture { score verdicts { verdict reason evidence rule { title } } } } }",
    ),
    AttackDocument::repeated(
        "findings with evidence",
        "findings(first: 100) { nodes { evidence asset { name } rule { title condition } } }",
    ),
    AttackDocument::repeated(
        "findings of a list",
        "assets(first: 10) { nodes { findings(first: 10) { nodes { evidence rule { title } } } } }",
    ),
    AttackDocument::repeated(
        "rules",
        "rules { title condition evidence params remediation controls { framework code } reads }",
    ),
    AttackDocument::repeated(
        "report",
        "complianceReport { verdicts { passed } families { family score } remediations { assets scoreGain rule { title } } worstAssets(first: 100) { failed asset { name } } findings(first: 100) { nodes { evidence asset { name } } } }",
    ),
    AttackDocument::repeated(
        "postures by owner",
        "postureBy(dimension: OWNER) { label assets score weighted coverage failing owner { name } }",
    ),
    AttackDocument::repeated(
        "forecast",
        "complianceForecast(until: \"$until\", first: 100) { nodes { at from to asset { name } rule { title } } }",
    ),
    AttackDocument::repeated(
        "trend",
        "complianceTrend(last: 100) { score { mean weighted coverage } run { assets passed failed } }",
    ),
    AttackDocument::once(
        "introspection",
        "__schema { types { name description fields { name description args { name description type { name ofType { name ofType { name } } } } type { name ofType { name ofType { name } } } } inputFields { name description type { name } } enumValues { name description } } }",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_is_repeated_under_other_names() {
        let document = AttackDocument::repeated("x", "asset(id: \"$asset\") { id }");
        let expected = "{ a0: asset(id: \"ast_1\") { id } a1: asset(id: \"ast_1\") { id } }";
        let subjects = Subjects { asset: "ast_1".to_owned(), ..Subjects::default() };
        assert_eq!(document.text(2, &subjects), expected);
        assert_eq!(
            AttackDocument::once("x", "__schema { y }").text(1, &subjects),
            "{ __schema { y } }"
        );
    }
}
