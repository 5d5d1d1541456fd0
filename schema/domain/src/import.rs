//! Inventories that come in from elsewhere.

use crate::text::text_enum;

pub mod cut;

text_enum! {
    /// How an inventory is written down.
    ImportFormat in "import_run"."format" {
        /// Comma-separated values with a header.
        Csv = "CSV",
        /// A list of objects, or one object a line.
        Json = "JSON",
    }
}
