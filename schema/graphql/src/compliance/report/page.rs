//! A report as a page to print: HTML that fetches nothing and runs nothing, its style within.
//!
//! What comes from people (names, evidence, remediations) goes through maud, which escapes it. Numbers are rounded here and
//! nowhere before.

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use domain::{
    compliance::{
        finding::FindingState,
        report::{Family, Remediation, WorstAsset},
        rule::{Control, Rule},
        score::{Figures, Score},
    },
    entity::AssetId,
};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::content::Page;

const STYLE: &str = include_str!("page.css");

/// A page that stands for itself.
#[derive(Debug, Clone)]
pub struct Printed {
    /// HTML.
    pub html: String,
    /// What a browser may take its style for: SHA-256 in base 64.
    pub style_sha256: String,
}

/// The page as HTML.
pub(super) fn print(page: &Page) -> Printed {
    let html = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Compliance report · " (page.report.organization) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (head(page))
                @match &page.report.figures {
                    None => p { "No run has succeeded yet, so nothing is known." },
                    Some(figures) => {
                        (summary(page, figures))
                        (families(&page.report.families()))
                        (remediations(&page.report.remediations()))
                        (worst(page))
                        (findings(page, figures))
                        (rules(&page.report.rules))
                    },
                }
            }
        }
    };
    let style_sha256 = STANDARD.encode(Sha256::digest(STYLE));
    Printed { html: html.into_string(), style_sha256 }
}

fn head(page: &Page) -> Markup {
    html! {
        header {
            h1 { "Compliance report" }
            p { strong { (page.report.organization) } }
            dl.run {
                @if let Some(figures) = &page.report.figures {
                    dt { "Run" } dd { (figures.run) }
                    dt { "Of" }
                    dd {
                        (figures.sums.assets)
                        @if figures.scope.is_some() { " assets in its scope" } @else { " assets in operation" }
                    }
                    dt { "Started" } dd { (time(figures.started_at)) }
                    @if let Some(at) = figures.finished_at { dt { "Ended" } dd { (time(at)) } }
                }
                dt { "Printed" } dd { (time(page.report.generated_at)) }
            }
        }
    }
}

fn summary(page: &Page, figures: &Figures) -> Markup {
    let (score, tally) = (page.report.score(), figures.tally());
    html! {
        section {
            h2 { "Score" }
            dl.figures {
                (figure("Weighted", &percent(score.as_ref().and_then(|score| score.weighted))))
                (figure("Mean of assets", &percent(score.as_ref().and_then(|score| score.mean))))
                (figure("Coverage", &percent(Some(figures.sums.coverage() * 100.0))))
                (figure("Since the run before", &page.report.score_change().map_or("–".to_owned(), |change| format!("{change:+.1} points"))))
            }
            p.note {
                "Coverage is how much of what applies could be judged: what is not known counts neither as passed nor as failed. "
                "Failures that a waiver allows count as judged, and in no score."
            }
            table {
                thead { tr { th { "Passed" } th { "Failed" } th { "Waived" } th { "Not assessed" } th { "Errors" } } }
                tbody { tr {
                    td { (tally.passed) } td { (tally.failed) } td { (tally.waived) } td { (tally.not_assessed) } td { (tally.errors) }
                } }
            }
            (severities(score.as_ref()))
        }
    }
}

fn severities(score: Option<&Score>) -> Markup {
    let counts = score.map(|score| score.by_severity.as_slice()).unwrap_or_default();
    html! {
        h3 { "Failures by severity" }
        table {
            thead { tr { @for count in counts.iter().rev() { th { (count.severity.as_str()) } } } }
            tbody { tr { @for count in counts.iter().rev() { td { (count.failing) } } } }
        }
    }
}

fn families(families: &[Family]) -> Markup {
    html! {
        section {
            h2 { "Control families" }
            table {
                thead { tr {
                    th.text { "Family" } th { "Passed" } th { "Failed" } th { "Waived" } th { "Not assessed" } th { "Errors" }
                    th { "Coverage" } th { "Score" }
                } }
                tbody {
                    @for family in families {
                        tr {
                            td.text { (family.family) }
                            td { (family.passed) } td { (family.failed) } td { (family.waived) }
                            td { (family.not_assessed) } td { (family.errors) }
                            td { (percent(Some(family.coverage * 100.0))) } td { (percent(family.score)) }
                        }
                    }
                }
            }
        }
    }
}

fn remediations(remediations: &[Remediation]) -> Markup {
    html! {
        section {
            h2 { "What would help most" }
            @if remediations.is_empty() { p { "Nothing is broken." } }
            @else {
                table {
                    thead { tr {
                        th.text { "Rule" } th { "Severity" } th { "Assets" } th { "Weight" } th { "Score" } th.text { "What to do" }
                    } }
                    tbody {
                        @for remediation in remediations {
                            tr {
                                td.text { (remediation.rule.definition.title) }
                                td { (remediation.rule.definition.severity.as_str()) }
                                td { (remediation.assets) }
                                td { (remediation.recoverable_weight) }
                                td { (format!("{:+.1}", remediation.score_gain)) }
                                td.text { (remediation.rule.definition.remediation) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn worst(page: &Page) -> Markup {
    html! {
        section {
            h2 { "Assets that fail most" }
            @if page.worst.is_empty() { p { "No asset fails." } }
            @else {
                table {
                    thead { tr { th.text { "Asset" } th { "Rules broken" } th { "Weight" } } }
                    tbody {
                        @for WorstAsset { asset, failed, failed_weight } in &page.worst {
                            tr { td.text { (named(page, *asset)) } td { (failed) } td { (failed_weight) } }
                        }
                    }
                }
            }
        }
    }
}

fn findings(page: &Page, figures: &Figures) -> Markup {
    let shown = page.findings.len();
    html! {
        section {
            h2 { "Findings" }
            p.note {
                "What was broken when the run ended, the worst first: "
                (shown) " of " (page.total) ". All of them are in the file "
                code { "/reports/compliance/" (figures.run) ".csv" } "."
            }
            @if shown > 0 {
                table {
                    thead { tr {
                        th { "Severity" } th.text { "Asset" } th.text { "Rule" } th.text { "Evidence" } th { "Since" } th { "State" }
                    } }
                    tbody {
                        @for finding in &page.findings {
                            tr {
                                td { (finding.severity.as_str()) }
                                td.text { (named(page, finding.asset_id)) }
                                td.text { (page.rules.get(&finding.version_id).map_or("", |rule| &rule.definition.title)) }
                                td.text { (evidence(&finding.evidence)) }
                                td { (finding.opened_at.format("%Y-%m-%d")) }
                                td { (state(finding.state)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn rules(rules: &[Rule]) -> Markup {
    html! {
        section.appendix {
            h2 { "Rules" }
            p.note { "As they were when the run started." }
            @for rule in rules {
                article {
                    h3 { (rule.definition.title) }
                    p { code { (rule.key) } ", version " (rule.version) ", " (rule.definition.severity.as_str()) }
                    dl {
                        dt { "Condition" } dd { code { (rule.definition.condition) } }
                        @if rule.params.as_object().is_some_and(|params| !params.is_empty()) {
                            dt { "Thresholds" } dd { (evidence(&rule.params)) }
                        }
                        dt { "Controls" }
                        dd {
                            @if rule.definition.controls.is_empty() { "none" }
                            @for (place, control) in rule.definition.controls.iter().map(Control::of).enumerate() {
                                @if place > 0 { ", " }
                                (control.framework) " " (control.code)
                                @if let Some(title) = &control.title { " (" (title) ")" }
                            }
                        }
                        dt { "What to do" } dd { (rule.definition.remediation) }
                    }
                }
            }
        }
    }
}

fn figure(name: &str, value: &str) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

/// An asset's name and code; its id for who may not see assets.
fn named(page: &Page, asset: AssetId) -> Markup {
    html! {
        @match page.assets.get(&asset) {
            Some(asset) => { (asset.name) " " span.code { (asset.code) } },
            None => code { (asset) },
        }
    }
}

/// Names and values of an object, a line each.
fn evidence(evidence: &Value) -> Markup {
    html! {
        @match evidence.as_object() {
            Some(values) => @for (place, (name, value)) in values.iter().enumerate() {
                @if place > 0 { br; }
                (name) ": " (shown(value))
            },
            None => (shown(evidence)),
        }
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "not known".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

const fn state(state: FindingState) -> &'static str {
    match state {
        FindingState::Open => "open",
        FindingState::Waived => "waived",
        FindingState::Fixed => "fixed since",
        FindingState::OutOfScope => "out of scope since",
    }
}

/// In tenths; never 100.0 % where something fails, nor 0.0 % where something holds.
fn percent(value: Option<f64>) -> String {
    let Some(value) = value else { return "–".to_owned() };
    let is_part = value > 0.0 && value < 100.0;
    let shown = if is_part { value.clamp(0.1, 99.9) } else { value };
    format!("{shown:.1} %")
}

fn time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_never_shown_as_none_or_all() {
        for (value, expected) in [
            (None, "–"),
            (Some(0.0), "0.0 %"),
            (Some(0.000_1), "0.1 %"),
            (Some(0.04), "0.1 %"),
            (Some(0.29 * 100.0), "29.0 %"),
            (Some(77.68), "77.7 %"),
            (Some(99.96), "99.9 %"),
            (Some(99.999_999), "99.9 %"),
            (Some(100.0), "100.0 %"),
        ] {
            assert_eq!(percent(value), expected);
        }
    }
}
