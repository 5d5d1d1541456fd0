//! Migrations: numbered changes of the schema, and the list that this binary contains.

use std::fmt;

use sha2::{Digest, Sha256};

/// Change of the schema, with the SQL to apply and to revert it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    /// Number of the migration, from 1 and without gaps in a list.
    pub version: i32,
    /// Subject of the migration, e.g. `asset`.
    pub name: &'static str,
    /// SQL that applies the migration.
    pub up: &'static str,
    /// SQL that reverts the migration.
    pub down: &'static str,
}

/// Direction in which a migration runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Applies the migration, creating its objects.
    Up,
    /// Reverts the migration, dropping its objects.
    Down,
}

const ALL: &[Migration] = include!(concat!(env!("OUT_DIR"), "/migrations.rs"));

/// Returns all migrations of this binary, oldest first.
pub fn all() -> &'static [Migration] {
    ALL
}

/// Returns the newest version in this binary; 0 if the binary has no migration.
pub fn latest() -> i32 {
    newest(ALL)
}

pub(crate) fn newest(migrations: &[Migration]) -> i32 {
    migrations.last().map_or(0, |migration| migration.version)
}

impl Migration {
    /// Returns the SHA-256 of both scripts. A NUL separates the scripts, so moving text from one script to the other
    /// changes the checksum.
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
