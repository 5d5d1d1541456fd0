//! Ids: one generic newtype over UUIDv7, with the identified entity as type parameter.
//!
//! The public form is a TypeID (`ast_01j8…`: a prefix and 26 characters of Crockford's base 32), so the error for an id
//! of the wrong type can name both types. In memory and in Postgres the id is a plain UUID. UUIDv7 keeps inserts at the
//! right edge of the index, and keyset pages are ordered by it.

use std::{fmt, hash::Hash, marker::PhantomData, str::FromStr};

use async_graphql::{InputValueError, InputValueResult, Scalar, ScalarType, Value};
use bytes::BytesMut;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use uuid::Uuid;

/// An entity with ids. States the prefix of the ids and the names of the entity.
pub trait Entity: 'static {
    /// Prefix of the entity's TypeIDs, e.g. `ast`.
    const PREFIX: &'static str;
    /// Noun used in messages, e.g. `API key`.
    const NAME: &'static str;
    /// Noun used in the audit trail, e.g. `api_key`.
    const KEY: &'static str;
    /// Table of all entities, searched for the type of an id with an unexpected prefix.
    const ALL: &'static [Names];
}

/// Prefix, name and key of one entity.
#[derive(Debug)]
pub struct Names {
    /// Prefix of TypeIDs; see [`Entity::PREFIX`].
    pub prefix: &'static str,
    /// Noun in messages; see [`Entity::NAME`].
    pub name: &'static str,
    /// Noun in the audit trail; see [`Entity::KEY`].
    pub key: &'static str,
}

/// Id of a `T`: a UUID in memory and in Postgres, a TypeID as text.
pub struct Id<T> {
    uuid: Uuid,
    of: PhantomData<fn() -> T>,
}

impl<T> Id<T> {
    /// Returns a new UUIDv7. Ids sort by their time of creation.
    pub fn new() -> Self {
        Self::from(Uuid::now_v7())
    }

    /// Returns a new UUIDv7 whose time is random within these bounds, for ids that must not tell their age.
    pub fn between(from: DateTime<Utc>, to: DateTime<Utc>) -> Self {
        let (from, to) = (from.timestamp_millis().max(0), to.timestamp_millis().max(0));
        let span = u64::try_from(to - from).unwrap_or(0);
        // The random part of a UUIDv7 is taken from the system's generator, so it can choose the time as well.
        let (random, _) = Uuid::new_v4().as_u64_pair();
        let offset = random.checked_rem(span.saturating_add(1)).unwrap_or(0);
        let millis = u64::try_from(from).unwrap_or(0).saturating_add(offset);
        let bytes: [u8; 10] = Uuid::new_v4().as_bytes()[6..].try_into().unwrap_or_default();
        Self::from(uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid())
    }

    /// Returns the id as a plain UUID, without its type.
    pub const fn uuid(self) -> Uuid {
        self.uuid
    }
}

impl<T> From<Uuid> for Id<T> {
    fn from(uuid: Uuid) -> Self {
        Self { uuid, of: PhantomData }
    }
}

impl<T> Default for Id<T> {
    fn default() -> Self {
        Self::new()
    }
}
impl<T> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Id<T> {}
impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        self.uuid == other.uuid
    }
}
impl<T> Eq for Id<T> {}
impl<T> PartialOrd for Id<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Id<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.uuid.cmp(&other.uuid)
    }
}
impl<T> Hash for Id<T> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.uuid.hash(state);
    }
}

impl<T: Entity> fmt::Display for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", T::PREFIX, encode(self.uuid))
    }
}
impl<T: Entity> fmt::Debug for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reason why a text is not an id of the requested type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// A well-formed id of another type.
    #[error("this is the id of {article} {found}, not of {expected_article} {expected}", article = article(found), expected_article = article(expected))]
    OtherType {
        /// Name of the entity that the id belongs to.
        found: &'static str,
        /// Name of the entity that was expected.
        expected: &'static str,
    },
    /// Not a well-formed id of any known type.
    #[error("not an id: ids look like {prefix}_01j8xq4m9ke5trv3yx2f7nbc6d")]
    Malformed {
        /// Prefix of the expected type's ids.
        prefix: &'static str,
    },
}

fn article(noun: &str) -> &'static str {
    if noun.starts_with(['a', 'e', 'i', 'o', 'A']) { "an" } else { "a" }
}

impl<T: Entity> FromStr for Id<T> {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let malformed = ParseIdError::Malformed { prefix: T::PREFIX };
        let (prefix, suffix) = text.rsplit_once('_').ok_or_else(|| malformed.clone())?;
        let uuid = decode(suffix).ok_or_else(|| malformed.clone())?;
        if prefix == T::PREFIX {
            return Ok(Self::from(uuid));
        }
        let other = T::ALL.iter().find(|known| known.prefix == prefix).ok_or(malformed)?;
        Err(ParseIdError::OtherType { found: other.name, expected: T::NAME })
    }
}

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

pub(super) fn encode(uuid: Uuid) -> String {
    let bits = uuid.as_u128();
    (0..26).rev().map(|index| ALPHABET[(bits >> (index * 5)) as usize & 31] as char).collect()
}

pub(super) fn decode(suffix: &str) -> Option<Uuid> {
    // 26 characters hold 130 bits, so the first must not exceed 7.
    if suffix.len() != 26 || suffix.as_bytes()[0] > b'7' {
        return None;
    }
    let bits = suffix.bytes().try_fold(0_u128, |bits, code| {
        let digit = ALPHABET.iter().position(|known| *known == code)?;
        Some(bits << 5 | digit as u128)
    })?;
    Some(Uuid::from_u128(bits))
}

impl<T: Entity> Serialize for Id<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de, T: Entity> Deserialize<'de> for Id<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl<T: Entity> ToSql for Id<T> {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        self.uuid.to_sql(ty, out)
    }
    fn accepts(ty: &Type) -> bool {
        <Uuid as ToSql>::accepts(ty)
    }
    to_sql_checked!();
}
impl<'a, T> FromSql<'a> for Id<T> {
    fn from_sql(
        ty: &Type,
        raw: &'a [u8],
    ) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Uuid::from_sql(ty, raw).map(Self::from)
    }
    fn accepts(ty: &Type) -> bool {
        <Uuid as FromSql>::accepts(ty)
    }
}

/// An opaque, typed id such as `ast_01j8xq4m9ke5trv3yx2f7nbc6d`.
#[Scalar(name = "ID")]
impl<T: Entity> ScalarType for Id<T> {
    fn parse(value: Value) -> InputValueResult<Self> {
        match value {
            Value::String(text) => Ok(text
                .parse()
                .map_err(|error: ParseIdError| InputValueError::custom(error.to_string()))?),
            _ => Err(InputValueError::custom("an id is a string")),
        }
    }
    fn to_value(&self) -> Value {
        Value::String(self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::entity::{Asset, User};

    #[test]
    fn an_id_survives_its_text() {
        for uuid in [Uuid::nil(), Uuid::max(), Uuid::now_v7()] {
            let id = Id::<Asset>::from(uuid);
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert_eq!(Id::<Asset>::from(Uuid::nil()).to_string(), "ast_00000000000000000000000000");
        assert_eq!(Id::<Asset>::from(Uuid::max()).to_string(), "ast_7zzzzzzzzzzzzzzzzzzzzzzzzz");
    }

    #[test]
    fn an_id_of_another_type_says_which() {
        let user = Id::<User>::new().to_string();
        let refusal = user.parse::<Id<Asset>>().unwrap_err();
        assert_eq!(refusal.to_string(), "this is the id of a user, not of an asset");
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in [
            "",
            "ast",
            "ast_",
            "ast_8zzzzzzzzzzzzzzzzzzzzzzzzz",
            "ast_0000000000000000000000000i",
            "AST_00000000000000000000000000",
            "xyz_00000000000000000000000000",
            "0190a5e4-7d2f-7a53-8a5c-3f1c5f0e8b1a",
            "ast_00000000000000000000000000 ",
            "ast_éééééééééééééé",
        ] {
            assert!(
                matches!(text.parse::<Id<Asset>>(), Err(ParseIdError::Malformed { .. })),
                "{text}"
            );
        }
    }
}
