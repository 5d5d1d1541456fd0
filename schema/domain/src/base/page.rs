//! Keyset pagination: a cursor holds the position of a row in the order of the list. The cost of a page therefore does
//! not depend on its start, and rows inserted or deleted between two pages neither repeat nor hide other rows.
//!
//! A cursor is opaque and authenticated together with its organization and list (name, order and filter). A cursor that
//! was tampered with, or that belongs to another list, is rejected before its content is used.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use uuid::Uuid;

use crate::base::{
    entity::OrganizationId,
    error::{Error, FieldError, Result},
};

/// Number of rows per page if the caller sets no size.
pub const DEFAULT_SIZE: usize = 50;
/// Maximum number of rows per page.
pub const MAX_SIZE: usize = 100;

const MAC_BYTES: usize = 16;

/// Keys that sign cursors. They are derived from the key ring, so every replica accepts the cursors of all others.
#[derive(Clone)]
pub struct CursorKeys(Vec<[u8; 32]>);

impl std::fmt::Debug for CursorKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CursorKeys({})", self.0.len())
    }
}

impl CursorKeys {
    /// Derives one signing key per encryption key. The first key signs; all keys verify.
    pub fn derive<'a>(encryption_keys: impl IntoIterator<Item = &'a [u8]>) -> Self {
        Self(
            encryption_keys
                .into_iter()
                .map(|key| {
                    let mut derived = [0; 32];
                    Hkdf::<Sha256>::new(None, key)
                        .expand(b"sentryops cursor v1", &mut derived)
                        .expect("32 bytes are within what HKDF-SHA256 expands to");
                    derived
                })
                .collect(),
        )
    }

    fn sign(&self, scope: &CursorScope, payload: &[u8]) -> Vec<u8> {
        let key = self.0.first().expect("a validated key ring has a key");
        scope.mac(key, payload).finalize().into_bytes()[..MAC_BYTES].to_vec()
    }

    fn verifies(&self, scope: &CursorScope, payload: &[u8], mac: &[u8]) -> bool {
        self.0.iter().any(|key| scope.mac(key, payload).verify_truncated_left(mac).is_ok())
    }
}

/// The list that a cursor belongs to: organization, name, order and filter.
#[derive(Debug, Clone)]
pub struct CursorScope {
    org: OrganizationId,
    list: String,
}

impl CursorScope {
    /// Returns the scope of the organization's list `name`. The `Debug` text of `fingerprint` must contain the list's
    /// filter and order.
    pub fn new(org: OrganizationId, name: &str, fingerprint: &impl std::fmt::Debug) -> Self {
        Self { org, list: format!("{name}\0{fingerprint:?}") }
    }

    fn mac(&self, key: &[u8; 32], payload: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
        mac.update(self.org.uuid().as_bytes());
        mac.update(&(self.list.len() as u64).to_be_bytes());
        mac.update(self.list.as_bytes());
        mac.update(payload);
        mac
    }
}

/// A row's position in its list: its ordering value, as text that sorts correctly in SQL after a cast, and its id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Position {
    /// The ordering value; empty if the list is ordered by the id only.
    pub value: String,
    /// The row's id, which orders rows with equal values.
    pub id: Uuid,
}

impl Position {
    /// Encodes the position as a cursor, signed with the first key.
    pub fn cursor(&self, keys: &CursorKeys, scope: &CursorScope) -> String {
        let mut bytes = self.id.as_bytes().to_vec();
        bytes.extend_from_slice(self.value.as_bytes());
        let mac = keys.sign(scope, &bytes);
        URL_SAFE_NO_PAD.encode([mac, bytes].concat())
    }

    fn parse(cursor: &str, keys: &CursorKeys, scope: &CursorScope, argument: &str) -> Result<Self> {
        let refusal = || {
            Error::invalid(
                argument,
                "not a cursor of this list: use endCursor or startCursor of a page with the same filter and order",
            )
        };
        let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| refusal())?;
        let (mac, payload) = bytes.split_at_checked(MAC_BYTES).ok_or_else(refusal)?;
        if !keys.verifies(scope, payload, mac) {
            return Err(refusal());
        }
        let (id, value) = payload.split_at_checked(16).ok_or_else(refusal)?;
        Ok(Self {
            id: Uuid::from_slice(id).map_err(|_| refusal())?,
            value: String::from_utf8(value.to_vec()).map_err(|_| refusal())?,
        })
    }
}

/// The four Relay pagination arguments, not yet validated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageArgs {
    /// Page size, counted from the start of the list; 1 to 100.
    pub first: Option<i32>,
    /// Cursor after which the page starts.
    pub after: Option<String>,
    /// Page size, counted from the end of the list; 1 to 100.
    pub last: Option<i32>,
    /// Cursor before which the page ends.
    pub before: Option<String>,
}

/// A validated page request, with decoded cursors.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PageRequest {
    /// Maximum number of rows, 1 to [`MAX_SIZE`].
    pub size: usize,
    /// True if `last` was set, so that the page is counted from the end of the list.
    pub backward: bool,
    /// Position after which the page starts.
    pub after: Option<Position>,
    /// Position before which the page ends.
    pub before: Option<Position>,
}

impl PageArgs {
    /// Checks sizes and cursors, and returns the page request; the default size is [`DEFAULT_SIZE`].
    ///
    /// # Errors
    /// `Invalid` with all errors: both `first` and `last` are set, a size is outside 1 to 100, or a cursor belongs to
    /// another list.
    pub fn check(&self, keys: &CursorKeys, scope: &CursorScope) -> Result<PageRequest> {
        let mut faults = Vec::new();
        let mut size = |name: &str, value: Option<i32>| {
            let rows = value?;
            let valid = usize::try_from(rows).ok().filter(|rows| (1..=MAX_SIZE).contains(rows));
            if valid.is_none() {
                let message = format!("is {rows}, but a page has between 1 and {MAX_SIZE} rows");
                faults.push(FieldError::new(name, message));
            }
            Some(valid.unwrap_or(DEFAULT_SIZE))
        };
        let (first, last) = (size("first", self.first), size("last", self.last));
        if first.is_some() && last.is_some() {
            faults.push(FieldError::new("last", "give first or last, not both"));
        }
        let mut position = |name: &str, value: &Option<String>| {
            value.as_ref().and_then(|cursor| match Position::parse(cursor, keys, scope, name) {
                Ok(position) => Some(position),
                Err(Error::Invalid(errors)) => {
                    faults.extend(errors);
                    None
                }
                Err(_) => None,
            })
        };
        let (after, before) = (position("after", &self.after), position("before", &self.before));
        if !faults.is_empty() {
            return Err(Error::Invalid(faults));
        }
        Ok(PageRequest {
            size: first.or(last).unwrap_or(DEFAULT_SIZE),
            backward: last.is_some(),
            after,
            before,
        })
    }
}

/// A page of rows, in the list's order whatever the direction of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows of this page.
    pub rows: Vec<T>,
    /// True if more rows follow this page.
    pub has_next: bool,
    /// True if rows precede this page.
    pub has_previous: bool,
}

impl<T> Page<T> {
    /// The page of a list without rows.
    pub const EMPTY: Self = Self { rows: Vec::new(), has_next: false, has_previous: false };

    /// Creates a page from the result of a statement that read up to `request.size + 1` rows in the direction of the
    /// request. The extra row shows that more rows exist.
    pub fn cut(mut rows: Vec<T>, request: &PageRequest) -> Self {
        let more = rows.len() > request.size;
        rows.truncate(request.size);
        if request.backward {
            rows.reverse();
            return Self { rows, has_next: request.before.is_some(), has_previous: more };
        }
        Self { rows, has_next: more, has_previous: request.after.is_some() }
    }

    /// Returns the same page with every row converted.
    pub fn map<U>(self, change: impl FnMut(T) -> U) -> Page<U> {
        Page {
            rows: self.rows.into_iter().map(change).collect(),
            has_next: self.has_next,
            has_previous: self.has_previous,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::Id;

    fn keys() -> CursorKeys {
        CursorKeys::derive([&[7_u8; 32][..]])
    }

    fn scope(filter: &str) -> CursorScope {
        CursorScope::new(Id::from(Uuid::nil()), "assets", &filter)
    }

    #[test]
    fn a_cursor_leads_back_to_its_place() {
        let position = Position { value: "web-1".into(), id: Uuid::now_v7() };
        let cursor = position.cursor(&keys(), &scope(""));
        assert_eq!(Position::parse(&cursor, &keys(), &scope(""), "after").unwrap(), position);
    }

    #[test]
    fn a_cursor_with_any_bit_flipped_is_refused() {
        let cursor = Position { value: "a".into(), id: Uuid::now_v7() }.cursor(&keys(), &scope(""));
        let bytes = URL_SAFE_NO_PAD.decode(&cursor).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut tampered = bytes.clone();
            tampered[bit / 8] ^= 1 << (bit % 8);
            let tampered = URL_SAFE_NO_PAD.encode(tampered);
            assert!(Position::parse(&tampered, &keys(), &scope(""), "after").is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_cursor_of_another_list_or_organization_is_refused() {
        let cursor = Position { value: "a".into(), id: Uuid::now_v7() }.cursor(&keys(), &scope(""));
        assert!(Position::parse(&cursor, &keys(), &scope("filtered"), "after").is_err());
        let elsewhere = CursorScope::new(Id::new(), "assets", &"");
        assert!(Position::parse(&cursor, &keys(), &elsewhere, "after").is_err());
        let other_ring = CursorKeys::derive([&[8_u8; 32][..]]);
        assert!(Position::parse(&cursor, &other_ring, &scope(""), "after").is_err());
    }

    #[test]
    fn an_older_key_of_the_ring_still_reads() {
        let cursor = Position { value: "a".into(), id: Uuid::now_v7() }.cursor(&keys(), &scope(""));
        let rotated = CursorKeys::derive([&[8_u8; 32][..], &[7_u8; 32][..]]);
        assert!(Position::parse(&cursor, &rotated, &scope(""), "after").is_ok());
    }

    #[test]
    fn a_bad_request_names_all_its_faults() {
        let args =
            PageArgs { first: Some(101), last: Some(0), after: Some("x".into()), before: None };
        let Err(Error::Invalid(faults)) = args.check(&keys(), &scope("")) else {
            panic!("accepted")
        };
        let paths: Vec<_> = faults.iter().map(|fault| fault.path.as_str()).collect();
        assert_eq!(paths, ["first", "last", "last", "after"]);
    }

    #[test]
    fn a_page_knows_what_surrounds_it() {
        let request = |size, backward| PageRequest { size, backward, after: None, before: None };
        let page = Page::cut(vec![1, 2, 3], &request(2, false));
        assert_eq!(
            (page.rows.as_slice(), page.has_next, page.has_previous),
            (&[1, 2][..], true, false)
        );
        let page = Page::cut(vec![3, 2, 1], &request(2, true));
        assert_eq!(
            (page.rows.as_slice(), page.has_next, page.has_previous),
            (&[2, 3][..], false, true)
        );
    }
}
