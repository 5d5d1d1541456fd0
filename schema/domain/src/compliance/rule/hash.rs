//! A 64-bit hash (FNV-1a) that is the same in every server version, because hashes of facts are stored and may be
//! compared years later.

use cel::common::types::{CelInt, CelString};

use super::facts::FactValue;

/// State of a hash computation.
pub(super) struct Hash(u64);

impl Hash {
    pub(super) const fn new() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }

    /// Adds these bytes and their number.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.step(u64::from(*byte));
        }
        self.step(0x100 | bytes.len() as u64);
    }

    fn step(&mut self, by: u64) {
        self.0 = (self.0 ^ by).wrapping_mul(0x0000_0100_0000_01B3);
    }

    /// Adds a number as 64 bits on every platform.
    pub(super) fn number(&mut self, number: usize) {
        self.bytes(&(number as u64).to_le_bytes());
    }

    /// Adds the value of a fact.
    pub(super) fn value(&mut self, value: &FactValue) {
        match value {
            FactValue::Bool(value) => self.bytes(if *value.inner() { b"1" } else { b"0" }),
            FactValue::Int(number) => self.bytes(&number.inner().to_le_bytes()),
            FactValue::Text(text) => self.bytes(text.inner().as_bytes()),
            FactValue::Time(at) => self.bytes(&at.inner().timestamp_micros().to_le_bytes()),
            FactValue::List(items) => {
                self.number(items.inner().len());
                for item in items.inner() {
                    if let Some(number) = item.downcast_ref::<CelInt>() {
                        self.bytes(&number.inner().to_le_bytes());
                    } else if let Some(text) = item.downcast_ref::<CelString<'_>>() {
                        self.bytes(text.inner().as_bytes());
                    }
                }
            }
        }
    }

    /// Returns the hash as a signed number, as Postgres stores it.
    pub(super) const fn end(&self) -> i64 {
        self.0.cast_signed()
    }
}
