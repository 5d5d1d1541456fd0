//! Evidence: the values of a rule's evidence expressions on an asset. Evidence consists of facts of the asset, so it is
//! shown only to callers who may read assets, wherever it appears: in findings, verdicts, trials and report files.

use serde_json::Value;

use crate::access::{permission::Permission, viewer::Viewer};

/// Visibility of asset details in compliance results. Details require `ASSET_READ`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AssetDetails {
    /// Details of assets are included.
    Included,
    /// Evidence, names and other details of assets are left out.
    Omitted,
}

impl AssetDetails {
    /// Returns the details that the viewer may see.
    pub const fn of(viewer: &Viewer) -> Self {
        if viewer.may(Permission::AssetRead) { Self::Included } else { Self::Omitted }
    }
}

/// Values of a rule's evidence expressions on an asset, by name. The values can be read only with [`Evidence::shown`].
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence(Value);

impl Evidence {
    /// Wraps the values: a JSON object from name to value.
    pub(crate) const fn new(values: Value) -> Self {
        Self(values)
    }

    /// Returns the values; `None` if details of assets are left out.
    pub const fn shown(&self, details: AssetDetails) -> Option<&Value> {
        match details {
            AssetDetails::Included => Some(&self.0),
            AssetDetails::Omitted => None,
        }
    }

    /// Returns the values to be stored.
    pub(crate) const fn stored(&self) -> &Value {
        &self.0
    }
}
