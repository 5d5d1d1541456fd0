//! A report as a printable page: HTML with an inline style sheet that loads no resources and runs no scripts.
//!
//! User-supplied text (names, evidence, remediations) goes through maud, which escapes it. Numbers are rounded only
//! here.

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

/// A self-contained page and the hash of its style sheet.
#[derive(Debug, Clone)]
pub struct PrintedReport {
    /// The page as an HTML document.
    pub html: String,
    /// SHA-256 of the style sheet in Base64, for the Content-Security-Policy header.
    pub style_sha256: String,
}

/// Renders the page as HTML.
pub(super) fn render(page: &Page) -> PrintedReport {
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
                    None => p { "No run has succeeded yet, so there are no results." },
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
    PrintedReport { html: html.into_string(), style_sha256 }
}

fn head(page: &Page) -> Markup {
    html! {
        header {
            h1 { "Compliance report" }
            p { strong { (page.report.organization) } }
            dl.run {
                @if let Some(figures) = &page.report.figures {
                    dt { "Run" } dd { (figures.run) }
                    dt { "Scope" }
                    dd {
                        (figures.sums.assets)
                        @if figures.scope.is_some() { " assets in the run's scope" } @else { " assets in operation" }
                    }
                    dt { "Started" } dd { (time(figures.started_at)) }
                    @if let Some(at) = figures.finished_at { dt { "Ended" } dd { (time(at)) } }
                }
                dt { "Generated" } dd { (time(page.report.generated_at)) }
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
                (figure("Change since previous run", &page.report.score_change().map_or("–".to_owned(), |change| format!("{change:+.1} points"))))
            }
            p.note {
                "Coverage is the percentage of the applicable rules, by weight, that could be assessed. Rules with a missing fact count neither as passed nor as failed. "
                "Waived failures count as assessed, but not in a score."
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
            h2 { "Remediations with the largest effect" }
            @if remediations.is_empty() { p { "No rule fails." } }
            @else {
                table {
                    thead { tr {
                        th.text { "Rule" } th { "Severity" } th { "Assets" } th { "Weight" } th { "Score gain" } th.text { "Remediation" }
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
            h2 { "Assets with the most failures" }
            @if page.worst.is_empty() { p { "No asset fails." } }
            @else {
                table {
                    thead { tr { th.text { "Asset" } th { "Failed rules" } th { "Weight" } } }
                    tbody {
                        @for WorstAsset { asset, failed, failed_weight } in &page.worst {
                            tr { td.text { (asset_label(page, *asset)) } td { (failed) } td { (failed_weight) } }
                        }
                    }
                }
            }
        }
    }
}

fn findings(page: &Page, figures: &Figures) -> Markup {
    let count = page.findings.len();
    html! {
        section {
            h2 { "Findings" }
            p.note {
                "Failures at the end of the run, highest severity first: "
                (count) " of " (page.total) ". The complete list is in "
                code { "/reports/compliance/" (figures.run) ".csv" } "."
            }
            @if count > 0 {
                table {
                    thead { tr {
                        th { "Severity" } th.text { "Asset" } th.text { "Rule" } th.text { "Evidence" } th { "Since" } th { "State" }
                    } }
                    tbody {
                        @for finding in &page.findings {
                            tr {
                                td { (finding.severity.as_str()) }
                                td.text { (asset_label(page, finding.asset_id)) }
                                td.text { (page.rules.get(&finding.version_id).map_or("", |rule| &rule.definition.title)) }
                                td.text { @if let Some(shown) = finding.evidence.shown(page.details) { (evidence(shown)) } }
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
            p.note { "Versions that the run used." }
            @for rule in rules {
                article {
                    h3 { (rule.definition.title) }
                    p { code { (rule.key) } ", version " (rule.version) ", " (rule.definition.severity.as_str()) }
                    dl {
                        dt { "Condition" } dd { code { (rule.definition.condition) } }
                        @if rule.params.as_object().is_some_and(|params| !params.is_empty()) {
                            dt { "Parameters" } dd { (evidence(&rule.params)) }
                        }
                        dt { "Controls" }
                        dd {
                            @if rule.definition.controls.is_empty() { "none" }
                            @for (index, control) in rule.definition.controls.iter().map(Control::of).enumerate() {
                                @if index > 0 { ", " }
                                (control.framework) " " (control.code)
                                @if let Some(title) = &control.title { " (" (title) ")" }
                            }
                        }
                        dt { "Remediation" } dd { (rule.definition.remediation) }
                    }
                }
            }
        }
    }
}

fn figure(name: &str, value: &str) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

/// Returns the asset's name and code, or only its id for a caller without permission to read assets.
fn asset_label(page: &Page, asset: AssetId) -> Markup {
    html! {
        @match page.assets.get(&asset) {
            Some(asset) => { (asset.name) " " span.code { (asset.code) } },
            None => code { (asset) },
        }
    }
}

/// Renders the names and values of an object, one per line.
fn evidence(evidence: &Value) -> Markup {
    html! {
        @match evidence.as_object() {
            Some(values) => @for (index, (name, value)) in values.iter().enumerate() {
                @if index > 0 { br; }
                (name) ": " (text_of(value))
            },
            None => (text_of(evidence)),
        }
    }
}

fn text_of(value: &Value) -> String {
    match value {
        Value::Null => "no value".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text_of).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

const fn state(state: FindingState) -> &'static str {
    match state {
        FindingState::Open => "open",
        FindingState::Waived => "waived",
        FindingState::Fixed => "fixed later",
        FindingState::OutOfScope => "out of scope later",
    }
}

/// Formats a percentage with one decimal. Values between 0 and 100 are shown as 0.1 % to 99.9 %, so 100.0 % means that
/// nothing failed.
fn percent(value: Option<f64>) -> String {
    let Some(value) = value else { return "–".to_owned() };
    let is_partial = value > 0.0 && value < 100.0;
    let rounded = if is_partial { value.clamp(0.1, 99.9) } else { value };
    format!("{rounded:.1} %")
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
