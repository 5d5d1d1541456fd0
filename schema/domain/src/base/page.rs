//! Keyset pages: a cursor is the last row's position in the order, so a page costs the same wherever it starts and rows
//! that come or go meanwhile neither repeat nor hide others.
//!
//! A cursor is opaque and authenticated together with the organization and the list (its order and filter): one that
//! was tampered with, or belongs to another list, is refused instead of being interpreted.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use uuid::Uuid;

use crate::base::{
    entity::OrganizationId,
    error::{Error, FieldError, Result},
};

/// Rows of a page where the caller does not say.
pub const DEFAULT_SIZE: usize = 50;
/// Rows of a page at most.
pub const MAX_SIZE: usize = 100;

const MAC_BYTES: usize = 16;

/// What signs cursors: derived from the key ring, so all replicas read each other's.
#[derive(Clone)]
pub struct CursorKeys(Vec<[u8; 32]>);

impl std::fmt::Debug for CursorKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CursorKeys({})", self.0.len())
    }
}

impl CursorKeys {
    /// The first key signs, all verify.
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

/// Which list a cursor belongs to: organization, list, order and filter.
#[derive(Debug, Clone)]
pub struct CursorScope {
    org: OrganizationId,
    list: String,
}

impl CursorScope {
    /// The list `name` of the organization, as filtered and ordered by what `fingerprint` shows.
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

/// A row's position in its list: the value it is ordered by, as text that sorts in SQL after a cast, and its id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Position {
    /// The ordering value; empty where the id alone orders.
    pub value: String,
    /// The row's id, which breaks ties.
    pub id: Uuid,
}

impl Position {
    /// The cursor that stands for it.
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
                "not a cursor of this list: take endCursor or startCursor from a page with the same filter and order",
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

/// The four Relay arguments as the caller gave them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageArgs {
    /// How many from the start.
    pub first: Option<i32>,
    /// After this cursor.
    pub after: Option<String>,
    /// How many from the end.
    pub last: Option<i32>,
    /// Before this cursor.
    pub before: Option<String>,
}

/// A checked request for a page.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PageRequest {
    /// Rows at most.
    pub size: usize,
    /// Whether it is counted from the list's end.
    pub backward: bool,
    /// Rows after this position only.
    pub after: Option<Position>,
    /// Rows before this position only.
    pub before: Option<Position>,
}

impl PageArgs {
    /// Checks sizes and cursors.
    ///
    /// # Errors
    /// All faults at once: `first` and `last` together, a size outside 1 to 100, a cursor that is not of this list.
    pub fn check(&self, keys: &CursorKeys, scope: &CursorScope) -> Result<PageRequest> {
        let mut faults = Vec::new();
        let mut size = |name: &str, given: Option<i32>| {
            let rows = given?;
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
        let mut position = |name: &str, given: &Option<String>| {
            given.as_ref().and_then(|cursor| match Position::parse(cursor, keys, scope, name) {
                Ok(position) => Some(position),
                Err(Error::Invalid(more)) => {
                    faults.extend(more);
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

/// A page of rows, in the list's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Whether rows follow.
    pub has_next: bool,
    /// Whether rows precede.
    pub has_previous: bool,
}

impl<T> Page<T> {
    /// Of a list without rows.
    pub const EMPTY: Self = Self { rows: Vec::new(), has_next: false, has_previous: false };

    /// From the rows of a statement that was asked for one more than the page holds, in the direction of the request.
    pub fn cut(mut rows: Vec<T>, request: &PageRequest) -> Self {
        let more = rows.len() > request.size;
        rows.truncate(request.size);
        if request.backward {
            rows.reverse();
            return Self { rows, has_next: request.before.is_some(), has_previous: more };
        }
        Self { rows, has_next: more, has_previous: request.after.is_some() }
    }

    /// The same page of something else.
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
