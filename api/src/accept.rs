//! Content negotiation between the two media types of a GraphQL response.
//!
//! The most specific media range decides the quality of a media type (RFC 9110 §12.5.1), and the type with the higher
//! quality wins. At equal quality, the type with the more specific range wins. If `Accept` names both types exactly,
//! `application/graphql-response+json` wins. If only wildcards match, or `Accept` is absent, `application/json` wins,
//! as the GraphQL-over-HTTP draft requires.

use http::{HeaderMap, StatusCode, header::ACCEPT};

use crate::{
    media::Media,
    request_error::{Code, RequestError},
};

impl Media {
    /// Returns the media type of the response that the `Accept` header prefers.
    ///
    /// # Errors
    /// 406 if `Accept` allows neither type.
    pub(crate) fn negotiate(headers: &HeaderMap) -> Result<Self, RequestError> {
        if !headers.contains_key(ACCEPT) {
            return Ok(Self::Json);
        }
        let ranges: Vec<MediaRange> = headers
            .get_all(ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(MediaRange::parse)
            .collect();
        let preference =
            |media: Self| ranges.iter().filter_map(|range| range.preference(media)).max();
        let graphql = preference(Self::GraphQl).filter(|preference| preference.quality > 0);
        let json = preference(Self::Json).filter(|preference| preference.quality > 0);
        match (graphql, json) {
            (None, None) => Err(RequestError::new(
                StatusCode::NOT_ACCEPTABLE,
                Code::Validation,
                "Responses are application/graphql-response+json or application/json; Accept allows neither.",
            )),
            (Some(_), None) => Ok(Self::GraphQl),
            (None, Some(_)) => Ok(Self::Json),
            (Some(graphql), Some(json)) => {
                let is_better =
                    (graphql.quality, graphql.precision) > (json.quality, json.precision);
                let is_tie = (graphql.quality, graphql.precision) == (json.quality, json.precision);
                let graphql_wins = is_better || (is_tie && graphql.precision == Precision::Exact);
                Ok(if graphql_wins { Self::GraphQl } else { Self::Json })
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Precision {
    Any,
    Type,
    Exact,
}

/// Quality that one media range gives to one media type. The ordering compares the precision first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Preference {
    precision: Precision,
    quality: u16,
}

struct MediaRange {
    essence: String,
    quality: u16,
}

impl MediaRange {
    /// Parses one entry of `Accept`. Returns `None` for a malformed entry and for a charset other than UTF-8.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let essence = parts.next()?.to_ascii_lowercase();
        let mut quality = 1000;
        for part in parts {
            let (name, value) = part.split_once('=')?;
            match name.trim().to_ascii_lowercase().as_str() {
                "q" => quality = thousandths(value.trim())?,
                "charset" if !value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8") => {
                    return None;
                }
                _ => {}
            }
        }
        Some(Self { essence, quality })
    }

    fn preference(&self, media: Media) -> Option<Preference> {
        let precision = match self.essence.as_str() {
            "*/*" => Precision::Any,
            "application/*" => Precision::Type,
            essence if essence == media.essence() => Precision::Exact,
            _ => return None,
        };
        Some(Preference { precision, quality: self.quality })
    }
}

/// Parses a quality value into thousandths: `0.8` → 800. Returns `None` for more than three decimal places and for
/// values above 1.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let whole = match whole {
        "0" => 0,
        "1" => 1000,
        _ => return None,
    };
    let quality = whole + format!("{fraction:0<3}").parse::<u16>().ok()?;
    (quality <= 1000).then_some(quality)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(accept: &str, expected: Option<Media>) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        assert_eq!(Media::negotiate(&headers).ok(), expected, "{accept}");
    }

    #[test]
    fn the_most_precise_range_decides_and_wildcards_get_json() {
        use Media::{GraphQl, Json};
        check("application/json", Some(Json));
        check("application/graphql-response+json", Some(GraphQl));
        check("application/graphql-response+json, application/json", Some(GraphQl));
        check("application/json, application/graphql-response+json", Some(GraphQl));
        check("application/json, application/graphql-response+json;q=0.9", Some(Json));
        check("application/graphql-response+json;q=0, */*", Some(Json));
        check("application/json;q=0, */*;q=0.1", Some(GraphQl));
        check("APPLICATION/JSON; charset=UTF-8", Some(Json));
        check("application/json; charset=latin1", None);
        check("*/*", Some(Json));
        check("application/*;q=0.5", Some(Json));
        check("text/html, application/xhtml+xml, */*;q=0.8", Some(Json));
        check("application/json, multipart/mixed", Some(Json));
        check("text/html", None);
        check("application/json;q=0", None);
        check("application/json;q=1.5", None);
        check("application/json;q=0.1234", None);
        check("", None);
        check(";;;=,,,", None);
        assert_eq!(Media::negotiate(&HeaderMap::new()).ok(), Some(Json));
    }
}
