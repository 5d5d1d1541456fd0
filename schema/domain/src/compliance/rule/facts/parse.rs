//! Parses attributes from the bytes of a row's JSON, each to the attribute's type. Older server versions stored values
//! of other types; such a value is converted if its meaning is clear.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use tokio_postgres::types::{FromSql, Type as SqlType};

use super::FactValue;
use crate::{
    base::error,
    inventory::attribute::{
        Attribute, AttributeType, boolean_of, date_time_of, date_time_of_seconds, whole_number,
    },
};

/// The unparsed JSON of a column.
pub(super) struct RawJson<'a>(pub(super) &'a [u8]);

impl<'a> FromSql<'a> for RawJson<'a> {
    fn from_sql(
        ty: &SqlType,
        raw: &'a [u8],
    ) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        match (ty == &SqlType::JSONB, raw) {
            (true, [1, json @ ..]) | (false, json) => Ok(Self(json)),
            (true, _) => Err("unknown version of jsonb".into()),
        }
    }

    fn accepts(ty: &SqlType) -> bool {
        matches!(*ty, SqlType::JSON | SqlType::JSONB)
    }
}

/// Calls `set` for each known attribute of the JSON object, with the index of the attribute in the registry and the
/// value. The value is `None` if the JSON value cannot be converted.
pub(super) fn attributes(
    json: &[u8],
    set: impl FnMut(usize, Option<FactValue>),
) -> error::Result<()> {
    let mut json = serde_json::Deserializer::from_slice(json);
    json.deserialize_map(Object(set))
        .map_err(|_| error::Error::Corrupt { table: "asset", column: "attributes" })
}

struct Object<F>(F);

impl<'de, F: FnMut(usize, Option<FactValue>)> Visitor<'de> for Object<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(index) = map.next_key_seed(KeySeed)? {
            match index {
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
                Some(index) => {
                    let value =
                        map.next_value_seed(ValueSeed(Attribute::all()[index].attribute_type))?;
                    (self.0)(index, value);
                }
            }
        }
        Ok(())
    }
}

/// Deserializes a key of the object to the index of the attribute; `None` for an unknown attribute.
struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<Option<usize>, D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Option<usize>, E> {
        Ok(Attribute::index_of(key))
    }
}

/// Deserializes a value of the object to this type; `None` if the value cannot be converted.
struct ValueSeed(AttributeType);

impl<'de> DeserializeSeed<'de> for ValueSeed {
    type Value = Option<FactValue>;

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<Option<FactValue>, D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed {
    type Value = Option<FactValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Option<FactValue>, E> {
        Ok((self.0 == AttributeType::Boolean).then(|| FactValue::Bool(value.into())))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Option<FactValue>, E> {
        Ok(match self.0 {
            AttributeType::Boolean => Some(FactValue::Bool((number != 0).into())),
            AttributeType::Integer => Some(FactValue::Int(number.into())),
            AttributeType::DateTime => date_time_of_seconds(number).map(FactValue::time),
            AttributeType::Text | AttributeType::IntegerList | AttributeType::TextList => None,
        })
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Option<FactValue>, E> {
        self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Option<FactValue>, E> {
        Ok(match self.0 {
            AttributeType::Boolean => Some(FactValue::Bool((number != 0.0).into())),
            // A fraction is cut off: 90.5 days count as 90 days.
            #[expect(
                clippy::cast_possible_truncation,
                reason = "intended: a larger number becomes the maximum"
            )]
            AttributeType::Integer => Some(FactValue::Int((number as i64).into())),
            AttributeType::DateTime => {
                whole_number(number).and_then(date_time_of_seconds).map(FactValue::time)
            }
            AttributeType::Text | AttributeType::IntegerList | AttributeType::TextList => None,
        })
    }

    fn visit_str<E>(self, text: &str) -> Result<Option<FactValue>, E> {
        Ok(match self.0 {
            AttributeType::Boolean => boolean_of(text).map(|value| FactValue::Bool(value.into())),
            AttributeType::DateTime => date_time_of(text).map(FactValue::time),
            AttributeType::Text => Some(FactValue::Text(text.to_owned().into())),
            AttributeType::Integer | AttributeType::IntegerList | AttributeType::TextList => None,
        })
    }

    fn visit_unit<E>(self) -> Result<Option<FactValue>, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<FactValue>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Option<FactValue>, A::Error> {
        match self.0 {
            AttributeType::IntegerList => {
                let mut numbers = Vec::with_capacity(items.size_hint().unwrap_or(8));
                while let Some(item) = items.next_element_seed(IntegerSeed)? {
                    numbers.extend(item);
                }
                Ok(Some(FactValue::ints(numbers.into_iter())))
            }
            AttributeType::TextList => {
                let mut texts = Vec::with_capacity(items.size_hint().unwrap_or(4));
                while let Some(item) = items.next_element_seed(ValueSeed(AttributeType::Text))? {
                    if let Some(FactValue::Text(text)) = item {
                        texts.push(text.into_inner());
                    }
                }
                Ok(Some(FactValue::texts(texts.into_iter())))
            }
            AttributeType::Boolean
            | AttributeType::Integer
            | AttributeType::DateTime
            | AttributeType::Text => {
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(None)
            }
        }
    }
}

/// Deserializes an item of a list of integers: a whole number, or a string of digits. `None` for any other item.
struct IntegerSeed;

impl<'de> DeserializeSeed<'de> for IntegerSeed {
    type Value = Option<i64>;

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<Option<i64>, D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for IntegerSeed {
    type Value = Option<i64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an item")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Option<i64>, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, number: i64) -> Result<Option<i64>, E> {
        Ok(Some(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Option<i64>, E> {
        Ok(i64::try_from(number).ok())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Option<i64>, E> {
        Ok(None)
    }

    fn visit_str<E>(self, text: &str) -> Result<Option<i64>, E> {
        let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        Ok(if is_digits { text.parse().ok() } else { None })
    }

    fn visit_unit<E>(self) -> Result<Option<i64>, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<i64>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Option<i64>, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}
