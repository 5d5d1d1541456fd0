//! One numbered change of the schema, and the list that this binary carries.

use std::fmt;

use sha2::{Digest, Sha256};

/// One change of the schema, with its way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    /// Its number; a list counts from 1 without gaps.
    pub version: i32,
    /// What it is about, e.g. `asset`.
    pub name: &'static str,
    /// The SQL that makes it.
    pub up: &'static str,
    /// The SQL that takes it back.
    pub down: &'static str,
}

/// The way a migration is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Applying it.
    Up,
    /// Taking it back.
    Down,
}

const ALL: &[Migration] = include!(concat!(env!("OUT_DIR"), "/migrations.rs"));

/// All migrations of this binary, oldest first.
pub fn all() -> &'static [Migration] {
    ALL
}

/// The newest version that this binary knows; 0 where it has none.
pub fn latest() -> i32 {
    newest(ALL)
}

pub(crate) fn newest(migrations: &[Migration]) -> i32 {
    migrations.last().map_or(0, |migration| migration.version)
}

impl Migration {
    /// SHA-256 of both ways, the NUL between them so that moving text from one to the other shows.
    pub(crate) fn checksum(&self) -> Vec<u8> {
        Sha256::new()
            .chain_update(self.up)
            .chain_update([0])
            .chain_update(self.down)
            .finalize()
            .to_vec()
    }

    pub(crate) fn sql(&self, direction: Direction) -> &'static str {
        match direction {
            Direction::Up => self.up,
            Direction::Down => self.down,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}
